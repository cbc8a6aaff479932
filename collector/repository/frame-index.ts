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

/** Of a file that is being written, as it will be stored: a pack has some hundred thousand frames, which as objects are five times as large. */
export class IndexWriter {
  readonly #frames = new ByteWriter()
  #count = 0

  add({ type, offset, storedLength, plainLength, digest: name }: IndexedFrame): void {
    this.#frames.u8(FRAME_TYPES[type]).varint(offset).varint(storedLength).varint(plainLength).rawString(name)
    this.#count += 1
  }

  encode(): Buffer {
    return new ByteWriter(this.#frames.length + 8).varint(this.#count).raw(this.#frames.view()).take()
  }
}

/** All of it is looked at before this returns, and each frame is read again when it is asked for. @throws format-invalid */
export function decodeIndex(bytes: Buffer): Iterable<IndexedFrame> {
  // What is wrong with the last frame is known before anything is done with the first.
  for (const _ of framesIn(bytes)) continue
  return { [Symbol.iterator]: () => framesIn(bytes) }
}

function* framesIn(bytes: Buffer): Generator<IndexedFrame> {
  const from = new ByteReader(bytes, 'Index frame')
  for (let left = from.varint(FRAMES_MAX); left > 0; left--) {
    const number = from.u8()
    const type = INDEXED_TYPES.find((known) => FRAME_TYPES[known] === number) ?? from.fail('unknown type of frame')
    yield {
      type,
      offset: from.varint(),
      storedLength: from.varint(),
      plainLength: from.varint(),
      digest: digest(from.rawString(DIGEST_BYTES)),
    }
  }
  from.end()
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
