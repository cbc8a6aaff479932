/**
 * The form in which content travels and rests: filtered where it is samples (sample-filter.ts), compressed where that pays.
 *
 * A digest is always of the plain bytes, whatever their form. Invariant: what `plainOf` returns has the length that was asked
 * for, and its memory never exceeds that. It prevents a few bytes from a hostile peer from becoming gigabytes.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { asBuffer } from './bytes.ts'
import { PacsimileError, reasonOf } from './errors.ts'
import { filteredLength, filterSamples, type Samples, unfilterSamples } from './sample-filter.ts'
import { compressedBound, zstd } from './zstd-calls.ts'

export interface StoredForm {
  /** The samples in it are filtered. */
  readonly filtered: boolean
  /** It is zstd, of what the filter gave where there is one. */
  readonly compressed: boolean
}

export interface Stored extends StoredForm {
  readonly bytes: Uint8Array
}

/** Compression that saves less than this share is not worth undoing. */
const WORTHWHILE = 0.95
const COMPRESS_BYTES_MIN = 64
/** From the middle of content this long, or shorter as a whole, it is tried out whether filtering pays. */
const TRIAL_BYTES = 16 * 1024
/** The least that zlib takes. */
const PIECE_BYTES_MIN = 64

const LEVEL = 1

let scratch = new Uint8Array(0)
let compressed = new Uint8Array(0)

/** The smallest form for little work. `samples` says what may lie in it, and need not be true. */
export function storedForm(plain: Uint8Array, samples: Samples | undefined): Stored {
  if (plain.length < COMPRESS_BYTES_MIN) return { filtered: false, compressed: false, bytes: plain }
  const filtered = samples !== undefined && doesFilteringPay(plain, samples)
  const bytes = compress(filtered ? filter(plain, samples) : plain)
  return bytes.length < plain.length * WORTHWHILE
    ? { filtered, compressed: true, bytes: bytes.slice() }
    : { filtered: false, compressed: false, bytes: plain }
}

/** @throws damage */
export function plainOf({ filtered, compressed, bytes }: Stored, plainLength: number): Buffer {
  const length = filtered ? filteredLength(plainLength) : plainLength
  const whole = compressed ? decompress(bytes, length, filtered) : asBuffer(bytes)
  if (whole.length !== length) throw new PacsimileError('damage', `Stored content has ${whole.length} bytes instead of ${length}`)
  return filtered ? unfilterSamples(whole) : whole
}

function doesFilteringPay(plain: Uint8Array, samples: Samples): boolean {
  const { width, stride, lead } = samples
  const step = width * stride
  const at = plain.length > 2 * TRIAL_BYTES ? lead + Math.floor(plain.length / 2 / step) * step : lead
  const trial = plain.subarray(at, at + TRIAL_BYTES)
  return compress(filter(trial, { ...samples, lead: 0 })).length < compress(trial).length
}

/** Lies in memory that the next call takes. */
function filter(plain: Uint8Array, samples: Samples): Uint8Array {
  const length = filteredLength(plain.length)
  if (scratch.length < length) scratch = new Uint8Array(length)
  filterSamples(plain, samples, scratch)
  return scratch.subarray(0, length)
}

/** Lies in memory that the next call takes. */
function compress(bytes: Uint8Array): Uint8Array {
  const calls = zstd()
  if (calls === undefined) return zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } })
  const room = compressedBound(bytes.length)
  if (compressed.length < room) compressed = new Uint8Array(room)
  return compressed.subarray(0, calls.compress(bytes, compressed, LEVEL))
}

/** What this thread keeps from piece to piece is given back; the next piece takes as much again. */
export function forgetMemory(): void {
  scratch = new Uint8Array(0)
  compressed = new Uint8Array(0)
  kept = Buffer.alloc(0)
}

/** Filtered content is taken apart from there; larger pieces are seldom. */
const KEPT_BYTES_MAX = 4 << 20
let kept = Buffer.alloc(0)

/** `length` bytes. They lie in memory that the next call takes where `isPassing`, else in their own. */
function decompress(bytes: Uint8Array, length: number, isPassing: boolean): Buffer {
  const calls = zstd()
  if (calls === undefined) return decompressByStream(bytes, length)
  const to = isPassing ? memoryOf(length) : Buffer.allocUnsafeSlow(length)
  const found = calls.decompress(bytes, to)
  if (found === undefined) throw new PacsimileError('damage', 'Compressed content does not open, or holds more than it should')
  return to.subarray(0, found)
}

function memoryOf(length: number): Buffer {
  if (length > KEPT_BYTES_MAX) return Buffer.allocUnsafeSlow(length)
  if (kept.length < length) kept = Buffer.allocUnsafeSlow(length)
  return kept.subarray(0, length)
}

function decompressByStream(bytes: Uint8Array, length: number): Buffer {
  try {
    // In one piece: a byte more than it takes says that there is no more.
    return zstdDecompressSync(asBuffer(bytes), { maxOutputLength: Math.max(length, 1), chunkSize: Math.max(length + 1, PIECE_BYTES_MIN) })
  } catch (error) {
    throw new PacsimileError('damage', `Compressed content does not open: ${reasonOf(error)}`, { cause: error })
  }
}
