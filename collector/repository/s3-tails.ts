/**
 * Files of a bucket as their objects: one for a finished file, and parts `NAME.tail-OFFSET` of one that still grows.
 *
 * Invariant: of the parts only those count that follow each other from the file's beginning. It prevents what lies behind a gap, which
 * was put by somebody else or before a removal, from being read as if it followed.
 */
import type { CopiedFile } from './copy.ts'

export interface Tail {
  readonly offset: number
  readonly bytes: number
}

export interface FoundObject {
  readonly name: string
  readonly bytes: number
  readonly modifiedMs: number
}

const TAIL = /^(.+)\.tail-([0-9a-f]{16})$/

/** Of which file an object is. */
export function fileNameOf({ name }: FoundObject): string {
  return TAIL.exec(name)?.[1] ?? name
}

export function tailName(name: string, offset: number): string {
  return `${name}.tail-${offset.toString(16).padStart(16, '0')}`
}

export function tailsOf(objects: readonly FoundObject[]): Tail[] {
  return objects.flatMap(({ name, bytes }) => {
    const [, , offset] = TAIL.exec(name) ?? []
    return offset === undefined ? [] : [{ offset: Number.parseInt(offset, 16), bytes }]
  })
}

/** The parts that follow each other from the file's beginning, and whether a fence ends them. */
export function joined(tails: readonly Tail[]): { readonly parts: readonly Tail[]; readonly bytes: number; readonly isFenced: boolean } {
  const parts: Tail[] = []
  let bytes = 0
  for (const tail of [...tails].sort((a, b) => a.offset - b.offset)) {
    if (tail.offset !== bytes) break
    if (tail.bytes === 0) return { parts, bytes, isFenced: true }
    parts.push(tail)
    bytes += tail.bytes
  }
  return { parts, bytes, isFenced: false }
}

export function asFile(name: string, objects: readonly FoundObject[]): CopiedFile {
  const modifiedMs = Math.max(...objects.map((object) => object.modifiedMs))
  const whole = objects.find((object) => object.name === name)
  const { bytes, isFenced } = joined(tailsOf(objects))
  return { name, bytes: whole?.bytes ?? bytes, isFinished: whole !== undefined, isFenced, modifiedMs }
}
