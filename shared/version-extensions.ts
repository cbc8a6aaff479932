/**
 * What a version says beyond what every reader must understand: its holes, who wrote it, and whether it was only inferred
 * (docs/format.md, "Extension fields"). Older readers carry these fields along and restore without them.
 *
 * Invariant: a field that is not well-formed counts as absent. It prevents a fault in what is only additional from keeping
 * a file from being restored.
 */
import { ByteReader, type ByteString, ByteWriter } from './bytes.ts'
import { PacsimileError } from './errors.ts'
import { PATH_BYTES_MAX } from './limits.ts'
import type { Extension, Version } from './version.ts'

/** A range of a file that reads as zeros and takes no space. */
export interface Hole {
  /** Bytes from the start of the file. */
  readonly offset: number
  /** Bytes. */
  readonly length: number
}

/** The process that wrote a version last, as far as the kernel told. */
export interface Writer {
  readonly pid: number
  readonly uid: number
  /** Path of its executable; empty where it had ended before it could be asked. */
  readonly executable: ByteString
}

const HOLES = 128
const WRITER = 129
const INFERRED = 130
/** More than these are not worth their bytes: the file is then recorded without its holes. */
export const HOLES_MAX = 10_000

export interface Additions {
  readonly holes?: readonly Hole[]
  readonly writer?: Writer | undefined
  /** The path was not seen itself: something below it was, after the path had gone. */
  readonly isInferred?: boolean
}

/** The version with these fields in place of those that it has; empty ones are left out. */
export function withAdditions<Kind extends Version>(version: Kind, { holes, writer, isInferred }: Additions): Kind {
  const others = (version.extensions ?? []).filter(({ tag }) => tag !== HOLES && tag !== WRITER && tag !== INFERRED)
  const extensions = [
    ...others,
    ...(holes === undefined || holes.length === 0 || holes.length > HOLES_MAX ? [] : [{ tag: HOLES, value: encodeHoles(holes) }]),
    ...(writer === undefined ? [] : [{ tag: WRITER, value: encodeWriter(writer) }]),
    ...(isInferred === true ? [{ tag: INFERRED, value: '' }] : []),
  ].sort((a, b) => a.tag - b.tag)
  const { extensions: _, ...rest } = version
  return (extensions.length === 0 ? rest : { ...rest, extensions }) as Kind
}

export function additionsOf(version: Version): Additions {
  return { holes: holesOf(version), writer: writerOf(version), isInferred: isInferred(version) }
}

/** By rising offset, none over another, all within the file; empty where none are recorded. */
export function holesOf(version: Version): readonly Hole[] {
  if (version.kind !== 'file') return []
  const { size } = version
  return read(version.extensions, HOLES, (from) => decodeHoles(from, size)) ?? []
}

export function writerOf(version: Version): Writer | undefined {
  return read(version.extensions, WRITER, (from) => ({
    pid: from.varint(0xffff_ffff),
    uid: from.varint(0xffff_ffff),
    executable: from.string(PATH_BYTES_MAX),
  }))
}

export function isInferred(version: Version): boolean {
  return version.extensions?.some(({ tag }) => tag === INFERRED) === true
}

function read<Value>(extensions: readonly Extension[] | undefined, tag: number, decode: (from: ByteReader) => Value): Value | undefined {
  const found = extensions?.find((extension) => extension.tag === tag)
  if (found === undefined) return undefined
  try {
    return decode(new ByteReader(Buffer.from(found.value, 'latin1'), 'Extension field'))
  } catch (error) {
    if (error instanceof PacsimileError) return undefined
    throw error
  }
}

/** Gaps between the holes rather than offsets: small numbers. */
function encodeHoles(holes: readonly Hole[]): ByteString {
  const to = new ByteWriter()
  let end = 0
  to.varint(holes.length)
  for (const { offset, length } of holes) {
    to.varint(offset - end).varint(length)
    end = offset + length
  }
  return to.take().toString('latin1')
}

function decodeHoles(from: ByteReader, size: number): Hole[] {
  const holes: Hole[] = []
  let end = 0
  for (let count = from.varint(HOLES_MAX); count > 0; count--) {
    const offset = end + from.varint()
    const length = from.varint()
    end = offset + length
    if (length === 0 || end > size) from.fail('a hole that is empty or beyond the file')
    holes.push({ offset, length })
  }
  return holes
}

function encodeWriter({ pid, uid, executable }: Writer): ByteString {
  return new ByteWriter().varint(pid).varint(uid).string(executable.slice(0, PATH_BYTES_MAX)).take().toString('latin1')
}
