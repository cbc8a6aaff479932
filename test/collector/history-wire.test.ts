/** Entries and contents as they cross a socket: whole, in order, wherever the network cuts. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ChunkResult, type ListedEntry, oneByOne, type StoredListing } from '../../collector/history-source.ts'
import { decodeChunks, decodeEntries, encodeChunks, encodeEntries } from '../../collector/history-wire.ts'
import { ByteWriter } from '../../shared/bytes.ts'
import { relativePath } from '../../shared/path.ts'
import { encodeVersion } from '../../shared/version.ts'
import { directoryVersion, symlinkVersion } from '../support/journal-writer.ts'

async function* each<Item>(items: readonly Item[]): AsyncGenerator<Item> {
  yield* items
}

async function encoded(results: readonly ChunkResult[]): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(encodeChunks(each(results))))
}

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

const content = fc.uint8Array({ maxLength: 3000 }).map((bytes): ChunkResult => ({ bytes: Buffer.from(bytes) }))
const large = fc.integer({ min: 250_000, max: 300_000 }).map((length): ChunkResult => ({ bytes: Buffer.alloc(length, 'x') }))
const failure = fc.string().map((text): ChunkResult => ({ failure: text }))

describe('contents', () => {
  it('come as they were sent, each in memory of its own', async () => {
    const results = fc.array(fc.oneof({ weight: 5, arbitrary: content }, { weight: 2, arbitrary: failure }, large), { maxLength: 8 })
    const sizes = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(results, sizes, async (sent, pieces) => {
        const found = await Array.fromAsync(decodeChunks(each(cut(await encoded(sent), pieces))))
        expect(found.map((result) => ('bytes' in result ? { bytes: result.bytes } : result))).toEqual(
          sent.map((result) => ('bytes' in result ? result : { failure: Buffer.from(result.failure, 'utf8').toString('utf8') })),
        )
        for (const result of found) if ('bytes' in result) expect(result.bytes.buffer.byteLength).toBe(result.bytes.length)
      }),
      { numRuns: 50 },
    )
  })

  it('that end within an item, or claim to be larger than any chunk, are refused', async () => {
    const whole = await encoded([{ bytes: Buffer.from('content') }])
    for (let length = 1; length < whole.length; length++)
      await expect(Array.fromAsync(decodeChunks(each([whole.subarray(0, length)])))).rejects.toMatchObject({ code: 'protocol' })
    for (const head of [
      [0xff, 0xff, 0xff, 0xff, 0],
      [0, 0, 0, 0, 0],
    ])
      await expect(Array.fromAsync(decodeChunks(each([Buffer.from(head)])))).rejects.toMatchObject({ code: 'protocol' })
  })
})

function storedAs({ path, position, absent, version }: ListedEntry): StoredListing {
  const to = new ByteWriter()
  encodeVersion(version, to)
  return { path, position, absent, version: to.take() }
}

describe('entries', () => {
  it('come as they were stored, in groups of any size and of any length', async () => {
    // Of a length up to and beyond what is gathered into one piece.
    const version = fc.oneof(
      { weight: 5, arbitrary: fc.constant(directoryVersion()) },
      { weight: 1, arbitrary: fc.integer({ min: 100_000, max: 300_000 }).map((length) => withXattr('x'.repeat(length))) },
      { weight: 2, arbitrary: fc.integer({ min: 1, max: 4000 }).map((length) => symlinkVersion('t'.repeat(length))) },
    )
    const entry = fc.record({
      path: fc
        .uint8Array({ minLength: 1, maxLength: 200 })
        .map((bytes) => relativePath(`n${Buffer.from(bytes).toString('latin1').replaceAll(/[\0/]/g, '_')}`)),
      position: fc.record({ epoch: fc.nat(), seq: fc.maxSafeNat() }),
      absent: fc.constantFrom(undefined, 'lost' as const, 'expired' as const),
      version,
    })
    const sizes = fc.array(fc.integer({ min: 1, max: 300_000 }), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(entry, { maxLength: 6 }), { maxLength: 6 }), sizes, async (groups, pieces) => {
        const bytes = Buffer.concat(await Array.fromAsync(encodeEntries(each(groups.map((group) => group.map(storedAs))))))
        expect(await Array.fromAsync(oneByOne(decodeEntries(each(cut(bytes, pieces)))))).toEqual(groups.flat())
      }),
      { numRuns: 50 },
    )
  })
})

function withXattr(value: string): ListedEntry['version'] {
  return { ...directoryVersion(), xattrs: [{ name: 'user.large', value: value.slice(0, 60_000) }], extensions: [{ tag: 200, value }] }
}
