/**
 * One file of the spool: a header, then frames, one chunk each (docs/format.md, "Spool").
 *
 *     file    "pacspool" 8, version u32
 *     frame   magic u32, flags u8 (1: zstd, 2: filtered), plain length u32, stored length u32, digest 32,
 *             crc32 of the stored bytes u32, crc32 of the header before this u32, stored bytes
 *
 * Invariant: a reader stops at the first frame that is not whole, and never believes bytes whose checksum is wrong. It
 * prevents the torn tail of a crash from being taken for content.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { ByteReader, ByteWriter } from '../shared/bytes.ts'
import { DIGEST_BYTES, type Digest, digest } from '../shared/digest.ts'
import { CHUNK_BYTES_MAX } from '../shared/limits.ts'
import type { StoredForm } from '../shared/stored-form.ts'
import type { StoredChunk } from './capture-thread.ts'

export const SPOOL_HEADER = new ByteWriter().rawString('pacspool').u32(1).take()
export const SPOOL_FRAME_HEADER_BYTES = 4 + 1 + 4 + 4 + DIGEST_BYTES + 4 + 4

const MAGIC = 0x3150_5350
const COMPRESSED = 1
const FILTERED = 2

/** Where a chunk's stored bytes are within a segment. */
export interface SpoolFrame extends StoredForm {
  readonly digest: Digest
  readonly length: number
  readonly checksum: number
  /** Of the stored bytes, after the frame's header. */
  readonly offset: number
  readonly storedLength: number
}

export function encodeFrameHeader(name: Digest, chunk: StoredChunk): Buffer {
  const header = new ByteWriter(SPOOL_FRAME_HEADER_BYTES)
  header
    .u32(MAGIC)
    .u8((chunk.compressed ? COMPRESSED : 0) | (chunk.filtered ? FILTERED : 0))
    .u32(chunk.length)
    .u32(chunk.bytes.length)
    .rawString(name)
    .u32(crc32(chunk.bytes))
  return header.u32(crc32(header.view())).view()
}

function decodeFrameHeader(bytes: Buffer, at: number): SpoolFrame | undefined {
  const from = new ByteReader(bytes, 'Spool frame')
  const magic = from.u32()
  const flags = from.u8()
  const length = from.u32()
  const storedLength = from.u32()
  const name = digest(from.rawString(DIGEST_BYTES))
  const checksum = from.u32()
  const isWhole = magic === MAGIC && from.u32() === crc32(bytes.subarray(0, SPOOL_FRAME_HEADER_BYTES - 4))
  if (!isWhole || flags > (COMPRESSED | FILTERED) || length === 0 || length > CHUNK_BYTES_MAX || storedLength > CHUNK_BYTES_MAX)
    return undefined
  const form = { filtered: (flags & FILTERED) !== 0, compressed: (flags & COMPRESSED) !== 0 }
  return { digest: name, length, ...form, checksum, offset: at + SPOOL_FRAME_HEADER_BYTES, storedLength }
}

/** The whole frames of a segment file, and how long it is. Only headers are read: content is checked when it is used. */
export function readSegment(file: string): { readonly frames: SpoolFrame[]; readonly size: number } {
  const fd = openSync(file, 'r')
  try {
    const { size } = fstatSync(fd)
    const frames: SpoolFrame[] = []
    const start = Buffer.alloc(SPOOL_HEADER.length)
    if (readSync(fd, start, 0, start.length, 0) < start.length || !start.equals(SPOOL_HEADER)) return { frames, size }
    const header = Buffer.alloc(SPOOL_FRAME_HEADER_BYTES)
    for (let at = SPOOL_HEADER.length; readSync(fd, header, 0, header.length, at) === header.length; ) {
      const frame = decodeFrameHeader(header, at)
      if (frame === undefined || frame.offset + frame.storedLength > size) break
      frames.push(frame)
      at = frame.offset + frame.storedLength
    }
    return { frames, size }
  } finally {
    closeSync(fd)
  }
}
