/**
 * The bytes of one frame of a pack or segment: sealed, checked, and readable on its own (docs/format.md, "Frame").
 *
 * Invariant: nothing about the content but its lengths can be read without the data key; and what `openFrame` returns is
 * exactly what was sealed (CRC, then GCM tag, then digest). It prevents damage and tampering from becoming content.
 *
 * Keys: HKDF-Expand with SHA-256 (RFC 5869; the data key is uniformly random, so the extract step is skipped, section
 * 3.3). Payloads: one key per digest, so that a frame can move to another file as it is. Labels (the encrypted digest,
 * needed to read a file front to back): one key per file, from the file's own salt. Each frame has a random 96-bit nonce.
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject, randomFillSync } from 'node:crypto'
import { crc32, zstdCompressSync } from 'node:zlib'
import { release } from '../../shared/bytes.ts'
import { DIGEST_BYTES, type Digest, digest, digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { FRAME_BYTES_MAX } from '../../shared/limits.ts'
import { plainOf, type Stored, type StoredForm } from '../../shared/stored-form.ts'

/** A ledger frame may be passed over: what it says is of use to the collector alone. */
export const FRAME_TYPES = { chunk: 1, records: 2, index: 3, ledger: 129 } as const
export type FrameType = keyof typeof FRAME_TYPES
const TYPE_NAMES = new Map<number, FrameType>(Object.entries(FRAME_TYPES).map(([name, number]) => [number, name as FrameType]))
/** Frame types from here on may be passed over by a reader that does not know them. */
const FIRST_IGNORABLE_TYPE = 128
/** Not encrypted: what it is of is, and whoever has no key can repair. */
const PARITY_TYPE = 128

/** A frame begins with it, and other bytes may look the same. */
export const FRAME_MAGIC = Buffer.from('PcF1', 'latin1')
const FLAG_ZSTD = 1
const FILTER_NONE = 0
const FILTER_SAMPLES = 1
const NONCE_BYTES = 12
const NONCES_DRAWN = 256
const TAG_BYTES = 16
/** Bytes 0 to here are authenticated with label and payload. */
const SEALED_BYTES = 28
export const FRAME_HEADER_BYTES = 80
const FRAME_TRAILER_BYTES = TAG_BYTES + 4
/** What a frame takes beside its stored payload. */
export const FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + FRAME_TRAILER_BYTES
const CIPHER = 'aes-256-gcm'

/** Frames without a label: parity, or 'ignorable' for one of a newer release that may be passed over. */
export type BareType = 'parity' | 'ignorable'

export function isBare(type: FrameType | BareType): type is BareType {
  return type === 'parity' || type === 'ignorable'
}

export interface FrameHeader extends StoredForm {
  readonly type: FrameType | BareType
  readonly plainLength: number
  readonly storedLength: number
  readonly nonce: Buffer
  readonly label: Buffer
  /** Bytes 0 to 28, as authenticated. */
  readonly sealed: Buffer
}

/** All bytes of the frame in its file. */
export function frameBytes(header: FrameHeader): number {
  return FRAME_OVERHEAD_BYTES + header.storedLength
}

/** As KeyObjects, because turning bytes into one costs more than sealing a small frame. */
function expand(key: KeyObject, purpose: string, context: Uint8Array): KeyObject {
  const expanded = createHmac('sha256', key).update(purpose, 'latin1').update(context).update('\x01', 'latin1').digest()
  return createSecretKey(expanded)
}

/** The key of a file's labels. */
export function labelKey(dataKey: KeyObject, salt: Uint8Array): KeyObject {
  return expand(dataKey, 'pacsimile label v1', salt)
}

function payloadKey(dataKey: KeyObject, name: Digest): KeyObject {
  return expand(dataKey, 'pacsimile frame v1', Buffer.from(name, 'latin1'))
}

/** Drawn many at once, for a draw costs as much as sealing a small frame; each is given out once. */
const nonces = Buffer.alloc(NONCES_DRAWN * NONCE_BYTES)
let noncesUsed = nonces.length

function drawNonce(to: Buffer): void {
  if (noncesUsed === nonces.length) {
    randomFillSync(nonces)
    noncesUsed = 0
  }
  nonces.copy(to, 0, noncesUsed, noncesUsed + NONCE_BYTES)
  noncesUsed += NONCE_BYTES
}

export interface Payload extends Stored {
  readonly digest: Digest
  readonly plainLength: number
}

/** Compresses where that pays. */
export function packPayload(plain: Uint8Array): Payload {
  const smaller = zstdCompressSync(plain)
  const compressed = smaller.length < plain.length
  return { digest: digestOf(plain), plainLength: plain.length, filtered: false, compressed, bytes: compressed ? smaller : plain }
}

export function sealFrame(type: FrameType, payload: Payload, dataKey: KeyObject, fileLabelKey: KeyObject): Buffer {
  const stored = payload.bytes.length
  const frame = Buffer.allocUnsafe(FRAME_OVERHEAD_BYTES + stored)
  FRAME_MAGIC.copy(frame, 0)
  frame[4] = FRAME_TYPES[type]
  frame[5] = payload.compressed ? FLAG_ZSTD : 0
  frame[6] = payload.filtered ? FILTER_SAMPLES : FILTER_NONE
  frame[7] = 0
  frame.writeUInt32LE(payload.plainLength, 8)
  frame.writeUInt32LE(stored, 12)
  const nonce = frame.subarray(16, SEALED_BYTES)
  drawNonce(nonce)
  const sealed = frame.subarray(0, SEALED_BYTES)
  const label = createCipheriv(CIPHER, fileLabelKey, nonce).setAAD(sealed)
  label.update(Buffer.from(payload.digest, 'latin1')).copy(frame, 28)
  label.final()
  label.getAuthTag().copy(frame, 60)
  frame.writeUInt32LE(crc32(frame.subarray(0, 76)), 76)
  const cipher = createCipheriv(CIPHER, payloadKey(dataKey, payload.digest), nonce).setAAD(sealed)
  cipher.update(payload.bytes).copy(frame, FRAME_HEADER_BYTES)
  cipher.final()
  cipher.getAuthTag().copy(frame, FRAME_HEADER_BYTES + stored)
  const end = FRAME_HEADER_BYTES + stored + TAG_BYTES
  frame.writeUInt32LE(crc32(frame.subarray(FRAME_HEADER_BYTES, end)), end)
  return frame
}

/** The header in `bytes`, or undefined when these are not the first bytes of a whole header. @throws format-unknown */
export function readFrameHeader(bytes: Buffer): FrameHeader | undefined {
  if (bytes.length < FRAME_HEADER_BYTES || !bytes.subarray(0, 4).equals(FRAME_MAGIC)) return undefined
  if (crc32(bytes.subarray(0, 76)) !== bytes.readUInt32LE(76)) return undefined
  const number = bytes[4] ?? 0
  const type = TYPE_NAMES.get(number) ?? bareType(number)
  if (type === undefined)
    throw new PacsimileError('format-unknown', `A frame of type ${number}, which this release does not know and must not pass over`)
  const flags = bytes[5] ?? 0
  const filter = bytes[6] ?? 0
  if (!isBare(type) && (flags & ~FLAG_ZSTD) !== 0)
    throw new PacsimileError('format-unknown', `A frame with flags ${flags}, which this release does not know`)
  if (!isBare(type) && filter > FILTER_SAMPLES)
    throw new PacsimileError('format-unknown', `A frame with content filter ${filter}, which this release does not know`)
  const plainLength = bytes.readUInt32LE(8)
  const storedLength = bytes.readUInt32LE(12)
  if (plainLength > FRAME_BYTES_MAX || storedLength > FRAME_BYTES_MAX) return undefined
  return {
    type,
    filtered: filter === FILTER_SAMPLES,
    compressed: (flags & FLAG_ZSTD) !== 0,
    plainLength,
    storedLength,
    nonce: Buffer.from(bytes.subarray(16, SEALED_BYTES)),
    label: Buffer.from(bytes.subarray(28, 76)),
    sealed: Buffer.from(bytes.subarray(0, SEALED_BYTES)),
  }
}

function bareType(number: number): BareType | undefined {
  if (number === PARITY_TYPE) return 'parity'
  return number >= FIRST_IGNORABLE_TYPE ? 'ignorable' : undefined
}

/** A parity frame: its payload as it is, and its CRCs. */
export function parityFrame(payload: Uint8Array): Buffer {
  const frame = Buffer.alloc(FRAME_OVERHEAD_BYTES + payload.length)
  FRAME_MAGIC.copy(frame, 0)
  frame[4] = PARITY_TYPE
  frame.writeUInt32LE(payload.length, 8)
  frame.writeUInt32LE(payload.length, 12)
  frame.writeUInt32LE(crc32(frame.subarray(0, 76)), 76)
  frame.set(payload, FRAME_HEADER_BYTES)
  const end = FRAME_HEADER_BYTES + payload.length + TAG_BYTES
  frame.writeUInt32LE(crc32(frame.subarray(FRAME_HEADER_BYTES, end)), end)
  return frame
}

/** The payloads of the whole parity frames that lie anywhere in these bytes, whatever else is damaged. */
export function* parityPayloads(bytes: Buffer): Generator<{ readonly offset: number; readonly payload: Buffer }> {
  for (let at = bytes.indexOf(FRAME_MAGIC); at >= 0; at = bytes.indexOf(FRAME_MAGIC, at)) {
    const found = parityAt(bytes, at)
    if (found !== undefined) yield { offset: at, payload: found }
    at += found === undefined ? 1 : FRAME_OVERHEAD_BYTES + found.length
  }
}

function parityAt(bytes: Buffer, at: number): Buffer | undefined {
  if (bytes[at + 4] !== PARITY_TYPE) return undefined
  const header = readFrameHeader(bytes.subarray(at))
  const body = bytes.subarray(at + FRAME_HEADER_BYTES)
  return header !== undefined && isBodyWhole(header, body) ? body.subarray(0, header.storedLength) : undefined
}

/** Whether `body` (payload, tag, CRC: all after the header) is as it was written. Needs no key. */
export function isBodyWhole(header: FrameHeader, body: Buffer): boolean {
  const end = header.storedLength + TAG_BYTES
  return body.length >= end + 4 && crc32(body.subarray(0, end)) === body.readUInt32LE(end)
}

/** Where the first frame that is not whole begins, of frames that follow each other from `start` on; undefined where all are. Needs no key. */
export function firstDamage(bytes: Buffer, start: number): number | undefined {
  for (let at = start; at < bytes.length; ) {
    const header = readFrameHeader(bytes.subarray(at))
    if (header === undefined || !isBodyWhole(header, bytes.subarray(at + FRAME_HEADER_BYTES))) return at
    at += frameBytes(header)
  }
  return undefined
}

/** The digest that the label hides. @throws damage */
export function openLabel(header: FrameHeader, fileLabelKey: KeyObject): Digest {
  try {
    const decipher = createDecipheriv(CIPHER, fileLabelKey, header.nonce)
      .setAAD(header.sealed)
      .setAuthTag(header.label.subarray(DIGEST_BYTES))
    const plain = Buffer.concat([decipher.update(header.label.subarray(0, DIGEST_BYTES)), decipher.final()])
    return digest(plain.toString('latin1'))
  } catch (error) {
    throw new PacsimileError('damage', 'A frame label does not open: damaged, tampered with, or of another repository', { cause: error })
  }
}

/** The plain content. `name` is the digest that it must have. @throws damage */
export function openFrame(header: FrameHeader, body: Buffer, name: Digest, dataKey: KeyObject): Buffer {
  const { plain, stored } = opened(header, body, name, dataKey)
  if (plain.buffer !== stored.buffer) release(stored)
  return plain
}

/** The same as it is stored, for another file; it was verified. @throws damage */
export function openPayload(header: FrameHeader, body: Buffer, name: Digest, dataKey: KeyObject): Payload {
  const { plainLength, filtered, compressed } = header
  return { digest: name, plainLength, filtered, compressed, bytes: opened(header, body, name, dataKey).stored }
}

function opened(header: FrameHeader, body: Buffer, name: Digest, dataKey: KeyObject): { readonly plain: Buffer; readonly stored: Buffer } {
  if (!isBodyWhole(header, body)) throw new PacsimileError('damage', 'A frame fails its CRC')
  let stored: Buffer
  try {
    const decipher = createDecipheriv(CIPHER, payloadKey(dataKey, name), header.nonce)
    decipher.setAAD(header.sealed).setAuthTag(body.subarray(header.storedLength, header.storedLength + TAG_BYTES))
    stored = decipher.update(body.subarray(0, header.storedLength))
    decipher.final()
  } catch (error) {
    throw new PacsimileError('damage', 'A frame fails its authentication tag', { cause: error })
  }
  const plain = plainOf({ ...header, bytes: stored }, header.plainLength)
  if (digestOf(plain) !== name) throw new PacsimileError('damage', 'A frame holds other content than its digest names')
  return { plain, stored }
}
