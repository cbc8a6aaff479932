/**
 * Whether what a copy holds of a file that grows is the beginning of what the repository holds of it.
 *
 * Invariant: only bytes that are no whole frame are ever called torn, and cut. It prevents a history that another collector has
 * written, or that the repository itself has lost, from being taken for the rest of an append that a crash cut short.
 */

import { type ByteSource, commonBytes } from './repository/copy.ts'
import { FILE_HEADER_BYTES, isHeaderWhole } from './repository/file-header.ts'
import { FRAME_HEADER_BYTES, frameBytes, isBodyWhole, readFrameHeader } from './repository/frame.ts'

export type Match = { readonly kind: 'same' } | { readonly kind: 'other' } | { readonly kind: 'torn'; readonly from: number }

/** `copied` is no longer than `own`. */
export async function matchOf(copied: ByteSource, own: ByteSource): Promise<Match> {
  const same = await commonBytes(copied, own)
  if (same === copied.bytes) return { kind: 'same' }
  const from = await frameAt(own, same)
  return (await isWhole(copied, from)) ? { kind: 'other' } : { kind: 'torn', from }
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

/** Whether a whole frame begins there, or the file's header, by their checksums. */
async function isWhole(source: ByteSource, offset: number): Promise<boolean> {
  if (offset === 0) return isHeaderWhole(await source.read(0, FILE_HEADER_BYTES))
  const header = readFrameHeader(await source.read(offset, FRAME_HEADER_BYTES))
  if (header === undefined || offset + frameBytes(header) > source.bytes) return false
  return isBodyWhole(header, await source.read(offset + FRAME_HEADER_BYTES, frameBytes(header) - FRAME_HEADER_BYTES))
}
