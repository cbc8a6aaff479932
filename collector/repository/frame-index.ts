/**
 * The index and the footer that end a sealed file of frames (docs/format.md, "Index and footer").
 *
 * Invariant: an index lists the chunk and records frames of its file, each in full, and nothing else; one that says more than
 * this release knows is no index to it, and the file is read front to back. It prevents a frame of a newer release from being
 * taken for records.
 */
import { crc32 } from 'node:zlib'
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { DIGEST_BYTES, type Digest, digest } from '../../shared/digest.ts'
import { FRAME_TYPES } from './frame.ts'

const FOOTER_MAGIC = Buffer.from('PcE1', 'latin1')
export const FOOTER_BYTES = 16
const INDEXED_TYPES = ['chunk', 'records'] as const
/** More frames than a file of any size that is written has room for. */
const FRAMES_MAX = 1 << 24

export function isIndexed(type: string): type is (typeof INDEXED_TYPES)[number] {
  return (INDEXED_TYPES as readonly string[]).includes(type)
}

export interface IndexedFrame {
  readonly type: (typeof INDEXED_TYPES)[number]
  readonly offset: number
  readonly storedLength: number
  readonly plainLength: number
  readonly digest: Digest
}

export function encodeIndex(frames: readonly IndexedFrame[]): Buffer {
  const to = new ByteWriter(64 + frames.length * 48)
  to.varint(frames.length)
  for (const frame of frames) {
    to.u8(FRAME_TYPES[frame.type]).varint(frame.offset).varint(frame.storedLength).varint(frame.plainLength).rawString(frame.digest)
  }
  return to.take()
}

/** @throws format-invalid */
export function decodeIndex(bytes: Buffer): IndexedFrame[] {
  const from = new ByteReader(bytes, 'Index frame')
  const frames = Array.from({ length: from.varint(FRAMES_MAX) }, (): IndexedFrame => {
    const number = from.u8()
    const type = INDEXED_TYPES.find((known) => FRAME_TYPES[known] === number) ?? from.fail('unknown type of frame')
    return {
      type,
      offset: from.varint(),
      storedLength: from.varint(),
      plainLength: from.varint(),
      digest: digest(from.rawString(DIGEST_BYTES)),
    }
  })
  from.end()
  return frames
}

export function encodeFooter(indexOffset: number): Buffer {
  const footer = new ByteWriter(FOOTER_BYTES).raw(FOOTER_MAGIC).u64(indexOffset)
  return footer.u32(crc32(footer.view())).take()
}

/** The offset of the index frame; undefined where these bytes are no footer. */
export function readFooter(bytes: Buffer): number | undefined {
  if (!bytes.subarray(0, 4).equals(FOOTER_MAGIC) || crc32(bytes.subarray(0, 12)) !== bytes.readUInt32LE(12)) return undefined
  return Number(bytes.readBigUInt64LE(4))
}
