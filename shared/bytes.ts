/**
 * Reading and writing of binary layouts, little-endian, with every length checked before it is believed.
 *
 * Invariant: a reader never reads past its end and never allocates by an unchecked length; a short or over-long input
 * is a `format-invalid` error that names what was being read. It prevents hostile or damaged bytes from becoming values.
 *
 * Short byte strings (paths, names, digests) are kept in JavaScript strings with one character per byte ("latin1"):
 * they compare in byte order, are Map keys as they stand, and no encoding is ever assumed.
 */
import { PacsimileError } from './errors.ts'

/** A string in which every character is one byte (0-255). */
export type ByteString = string

/** The same memory as a Buffer. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/**
 * Gives memory back at once that nobody looks at any more; the bytes are gone. Without it large pieces that come and go have the garbage
 * collected all the time. What is no larger than the pool of Buffers may be a part of it, and stays.
 */
export function release(bytes: Uint8Array): void {
  const { buffer } = bytes
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0)
}

export class ByteWriter {
  #buffer: Buffer
  #length = 0

  constructor(capacity = 512) {
    this.#buffer = Buffer.allocUnsafe(capacity)
  }

  get length(): number {
    return this.#length
  }

  /** A copy-free view of what was written; valid until the next write. */
  view(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  /** An own copy of what was written. */
  take(): Buffer {
    return Buffer.from(this.view())
  }

  reset(): void {
    this.#length = 0
  }

  #grow(bytes: number): number {
    const at = this.#length
    const needed = at + bytes
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2))
      this.#buffer.copy(larger, 0, 0, at)
      this.#buffer = larger
    }
    this.#length = needed
    return at
  }

  u8(value: number): this {
    const at = this.#grow(1)
    this.#buffer[at] = value
    return this
  }

  u16(value: number): this {
    const at = this.#grow(2)
    this.#buffer.writeUInt16LE(value, at)
    return this
  }

  u32(value: number): this {
    const at = this.#grow(4)
    this.#buffer.writeUInt32LE(value, at)
    return this
  }

  /** A safe integer as 8 bytes. */
  u64(value: number): this {
    const at = this.#grow(8)
    this.#buffer.writeUInt32LE(value % 0x1_0000_0000, at)
    this.#buffer.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4)
    return this
  }

  big64(value: bigint): this {
    const at = this.#grow(8)
    this.#buffer.writeBigUInt64LE(value, at)
    return this
  }

  signed64(value: bigint): this {
    const at = this.#grow(8)
    this.#buffer.writeBigInt64LE(value, at)
    return this
  }

  /** Unsigned LEB128 of a safe integer. */
  varint(value: number): this {
    let rest = value
    while (rest >= 0x80) {
      this.u8((rest % 0x80) | 0x80)
      rest = Math.floor(rest / 0x80)
    }
    return this.u8(rest)
  }

  /** Bytes as they are, without a length. */
  raw(value: Uint8Array): this {
    const at = this.#grow(value.length)
    this.#buffer.set(value, at)
    return this
  }

  /** A byte string as it is, without a length. */
  rawString(value: ByteString): this {
    const at = this.#grow(value.length)
    this.#buffer.write(value, at, 'latin1')
    return this
  }

  /** A varint length, then the bytes. */
  bytes(value: Uint8Array): this {
    return this.varint(value.length).raw(value)
  }

  /** A varint length, then the byte string. */
  string(value: ByteString): this {
    return this.varint(value.length).rawString(value)
  }
}

const EIGHT_BYTES = new DataView(new ArrayBuffer(8))

export class ByteReader {
  readonly #buffer: Buffer
  readonly #what: string
  #at: number
  readonly #end: number

  /** `what` names the thing being read, for errors. */
  constructor(bytes: Uint8Array, what: string) {
    this.#buffer = asBuffer(bytes)
    this.#what = what
    this.#at = 0
    this.#end = bytes.length
  }

  get remaining(): number {
    return this.#end - this.#at
  }

  get position(): number {
    return this.#at
  }

  fail(why: string): never {
    throw new PacsimileError('format-invalid', `${this.#what} is malformed at byte ${this.#at}: ${why}`)
  }

  /** For a value that a newer release may give a meaning. */
  unknown(what: string): never {
    throw new PacsimileError(
      'format-unknown',
      `${this.#what} holds an unknown ${what} at byte ${this.#at - 1}: written by a newer release, or damaged`,
    )
  }

  #take(bytes: number): number {
    const at = this.#at
    if (bytes > this.#end - at) this.fail(`${bytes} bytes expected, ${this.#end - at} left`)
    this.#at = at + bytes
    return at
  }

  u8(): number {
    return this.#buffer[this.#take(1)] ?? 0
  }

  u16(): number {
    return this.#buffer.readUInt16LE(this.#take(2))
  }

  u32(): number {
    return this.#buffer.readUInt32LE(this.#take(4))
  }

  u64(): number {
    const at = this.#take(8)
    const value = this.#buffer.readUInt32LE(at) + this.#buffer.readUInt32LE(at + 4) * 0x1_0000_0000
    if (!Number.isSafeInteger(value)) this.fail('number too large')
    return value
  }

  big64(): bigint {
    return BigInt.asUintN(64, this.signed64())
  }

  signed64(): bigint {
    const at = this.#take(8)
    // The reading of Buffer puts it together from bigints, of which it makes three.
    EIGHT_BYTES.setUint32(0, this.#buffer.readUInt32LE(at), true)
    EIGHT_BYTES.setUint32(4, this.#buffer.readUInt32LE(at + 4), true)
    return EIGHT_BYTES.getBigInt64(0, true)
  }

  varint(max = Number.MAX_SAFE_INTEGER): number {
    // Most numbers are small.
    const first = this.#at < this.#end ? (this.#buffer[this.#at] ?? 0) : 0x80
    if (first < 0x80 && first <= max) {
      this.#at += 1
      return first
    }
    let value = 0
    let scale = 1
    for (let i = 0; i < 8; i++) {
      const byte = this.u8()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (i > 0 && byte === 0) this.fail('number not in its shortest form')
        if (value > max) this.fail(`number ${value} exceeds ${max}`)
        return value
      }
      scale *= 0x80
    }
    return this.fail('number too long')
  }

  /** A view, not a copy. */
  raw(bytes: number): Buffer {
    const at = this.#take(bytes)
    return this.#buffer.subarray(at, at + bytes)
  }

  rawString(bytes: number): ByteString {
    const at = this.#take(bytes)
    return this.#buffer.toString('latin1', at, at + bytes)
  }

  bytes(max: number): Buffer {
    return this.raw(this.varint(max))
  }

  string(max: number): ByteString {
    return this.rawString(this.varint(max))
  }

  /** Asserts that everything was read. */
  end(): void {
    if (this.#at !== this.#end) this.fail(`${this.#end - this.#at} bytes too many`)
  }
}
