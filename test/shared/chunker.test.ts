/**
 * The chunker against the words of docs/format.md. The golden lengths were computed by a program in another language,
 * written from the document: they never change while version 1 of the format is read.
 */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Chunker, type ChunkSizes, DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'

const SMALL: ChunkSizes = { min: 64, average: 256, max: 1024 }

/** Bytes of xorshift32, as the worked example has them. */
function pseudoRandom(length: number, seed = 1): Uint8Array {
  const words = Math.ceil(length / 4)
  const bytes = Buffer.alloc(words * 4)
  let state = seed
  for (let word = 0; word < words; word++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes.writeInt32LE(state, word * 4)
  }
  return bytes.subarray(0, length)
}

function chunkLengths(bytes: Uint8Array, sizes: ChunkSizes, cuts: readonly number[] = []): number[] {
  const chunker = new Chunker(sizes, cuts)
  const lengths: number[] = []
  for (let length = chunker.next(bytes, 0, bytes.length, true); length > 0; ) {
    lengths.push(length)
    length = chunker.next(bytes, chunker.position, bytes.length, true)
  }
  return lengths
}

/** As a reader of a file does it: a window that is filled by reads of odd sizes and slides along. */
function chunkLengthsByReads(bytes: Uint8Array, sizes: ChunkSizes, cuts: readonly number[], reads: readonly number[]): number[] {
  const window = new Uint8Array(sizes.max * 2)
  const chunker = new Chunker(sizes, cuts)
  const lengths: number[] = []
  let [start, end, taken, turn] = [0, 0, 0, 0]
  for (;;) {
    const isLast = taken === bytes.length
    const length = chunker.next(window, start, end, isLast)
    if (length > 0) {
      lengths.push(length)
      start += length
    } else if (isLast) {
      return lengths
    } else {
      window.copyWithin(0, start, end)
      end -= start
      start = 0
      const read = Math.min(reads[turn++ % reads.length] ?? 1, window.length - end, bytes.length - taken)
      window.set(bytes.subarray(taken, taken + read), end)
      taken += read
      end += read
    }
  }
}

function chunkDigests(bytes: Uint8Array, sizes: ChunkSizes, cuts: readonly number[] = []): string[] {
  let offset = 0
  return chunkLengths(bytes, sizes, cuts).map((length) => {
    const chunk = bytes.subarray(offset, offset + length)
    offset += length
    return createHash('sha256').update(chunk).digest('hex')
  })
}

const sum = (lengths: readonly number[]): number => lengths.reduce((total, length) => total + length, 0)

/** Content from noise to runs of one byte, which are the hard cases for a content-defined cut. */
const content = fc.oneof(
  fc.uint8Array({ maxLength: 8192, size: 'max' }),
  fc.tuple(fc.nat(20_000), fc.integer({ min: 1 })).map(([length, seed]) => pseudoRandom(length, seed)),
  fc.tuple(fc.nat(8192), fc.nat(255)).map(([length, byte]) => new Uint8Array(length).fill(byte)),
)
const cutOffsets = fc.array(fc.nat(20_000), { maxLength: 4 })

describe('chunks', () => {
  test('cover the content exactly, none above the maximum, and below the minimum only at the end or before a forced cut', () => {
    fc.assert(
      fc.property(content, cutOffsets, (bytes, cuts) => {
        const lengths = chunkLengths(bytes, SMALL, cuts)
        expect(sum(lengths)).toBe(bytes.length)
        let end = 0
        for (const length of lengths) {
          end += length
          expect(length).toBeGreaterThan(0)
          expect(length).toBeLessThanOrEqual(SMALL.max)
          if (end !== bytes.length && !cuts.includes(end)) expect(length).toBeGreaterThan(SMALL.min)
        }
      }),
    )
  })

  test('do not depend on the portions in which the content was read', () => {
    fc.assert(
      fc.property(
        content,
        cutOffsets,
        fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 8 }),
        (bytes, cuts, reads) => {
          expect(chunkLengthsByReads(bytes, SMALL, cuts, reads)).toEqual(chunkLengths(bytes, SMALL, cuts))
        },
      ),
    )
  })

  test('end at every forced cut within the content, in whatever order the cuts are given', () => {
    fc.assert(
      fc.property(content, cutOffsets, (bytes, cuts) => {
        const ends = new Set<number>()
        let end = 0
        for (const length of chunkLengths(bytes, SMALL, cuts)) ends.add((end += length))
        for (const cut of cuts) if (cut > 0 && cut <= bytes.length) expect(ends).toContain(cut)
      }),
    )
  })

  test('after a forced cut are those of the same content in a file of its own', () => {
    fc.assert(
      fc.property(content, content, (header, image) => {
        const file = Buffer.concat([header, image])
        expect(chunkLengths(file, SMALL, [header.length])).toEqual([...chunkLengths(header, SMALL), ...chunkLengths(image, SMALL)])
      }),
    )
  })

  test('of nothing are none', () => {
    expect(chunkLengths(new Uint8Array(), DEFAULT_CHUNK_SIZES)).toEqual([])
    expect(new Chunker(DEFAULT_CHUNK_SIZES).next(new Uint8Array(), 0, 0, false)).toBe(0)
  })

  test('are not announced before as many bytes are there as the longest could take', () => {
    const bytes = pseudoRandom(4096)
    const chunker = new Chunker(SMALL)
    expect(chunker.next(bytes, 0, SMALL.max - 1, false)).toBe(0)
    expect(chunker.position).toBe(0)
    expect(chunker.next(bytes, 0, SMALL.max, false)).toBe(287)
    expect(chunker.position).toBe(287)
  })
})

describe('a change', () => {
  test('of one byte inserted near the start leaves all but a few chunks as they were', () => {
    const before = pseudoRandom(512 * 1024)
    const after = Buffer.concat([before.subarray(0, 100), Buffer.from([0x42]), before.subarray(100)])
    const known = new Set(chunkDigests(before, SMALL))
    const fresh = chunkDigests(after, SMALL).filter((digest) => !known.has(digest))
    expect(known.size).toBeGreaterThan(1500)
    expect(fresh.length).toBeLessThanOrEqual(20)
  })

  test('of the header before a forced cut leaves every chunk behind it as it was', () => {
    const image = pseudoRandom(64 * 1024, 7)
    const before = Buffer.concat([Buffer.alloc(1000, 'a'), image])
    const after = Buffer.concat([Buffer.alloc(1234, 'b'), image])
    const imageChunks = chunkDigests(image, SMALL)
    expect(chunkDigests(before, SMALL, [1000]).slice(-imageChunks.length)).toEqual(imageChunks)
    expect(chunkDigests(after, SMALL, [1234]).slice(-imageChunks.length)).toEqual(imageChunks)
  })
})

describe('the worked example of docs/format.md', () => {
  const input = pseudoRandom(8 * 1024 * 1024)

  test('has the input that the document names', () => {
    expect(createHash('sha256').update(input).digest('hex')).toBe('9d64d9b6a41ec6b9fc3bc08d0c6fb6b36ca0b66f518b02ad1b7cfdc95f8e3bc8')
  })

  test('is cut where the document says', () => {
    expect(chunkLengths(input, DEFAULT_CHUNK_SIZES)).toEqual([
      652835, 637041, 586175, 738999, 636444, 525024, 380031, 721668, 389197, 547040, 541932, 764221, 615096, 652905,
    ])
  })

  test('is cut where the document says, with forced cuts', () => {
    expect(chunkLengths(input, DEFAULT_CHUNK_SIZES, [1040, 3_000_000])).toEqual([
      1040, 651795, 637041, 586175, 738999, 384950, 711387, 445162, 721668, 389197, 547040, 541932, 764221, 615096, 652905,
    ])
  })

  test('is cut where the document says, with small sizes', () => {
    expect(chunkLengths(input.subarray(0, 4096), SMALL)).toEqual([287, 295, 330, 272, 272, 283, 266, 258, 273, 306, 292, 404, 259, 294, 5])
  })

  test('is cut at the maximum where the content is all zeros', () => {
    expect(chunkLengths(new Uint8Array(5 * 1024 * 1024), DEFAULT_CHUNK_SIZES)).toEqual([2097152, 2097152, 1048576])
  })
})

test('the average length on random content is that of the sizes, within a quarter', () => {
  const lengths = chunkLengths(pseudoRandom(32 * 1024 * 1024, 99), DEFAULT_CHUNK_SIZES)
  const average = sum(lengths) / lengths.length
  expect(average).toBeGreaterThan(DEFAULT_CHUNK_SIZES.average * 0.75)
  expect(average).toBeLessThan(DEFAULT_CHUNK_SIZES.average * 1.25)
})

test.each([
  { min: 64, average: 300, max: 1024 },
  { min: 256, average: 256, max: 1024 },
  { min: 64, average: 1024, max: 1024 },
  { min: 0, average: 256, max: 1024 },
  { min: 1, average: 4, max: 1024 },
  { min: 1, average: 2 ** 30, max: 2 ** 31 },
  { min: Number.NaN, average: 256, max: 1024 },
])('sizes that could not work are refused: %o', (sizes) => {
  expect(() => new Chunker(sizes)).toThrow(RangeError)
})
