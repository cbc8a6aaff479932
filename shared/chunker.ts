/**
 * Cuts a stream of bytes into chunks whose bounds are found in the content itself, so that unchanged content keeps its
 * chunks (and its digests) when something before it grows, shrinks or is inserted.
 *
 * Invariant: the chunk lengths are a function of the bytes, the sizes and the forced cuts alone, never of how the bytes
 * arrive. `next` therefore gives no answer before it can see a whole chunk. This prevents the failure in which a capture
 * that happened to read in other portions stores every byte of a study a second time, which nobody would ever notice
 * except by the size of the repository.
 *
 * The rule is FastCDC with normalised chunking (Xia et al., USENIX ATC 2016 and IEEE TPDS 2020) on a 32-bit gear hash,
 * which JavaScript computes without BigInt. It is part of the repository format: docs/format.md has it to the bit, with
 * the cut points of a worked example, and changing anything here is a new format version.
 */
import { hash } from 'node:crypto'

/** In bytes; `average` is a power of two. Fixed for a repository at `init`. */
export interface ChunkSizes {
  readonly min: number
  readonly average: number
  readonly max: number
}

export const DEFAULT_CHUNK_SIZES: ChunkSizes = { min: 128 * 1024, average: 512 * 1024, max: 2 * 1024 * 1024 }

/** How many more (before the average) and fewer (after it) bits must be zero: level 2 of the paper. */
const NORMALISATION = 2

/** The high bits of the hash see the whole window of 32 bytes, the low ones only the last few: cut by the high ones. */
const highBits = (count: number): number => -1 << (32 - count)

/** A digest nobody chose, so that anybody can make the table anew: SHA-256 of the label and the byte, its first word. */
const GEAR: Int32Array = Int32Array.from({ length: 256 }, (_, byte) =>
  hash('sha256', Buffer.concat([Buffer.from('pacsimile gear v1', 'ascii'), Buffer.from([byte])]), 'buffer').readInt32LE(0),
)

export class Chunker {
  readonly #sizes: ChunkSizes
  readonly #cuts: readonly number[]
  readonly #maskBeforeAverage: number
  readonly #maskAfterAverage: number
  #position = 0
  #cutIndex = 0

  /** `cuts` are file offsets, in any order, at which a chunk must end whatever its size, such as where Pixel Data begins. */
  constructor(sizes: ChunkSizes, cuts: readonly number[] = []) {
    assertUsable(sizes)
    const bits = Math.log2(sizes.average)
    this.#sizes = sizes
    this.#cuts = [...cuts].sort((a, b) => a - b)
    this.#maskBeforeAverage = highBits(bits + NORMALISATION)
    this.#maskAfterAverage = highBits(bits - NORMALISATION)
  }

  /** The file offset at which the next chunk begins. */
  get position(): number {
    return this.#position
  }

  /**
   * The length of the next chunk, which begins at `bytes[start]`; what is known of the file ends before `bytes[end]`, and
   * the file itself does if `isLast`. Zero asks for more bytes (with `sizes.max` of them it always answers), or says that
   * all is done if `isLast`. It looks at nothing before it can decide, so asking again costs nothing.
   */
  next(bytes: Uint8Array, start: number, end: number, isLast: boolean): number {
    const longest = Math.min(this.#sizes.max, this.#untilForcedCut())
    const known = end - start
    if (known < longest && !isLast) return 0
    const length = this.#cutPoint(bytes, start, Math.min(known, longest))
    this.#position += length
    return length
  }

  #untilForcedCut(): number {
    let cut = this.#cuts[this.#cutIndex]
    while (cut !== undefined && cut <= this.#position) cut = this.#cuts[++this.#cutIndex]
    return cut === undefined ? Number.POSITIVE_INFINITY : cut - this.#position
  }

  // Two plain loops: unrolling them and rolling two bytes at a time were measured slower in V8.
  #cutPoint(bytes: Uint8Array, start: number, longest: number): number {
    const { min, average } = this.#sizes
    if (longest <= min) return longest
    const gear = GEAR
    const centre = start + Math.min(average, longest)
    const end = start + longest
    let mask = this.#maskBeforeAverage
    let fingerprint = 0
    let at = start + min
    for (; at < centre; at++) {
      fingerprint = ((fingerprint << 1) + (gear[bytes[at] as number] as number)) | 0
      if ((fingerprint & mask) === 0) return at + 1 - start
    }
    mask = this.#maskAfterAverage
    for (; at < end; at++) {
      fingerprint = ((fingerprint << 1) + (gear[bytes[at] as number] as number)) | 0
      if ((fingerprint & mask) === 0) return at + 1 - start
    }
    return longest
  }
}

function assertUsable({ min, average, max }: ChunkSizes): void {
  const bits = Math.log2(average)
  const usable =
    Number.isSafeInteger(min) &&
    Number.isSafeInteger(max) &&
    Number.isInteger(bits) &&
    bits > NORMALISATION &&
    bits + NORMALISATION <= 31 &&
    min >= 1 &&
    min < average &&
    average < max
  if (!usable) {
    throw new RangeError(
      `Chunk sizes min ${min}, average ${average}, max ${max} are unusable: need 1 <= min < average < max, and average a power of two from 8 to 2^29.`,
    )
  }
}
