import { randomBytes } from 'node:crypto'
import { chmodSync, closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { checkRepository } from '../../collector/check.ts'
import { ChunkCache } from '../../collector/chunk-cache.ts'
import { Ingest } from '../../collector/ingest.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import { parityPayloads } from '../../collector/repository/frame.ts'
import { DEFAULT_PARITY, decodeStripe, type Stripe } from '../../collector/repository/parity.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { RunningTime } from '../../collector/running-time.ts'
import { scrubRepository } from '../../collector/scrub.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { type Digest, digestOf } from '../../shared/digest.ts'
import { silentLog } from '../../shared/log.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const IS_LONG = process.env['PACSIMILE_SOAK'] !== undefined
/** Single bits, and sectors that read as zeros, in all. */
const FLIPS = IS_LONG ? 1000 : 120
const SECTORS = IS_LONG ? 200 : 24
const SECTOR_BYTES = 512
/** Of one file at a time: each in another stripe. */
const FLIPS_AT_ONCE = 20
const SECTORS_AT_ONCE = 4
const CHUNK_BYTES = 1_000_000
/** More than two packs hold, and more than a segment. */
const CHUNKS = 150
const RECORDS = 5000
const XATTR_BYTES = 4000
const KEY = Buffer.alloc(32, 9)
const READ_FAST = { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY }

/** A repository with full packs and segments, and with ones that are not; the last file's content is in one of the latter. */
async function archive(): Promise<{ directory: string; lastPath: string; lastChunk: Digest }> {
  const place = scratchDirectory()
  const directory = join(place, 'repository')
  Repository.create(directory, { id: '00'.repeat(16), chunkSizes: DEFAULT_CHUNK_SIZES })
  const catalog = await Catalog.open(join(place, 'catalog'))
  const repository = Repository.openForAppending(directory, KEY, undefined, { parity: DEFAULT_PARITY })
  const ingest = new Ingest({ repository, catalog, cache: new ChunkCache(0), log: silentLog, age: new RunningTime(0), onCommit() {} })
  const stop = new AbortController()
  const running = ingest.run(stop.signal)
  const writer = new JournalWriter()
  const session = { agent: writer.agent, lost: new Set<never>(), committed() {}, failed: (error: unknown) => expect(error).toBeUndefined() }
  const send = async (): Promise<void> => {
    for (const digest of writer.chunks.keys()) await ingest.submit({ session, chunk: writer.chunkMessage(digest) })
    await ingest.submit({ session, records: writer.written.map(({ bytes }) => bytes) })
    writer.chunks.clear()
    writer.written.length = 0
  }
  writer.put('d', directoryVersion())
  for (let i = 0; i < RECORDS; i++) {
    const xattrs = [{ name: 'user.x', value: randomBytes(XATTR_BYTES).toString('latin1') }]
    writer.put(`d/${i}`, directoryVersion({ xattrs }))
    if (writer.written.length >= 500) await send()
  }
  for (let i = 0; i < CHUNKS; i++) {
    writer.file(`f${i}`, randomBytes(CHUNK_BYTES), {}, CHUNK_BYTES)
    await send()
  }
  const last = randomBytes(CHUNK_BYTES)
  writer.file('last', last, {}, CHUNK_BYTES)
  await send()
  stop.abort()
  await running
  await repository.sealed()
  repository.close()
  await catalog.close()
  return { directory, lastPath: 'last', lastChunk: digestOf(last) }
}

function write(file: string, offset: number, bytes: Uint8Array): void {
  const { mode } = statSync(file)
  chmodSync(file, 0o600)
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
  chmodSync(file, mode & 0o777)
}

/** A full file as it was written. */
interface Whole {
  readonly path: string
  readonly bytes: Buffer
  /** Of its parity, the stripes and where each one's frame begins. */
  readonly stripes: readonly { readonly stripe: Stripe; readonly offset: number }[]
}

function wholeFile(path: string): Whole {
  const bytes = readFileSync(path)
  return { path, bytes, stripes: Array.from(parityPayloads(bytes), ({ offset, payload }) => ({ stripe: decodeStripe(payload), offset })) }
}

/** Damages `count` places, each of another stripe, parity among them; the header and the end now and then. @returns where */
function decay({ path, bytes, stripes }: Whole, random: Random, count: number, make: (at: number) => Uint8Array): number[] {
  const chosen = new Set<number>()
  // The parity of the last one may be damaged together with what ends the file.
  while (chosen.size < Math.min(count, stripes.length - 1)) chosen.add(random.below(stripes.length - 1))
  return [...chosen].map((number, i) => {
    const found = stripes[number]
    if (found === undefined) throw new Error('no such stripe')
    const { stripe, offset } = found
    let at =
      (random.below(stripe.dataBlocks - 1) * stripe.stripes + number) * stripe.blockBytes + random.below(stripe.blockBytes - SECTOR_BYTES)
    if (i % 7 === 6) at = offset + random.below(stripe.parity.reduce((sum, block) => sum + block.length, 0) - SECTOR_BYTES)
    if (i === 0 && number === 0) at = random.below(FILE_HEADER_BYTES)
    if (i === 1) at = bytes.length - 1 - SECTOR_BYTES - random.below(2000)
    write(path, at, make(at))
    return at
  })
}

describe(`decay of a repository (PACSIMILE_SEED=${SEED})`, () => {
  it(
    `of ${FLIPS} bits and ${SECTORS} sectors in full packs and segments is found and repaired to the last byte`,
    async () => {
      const { directory } = await archive()
      const repository = Repository.open(directory, KEY)
      onTestFinished(() => repository.close())
      const files = [1, 2].map((number) => wholeFile(repository.pathOf('pack', number)))
      files.push(wholeFile(repository.pathOf('segment', 1)))
      for (const { stripes } of files) expect(stripes.length).toBeGreaterThan(FLIPS_AT_ONCE)
      const random = new Random(SEED)
      let [flips, sectors] = [0, 0]
      while (flips < FLIPS || sectors < SECTORS) {
        const damaged = new Map<string, number[]>()
        for (const file of files) {
          const isSectors = sectors < SECTORS && random.below(2) === 0
          const makeFlip = (at: number): Uint8Array => Buffer.from([(file.bytes[at] ?? 0) ^ (1 << random.below(8))])
          const makeSector = (): Uint8Array => Buffer.alloc(SECTOR_BYTES)
          const places = decay(file, random, isSectors ? SECTORS_AT_ONCE : FLIPS_AT_ONCE, isSectors ? makeSector : makeFlip)
          damaged.set(file.path, places)
          if (isSectors) sectors += places.length
          else flips += places.length
        }
        const report = await scrubRepository(repository, KEY, READ_FAST)
        expect(report.left).toEqual([])
        for (const [i, { path, bytes, stripes }] of files.entries()) {
          expect(
            report.found.some(({ file }) => file === path),
            path,
          ).toBe(true)
          const heal = report.healed.find(({ file }) => path.endsWith(file))
          expect(heal, path).toBeDefined()
          const now = readFileSync(path)
          // An end that is written anew is sealed with another nonce.
          const length = heal?.end === true ? (stripes[0]?.stripe.regionBytes ?? 0) : bytes.length
          const isSame = now.subarray(0, length).equals(bytes.subarray(0, length)) && now.length === bytes.length
          expect(isSame, `${path} damaged at ${damaged.get(path)?.join()}`).toBe(true)
          files[i] = wholeFile(path)
        }
        expect(await scrubRepository(repository, KEY, READ_FAST)).toMatchObject({ found: [], healed: [], left: [] })
      }
      expect(await checkRepository(directory, KEY)).toMatchObject({ damage: [], affected: [] })
    },
    IS_LONG ? 3_600_000 : 300_000,
  )

  it('of any bit of a pack that is not full is found, and names what it concerns and nothing else', async () => {
    const { directory, lastPath } = await archive()
    const repository = Repository.open(directory, KEY)
    onTestFinished(() => repository.close())
    const open = repository.pathOf('pack', repository.numbers('pack').at(-1) ?? 0)
    const bytes = readFileSync(open)
    const random = new Random(SEED)
    for (let i = 0; i < (IS_LONG ? 50 : 8); i++) {
      // Before its last frame: there, a damaged frame is what a crash leaves.
      const at = FILE_HEADER_BYTES + random.below(bytes.length - FILE_HEADER_BYTES - 2 * CHUNK_BYTES)
      write(open, at, Buffer.from([(bytes[at] ?? 0) ^ (1 << random.below(8))]))
      const { found } = await scrubRepository(repository, KEY, READ_FAST)
      expect(
        found.map(({ file }) => file),
        `byte ${at}`,
      ).toEqual([open])
      const { affected, damage } = await checkRepository(directory, KEY)
      expect(damage.map(({ file }) => file)).toEqual([open])
      expect(
        affected.map(({ path }) => path),
        `byte ${at}`,
      ).toEqual([expect.stringMatching(/^f\d+$/)])
      expect(affected.map(({ path }) => path)).not.toContain(lastPath)
      writeFileSync(open, bytes)
    }
  }, 600_000)
})
