/**
 * A reversible filter for sampled data, such as the pixels of an image: each sample becomes its difference from the one
 * before it, and bytes of equal weight come together. What is left compresses far better than the samples do, because the upper bytes
 * of neighbours that are nearly equal are nearly all zero (measured 3.4:1 against 2.2:1 with zstd on CT).
 *
 *     filtered = parameters u8 ‖ lead ‖ plane of the highest bytes ‖ … ‖ plane of the lowest bytes ‖ rest
 *
 * The difference is taken modulo 2^(8 width), so signed and unsigned samples are alike, and written as zigzag(d) =
 * (d << 1) ^ (d >> (8 width - 1)). Invariant: for every input and every description of it, however wrong, `unfilter` gives
 * back the same bytes. It prevents a header that lies about its pixels from costing more than space. docs/format.md, "Content filters",
 * is the contract.
 */
import { PacsimileError } from './errors.ts'

/** How samples lie in a piece of content. */
export interface Samples {
  /** Bytes of one sample. */
  readonly width: 1 | 2 | 4
  readonly isBigEndian: boolean
  /** Samples from one to the next of its kind: 3 for red, green, blue, red, … At most 4. */
  readonly stride: number
  /** Bytes before the first whole sample; less than `width`. */
  readonly lead: number
}

const PARAMETER_BYTES = 1
const WIDTHS = [1, 2, 4] as const
const WIDTH_MASK = 0b11
const BIG_ENDIAN = 0b100
const STRIDE_SHIFT = 3
const LEAD_SHIFT = 5
const UNUSED = 0b1000_0000
const STRIDE_MAX = 4

/** The bytes of a filtered piece that has `plainLength` plain ones. */
export function filteredLength(plainLength: number): number {
  return plainLength + PARAMETER_BYTES
}

/** Writes the filtered form to `to`, which has room for it. */
export function filterSamples(plain: Uint8Array, samples: Samples, to: Uint8Array): void {
  const { width, isBigEndian, stride, lead } = samples
  if (stride < 1 || stride > STRIDE_MAX || lead < 0 || lead >= width || lead > plain.length)
    throw new RangeError(`samples of ${width} bytes, stride ${stride}, after ${lead} bytes cannot be filtered`)
  to[0] = WIDTHS.indexOf(width) | (isBigEndian ? BIG_ENDIAN : 0) | ((stride - 1) << STRIDE_SHIFT) | (lead << LEAD_SHIFT)
  const count = Math.floor((plain.length - lead) / width)
  const end = lead + count * width
  const start = PARAMETER_BYTES + lead
  to.set(plain.subarray(0, lead), PARAMETER_BYTES)
  to.set(plain.subarray(end), start + count * width)
  const words = wordsOf(plain.subarray(lead, end), width, isBigEndian)
  const planes = to.subarray(start, start + count * width)
  if (width === 1) toPlane(words, stride, planes)
  else if (width === 2) to2Planes(words, stride, planes)
  else to4Planes(words, stride, planes)
}

/** The plain bytes of a filtered form. @throws damage where it is none */
export function unfilterSamples(filtered: Uint8Array): Buffer {
  const parameters = filtered[0] ?? UNUSED
  const width = WIDTHS[parameters & WIDTH_MASK]
  const stride = ((parameters >> STRIDE_SHIFT) & 0b11) + 1
  const lead = (parameters >> LEAD_SHIFT) & 0b11
  if (width === undefined || (parameters & UNUSED) !== 0 || lead >= width || filtered.length < PARAMETER_BYTES + lead)
    throw new PacsimileError('damage', `Filtered content begins with ${parameters}, which describes no samples`)
  const plainLength = filtered.length - PARAMETER_BYTES
  const count = Math.floor((plainLength - lead) / width)
  const start = PARAMETER_BYTES + lead
  const planes = filtered.subarray(start, start + count * width)
  const words = width === 1 ? fromPlane(planes, stride) : width === 2 ? from2Planes(planes, stride) : from4Planes(planes, stride)
  const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength)
  if ((parameters & BIG_ENDIAN) !== 0) swap(bytes, width)
  if (bytes.length === plainLength) return bytes
  const plain = Buffer.allocUnsafe(plainLength)
  plain.set(filtered.subarray(PARAMETER_BYTES, start))
  plain.set(bytes, lead)
  plain.set(filtered.subarray(start + count * width), lead + count * width)
  return plain
}

type Words = Uint8Array | Uint16Array | Uint32Array

/** The samples in the order of this machine, in memory of their own. */
function wordsOf(bytes: Uint8Array, width: 1 | 2 | 4, isBigEndian: boolean): Words {
  // A copy, because words must lie aligned.
  const own = Buffer.from(new ArrayBuffer(bytes.length))
  own.set(bytes)
  if (isBigEndian) swap(own, width)
  if (width === 1) return own
  return width === 2 ? new Uint16Array(own.buffer) : new Uint32Array(own.buffer)
}

function swap(bytes: Buffer, width: 1 | 2 | 4): void {
  if (width === 2) bytes.swap16()
  else if (width === 4) bytes.swap32()
}

function toPlane(words: Words, stride: number, plane: Uint8Array): void {
  for (let i = 0; i < words.length; i++) {
    const difference = (((words[i] as number) - (i < stride ? 0 : (words[i - stride] as number))) << 24) >> 24
    plane[i] = (difference << 1) ^ (difference >> 7)
  }
}

// With a stride of one, which nearly all samples have, the sample before is at hand.

function fromPlane(plane: Uint8Array, stride: number): Uint8Array {
  const words = new Uint8Array(plane.length)
  if (stride === 1) {
    let before = 0
    for (let i = 0; i < plane.length; i++) {
      const coded = plane[i] as number
      before = (before + ((coded >>> 1) ^ -(coded & 1))) & 0xff
      words[i] = before
    }
    return words
  }
  for (let i = 0; i < plane.length; i++) {
    const coded = plane[i] as number
    words[i] = ((coded >>> 1) ^ -(coded & 1)) + (i < stride ? 0 : (words[i - stride] as number))
  }
  return words
}

function to2Planes(words: Words, stride: number, planes: Uint8Array): void {
  const count = words.length
  for (let i = 0; i < count; i++) {
    const difference = (((words[i] as number) - (i < stride ? 0 : (words[i - stride] as number))) << 16) >> 16
    const coded = (difference << 1) ^ (difference >> 15)
    planes[i] = coded >> 8
    planes[count + i] = coded
  }
}

function from2Planes(planes: Uint8Array, stride: number): Uint16Array {
  const count = planes.length >> 1
  const words = new Uint16Array(count)
  if (stride === 1) {
    let i = fourAtOnce(planes, words)
    let before = i === 0 ? 0 : (words[i - 1] as number)
    for (; i < count; i++) {
      const coded = ((planes[i] as number) << 8) | (planes[count + i] as number)
      before += (coded >>> 1) ^ -(coded & 1)
      words[i] = before
    }
    return words
  }
  for (let i = 0; i < count; i++) {
    const coded = ((planes[i] as number) << 8) | (planes[count + i] as number)
    words[i] = ((coded >>> 1) ^ -(coded & 1)) + (i < stride ? 0 : (words[i - stride] as number))
  }
  return words
}

const LOW_BYTES = 0x00ff_00ff
const LOW_BITS = 0x0001_0001
const ALL_BUT_HIGH_BITS = 0x7fff_7fff

/** Most samples of an archive pass here: two differences are undone in one word, and written as one. Says how many samples it did. */
function fourAtOnce(planes: Uint8Array, words: Uint16Array): number {
  const count = words.length
  const end = count & ~3
  const from = new DataView(planes.buffer, planes.byteOffset, planes.length)
  const pairs = new Uint32Array(words.buffer, 0, end >> 1)
  let before = 0
  for (let i = 0; i < end; i += 4) {
    const upper = from.getInt32(i, true)
    const lower = from.getInt32(count + i, true)
    // Samples 0 and 2, then 1 and 3.
    let even = ((upper & LOW_BYTES) << 8) | (lower & LOW_BYTES)
    let odd = (upper & ~LOW_BYTES) | ((lower >>> 8) & LOW_BYTES)
    even = ((even >>> 1) & ALL_BUT_HIGH_BITS) ^ Math.imul(even & LOW_BITS, 0xffff)
    odd = ((odd >>> 1) & ALL_BUT_HIGH_BITS) ^ Math.imul(odd & LOW_BITS, 0xffff)
    // What overflows a sample is cut off where it is written.
    const first = (before + even) | 0
    const second = (first + odd) | 0
    const third = (second + (even >>> 16)) | 0
    before = (third + (odd >>> 16)) | 0
    pairs[i >> 1] = (first & 0xffff) | (second << 16)
    pairs[(i >> 1) + 1] = (third & 0xffff) | (before << 16)
  }
  return end
}

function to4Planes(words: Words, stride: number, planes: Uint8Array): void {
  const count = words.length
  for (let i = 0; i < count; i++) {
    const difference = ((words[i] as number) - (i < stride ? 0 : (words[i - stride] as number))) | 0
    const coded = (difference << 1) ^ (difference >> 31)
    planes[i] = coded >> 24
    planes[count + i] = coded >> 16
    planes[2 * count + i] = coded >> 8
    planes[3 * count + i] = coded
  }
}

function from4Planes(planes: Uint8Array, stride: number): Uint32Array {
  const count = planes.length >> 2
  const words = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    const upper = ((planes[i] as number) << 24) | ((planes[count + i] as number) << 16)
    const coded = upper | ((planes[2 * count + i] as number) << 8) | (planes[3 * count + i] as number)
    words[i] = ((coded >>> 1) ^ -(coded & 1)) + (i < stride ? 0 : (words[i - stride] as number))
  }
  return words
}
