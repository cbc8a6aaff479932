/**
 * The port to one further place of a repository: a directory, or a bucket (docs/format.md, "Copies").
 *
 * Names are those of the repository (`packs/01/000000000001.pack`). Invariant: what a promise here says is durable when it
 * resolves, and nothing that stands in a copy is ever given another content, but by `replace` and by `write` over a version that
 * the caller has seen. It prevents a copier that was mistaken, or a second one, from overwriting a history.
 */
import { PacsimileError } from '../../shared/errors.ts'
import { SMALL_FILE_BYTES_MAX } from '../../shared/limits.ts'
import type { FrameFileKind } from './file-header.ts'

/** A file as it is listed. One that grows still is as long as what can be read of it without a gap. */
export interface CopiedFile {
  readonly name: string
  readonly bytes: number
  /** It will never grow. */
  readonly isFinished: boolean
  /** Another collector has closed it against whoever wrote it. */
  readonly isFenced: boolean
  readonly modifiedMs: number
}

/** Bytes that are read in pieces. */
export interface ByteSource {
  readonly bytes: number
  /** @throws io when there are fewer */
  read(offset: number, length: number): Promise<Buffer>
}

/** A small file as a whole, with what tells this content of it from the next. */
export interface SmallFile {
  readonly bytes: Buffer
  readonly version: string
}

export interface Copy extends AsyncDisposable {
  /** As people write it; holds no secret. */
  readonly url: string
  /** That the place keeps what is promised here, as far as that can be tried. @throws unsupported */
  prove?(): Promise<void>
  /** Removes what a writer that was killed has left of a file; to be called by the writer. */
  clear?(): Promise<void>
  /** Everything below a prefix that ends in `/`, or in a name. @throws not-found where the place itself is missing */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<CopiedFile>
  /** Where a file is on this host, for copies that are. */
  localPath?(name: string): string
  /** Fewer bytes than asked for at the end of the file. @throws not-found */
  read(name: string, offset: number, length: number): Promise<Buffer>
  /** Writes behind what is there; `offset` is how much that is, 0 for a new file. @throws fenced */
  append(name: string, offset: number, bytes: Buffer): Promise<void>
  /** The file is `source`, of which a beginning may be there, and never grows. The same once more is no failure. @throws fenced */
  finish(name: string, source: ByteSource, signal?: AbortSignal): Promise<void>
  /** Takes off what is damaged from this place on of a file that grows, and perhaps more. @returns how much is left */
  cut(name: string, bytes: number): Promise<number>
  /** Puts a whole file in the place of a damaged one. */
  replace(name: string, source: ByteSource): Promise<void>
  /** Whoever would write at this place of a file that grows is refused from now on; false where somebody wrote there meanwhile. */
  fence(name: string, offset: number): Promise<boolean>
  /** Nobody can remove this finished file for as long from now as when it was put, where the place has such a time. */
  renew?(name: string): Promise<void>
  find(name: string): Promise<SmallFile | undefined>
  /** A small file as a whole, over the version that was found, over nothing, or over whatever there is. @throws fenced where it is another one */
  write(name: string, bytes: Buffer, over: SmallFile | 'nothing' | 'anything'): Promise<void>
  /** It need not be there. */
  remove(name: string): Promise<void>
}

export const DESCRIPTION_NAME = 'repository.json'
export const KEYS_PREFIX = 'keys/'
const SUFFIXES = { 'pack': 'pack', 'segment': 'seg' } as const
export const COPIED_KINDS = ['pack', 'segment'] as const satisfies readonly FrameFileKind[]

export function prefixOf(kind: FrameFileKind): string {
  return `${kind}s/`
}

export function nameOf(kind: FrameFileKind, number: number): string {
  const digits = number.toString(16).padStart(12, '0')
  return `${prefixOf(kind)}${digits.slice(-2)}/${digits}.${SUFFIXES[kind]}`
}

/** Undefined for what is no pack and no segment. */
export function fileOf(name: string): { readonly kind: FrameFileKind; readonly number: number } | undefined {
  const [, kinds, shelf, digits, suffix] = /^(pack|segment)s\/([0-9a-f]{2})\/([0-9a-f]{12})\.(pack|seg)$/.exec(name) ?? []
  const kind = kinds === 'pack' || kinds === 'segment' ? kinds : undefined
  if (kind === undefined || digits === undefined || suffix !== SUFFIXES[kind] || shelf !== digits.slice(-2)) return undefined
  return { kind, number: Number.parseInt(digits, 16) }
}

/** @throws format-invalid for what is no small file: whoever else can write there may have put it */
export function requireSmall(name: string, bytes: number): void {
  if (bytes > SMALL_FILE_BYTES_MAX) throw new PacsimileError('format-invalid', `${name} has more than ${SMALL_FILE_BYTES_MAX} bytes`)
}

/** Another collector writes here. */
export function fenced(copy: string, what: string): PacsimileError {
  return new PacsimileError('fenced', `The copy ${copy} is written by another collector: ${what}`)
}

export function sourceOf(bytes: Buffer): ByteSource {
  return { bytes: bytes.length, read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)) }
}

/** Read at once of what may be large. */
export const PIECE_BYTES = 4 << 20

export async function* piecesOf(source: ByteSource, from = 0): AsyncGenerator<Buffer> {
  for (let at = from; at < source.bytes; ) {
    const piece = await source.read(at, Math.min(PIECE_BYTES, source.bytes - at))
    if (piece.length === 0) throw new PacsimileError('io', `What is to be copied ends at byte ${at} of ${source.bytes}`)
    yield piece
    at += piece.length
  }
}

/** What a copy holds of a file, to be read in pieces. */
export function copiedSource(copy: Copy, name: string, bytes: number): ByteSource {
  return { bytes, read: (offset, length) => copy.read(name, offset, length) }
}

/** Up to which byte two sources are the same, as they are before `from`. */
export async function commonBytes(a: ByteSource, b: ByteSource, from = 0): Promise<number> {
  const bytes = Math.min(a.bytes, b.bytes)
  for (let at = from; at < bytes; ) {
    const length = Math.min(PIECE_BYTES, bytes - at)
    const [left, right] = await Promise.all([a.read(at, length), b.read(at, length)])
    if (!left.equals(right) || left.length < length) {
      const end = Math.min(left.length, right.length)
      let same = 0
      while (same < end && left[same] === right[same]) same += 1
      return at + same
    }
    at += length
  }
  return bytes
}
