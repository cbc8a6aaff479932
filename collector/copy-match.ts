/**
 * Whether what a copy holds of a file that grows is the beginning of what the repository holds of it.
 *
 * Invariant: only bytes that are no whole frame are ever called torn, and cut; and the repository's only where nothing whole of another
 * history stands in their place. It prevents a history that another collector has written, or that the repository itself has lost, from
 * being taken for the rest of an append that a crash cut short; and a repository that rots from giving up the copy that could heal it.
 */

import { type ByteSource, commonBytes } from './repository/copy.ts'
import { FILE_HEADER_BYTES, isHeaderWhole } from './repository/file-header.ts'
import { FRAME_HEADER_BYTES, FRAME_MAGIC, frameBytes, isBodyWhole, readFrameHeader } from './repository/frame.ts'

export type Match =
  | { readonly kind: 'same' }
  | { readonly kind: 'other' }
  /** The copy is no whole frame there. */
  | { readonly kind: 'torn'; readonly from: number }
  /** The same, but that the repository is damaged where the copy is whole. */
  | { readonly kind: 'rotten' }

/** `copied` is no longer than `own`, which goes on to where it was made durable. */
export async function matchOf(copied: ByteSource, own: ByteSource): Promise<Match> {
  let isRotten = false
  for (let from = 0; ; ) {
    const same = await commonBytes(copied, own, from)
    if (same === copied.bytes) return { kind: isRotten ? 'rotten' : 'same' }
    const at = await frameAt(copied, same)
    const end = await endOfFrame(copied, at)
    if (end === undefined) return { kind: 'torn', from: at }
    if ((await endOfFrame(own, at)) !== undefined || (await hasFrameBetween(own, at, end))) return { kind: 'other' }
    isRotten = true
    from = end
  }
}

/** Where the frame begins in which a byte lies; 0 in the file's header. */
async function frameAt(source: ByteSource, offset: number): Promise<number> {
  if (offset < FILE_HEADER_BYTES) return 0
  let at = FILE_HEADER_BYTES
  for (;;) {
    const header = readFrameHeader(await source.read(at, FRAME_HEADER_BYTES))
    if (header === undefined || at + frameBytes(header) > offset) return at
    at += frameBytes(header)
  }
}

/** The end of the frame that begins there, or of the file's header; undefined where it is not whole by its checksums. */
async function endOfFrame(source: ByteSource, offset: number): Promise<number | undefined> {
  if (offset === 0) return isHeaderWhole(await source.read(0, FILE_HEADER_BYTES)) ? FILE_HEADER_BYTES : undefined
  const header = readFrameHeader(await source.read(offset, FRAME_HEADER_BYTES))
  if (header === undefined || offset + frameBytes(header) > source.bytes) return undefined
  const body = await source.read(offset + FRAME_HEADER_BYTES, frameBytes(header) - FRAME_HEADER_BYTES)
  return isBodyWhole(header, body) ? offset + frameBytes(header) : undefined
}

/** Whether a whole frame begins behind one place and before another. */
async function hasFrameBetween(source: ByteSource, start: number, end: number): Promise<boolean> {
  const bytes = await source.read(start, end - start)
  for (let at = bytes.indexOf(FRAME_MAGIC, 1); at >= 0; at = bytes.indexOf(FRAME_MAGIC, at + 1))
    if ((await endOfFrame(source, start + at)) !== undefined) return true
  return false
}
