/**
 * In which order, and in which portions, files of a plan are written. Pure.
 *
 * Invariant: names of one file are in one group, in the order of the plan. It prevents hard links from coming back as separate files.
 */
import { type ChunkRef, hardLinkKey } from '../shared/version.ts'
import type { ListedEntry } from './history-source.ts'
import type { FileTask } from './restore-files.ts'

/** A file with all of its names. */
export interface LinkedFile {
  readonly names: ListedEntry[]
}

/** Of content, and chunks of it, for one thread at once. */
const BATCH_BYTES = 32 << 20
const BATCH_CHUNKS = 1024

/** More of one file is read by several threads. */
export const LARGE_BYTES = 2 * BATCH_BYTES

/** In the order of their first names. */
export function linkedFiles(entries: readonly ListedEntry[]): LinkedFile[] {
  const byKey = new Map<string, LinkedFile>()
  const found: LinkedFile[] = []
  for (const entry of entries) {
    const key = hardLinkKey(entry.version)
    const known = key === undefined ? undefined : byKey.get(key)
    if (known !== undefined) {
      known.names.push(entry)
      continue
    }
    const file: LinkedFile = { names: [entry] }
    found.push(file)
    if (key !== undefined) byKey.set(key, file)
  }
  return found
}

export function newestFirst(files: readonly LinkedFile[]): LinkedFile[] {
  return files.toSorted(({ names: [a] }, { names: [b] }) => {
    const [first, second] = [a?.version.mtimeNs ?? 0n, b?.version.mtimeNs ?? 0n]
    return first > second ? -1 : first < second ? 1 : 0
  })
}

/** What a thread is given at once. */
export class Portion {
  readonly tasks: FileTask[] = []
  #bytes = 0
  #chunks = 0

  /** @returns whether it is full now */
  add(task: FileTask): boolean {
    this.tasks.push(task)
    this.#bytes += task.version.size
    this.#chunks += task.version.chunks.length
    return this.#bytes >= BATCH_BYTES || this.#chunks >= BATCH_CHUNKS
  }
}

/** Plain bytes. */
export function bytesOf(refs: readonly ChunkRef[]): number {
  return refs.reduce((sum, { length }) => sum + length, 0)
}

/** What is brought at once of content that a thread cannot read itself. */
export function portionsOf(refs: readonly ChunkRef[]): ChunkRef[][] {
  const portions: ChunkRef[][] = []
  let bytes = BATCH_BYTES
  for (const ref of refs) {
    if (bytes + ref.length > BATCH_BYTES) {
      portions.push([])
      bytes = 0
    }
    portions.at(-1)?.push(ref)
    bytes += ref.length
  }
  return portions
}

export function batchesOf(tasks: readonly FileTask[]): FileTask[][] {
  const batches: FileTask[][] = []
  let portion = new Portion()
  for (const task of tasks) {
    if (!portion.add(task)) continue
    batches.push(portion.tasks)
    portion = new Portion()
  }
  return portion.tasks.length === 0 ? batches : [...batches, portion.tasks]
}
