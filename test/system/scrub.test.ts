import { chmodSync, closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { parityPayloads } from '../../collector/repository/frame.ts'
import { decodeStripe, type Stripe } from '../../collector/repository/parity.ts'
import type { HealedFile, ScrubReport } from '../../collector/scrub.ts'
import type { CollectorStatus } from '../../collector/status.ts'
import { Installation } from '../support/installation.ts'
import { walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

/** More than a pack holds, so that one of them is full and has parity. */
const FILES = 80
const FILE_BYTES = 1_000_000
const DAMAGES = 24
const SECTOR_BYTES = 512
const SCRUB_SECONDS_MAX = 60

let installation: Installation
let truth: Copy
let pack: string

function damage(file: string, offset: number, bytes: Buffer): void {
  chmodSync(file, 0o600)
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
  chmodSync(file, 0o400)
}

/** Sectors that a disk gives back as zeros, and flipped bits, each in another stripe, and none in the last one. */
function damageEverywhere(file: string): void {
  const random = new Random(11)
  const bytes = readFileSync(file)
  const { stripes, dataBlocks, blockBytes } = lastStripeOf(bytes).stripe
  const apart = Math.floor((stripes - 1) / DAMAGES)
  expect(apart).toBeGreaterThan(0)
  for (let i = 0; i < DAMAGES; i++) {
    // Of the last place of a stripe there may be nothing in the file.
    const block = random.below(dataBlocks - 1) * stripes + i * apart + random.below(apart)
    const offset = block * blockBytes + random.below(blockBytes - SECTOR_BYTES)
    damage(file, offset, i % 3 === 0 ? Buffer.alloc(SECTOR_BYTES) : Buffer.from([(bytes[offset] ?? 0) ^ (1 << random.below(8))]))
  }
}

/** The parity of the last stripe, and the index. */
function damageEnd(file: string): void {
  const bytes = readFileSync(file)
  damage(file, lastStripeOf(bytes).offset + SECTOR_BYTES, Buffer.alloc(1, (bytes[lastStripeOf(bytes).offset + SECTOR_BYTES] ?? 0) ^ 4))
  damage(file, bytes.length - 40, Buffer.alloc(40))
}

function lastStripeOf(bytes: Buffer): { readonly stripe: Stripe; readonly offset: number } {
  const last = [...parityPayloads(bytes)].at(-1)
  if (last === undefined) throw new Error('a full pack has parity')
  return { stripe: decodeStripe(last.payload), offset: last.offset }
}

function expectWhole(name: string): void {
  const to = join(installation.directory, name)
  installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--repository', join(installation.data, 'repository'))
  expect(differences(truth, walkTree(to))).toEqual([])
}

/** Runs the collector until it has gone through a round. */
async function scrubbedByCollector(): Promise<void> {
  const config = join(installation.data, 'collector.toml')
  // A round takes two or three seconds.
  writeFileSync(config, readFileSync(config, 'utf8').replace('scrubDays = 30', 'scrubDays = 0.00003'))
  await startCollector()
  await until('a round of scrubbing', SCRUB_SECONDS_MAX, async () => (await installation.statusIfUp())?.scrub?.allVerifiedSinceMs)
}

async function startCollector(): Promise<void> {
  installation.startCollector()
  await installation.up()
}

describe('a full pack that is damaged in many places', () => {
  beforeEach(async () => {
    installation = await Installation.make()
    const source = join(installation.directory, 'source')
    await startCollector()
    installation.enroll('pacs1', source)
    mkdirSync(join(source, 'd'))
    const random = new Random(5)
    for (let i = 0; i < FILES; i++) writeFileSync(join(source, 'd', `${i}.dcm`), random.bytes(FILE_BYTES))
    truth = walkTree(source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    pack = join(installation.data, 'repository/packs/01/000000000001.pack')
    // Full, and sealed before the collector ended.
    expect(statSync(pack).mode & 0o777).toBe(0o400)
  })

  it('is repaired by scrub, which says what it did, and everything is restored', () => {
    const repository = join(installation.data, 'repository')
    const before = readFileSync(pack)
    damageEverywhere(pack)
    expect(installation.try('check', '--repository', repository).status).toBe(3)

    const said = installation.run('scrub', '--repository', repository)
    expect(said.stdout).toContain('Repaired from parity: packs/01/000000000001.pack, 24 blocks')
    expect(said.stdout).toContain('Whole again')
    expect(installation.try('check', '--repository', repository).status).toBe(0)
    expect(readFileSync(pack).equals(before)).toBe(true)
    expectWhole('scrubbed')

    const [heal] = readFileSync(join(repository, 'heals.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as HealedFile)
    expect(heal).toMatchObject({ file: 'packs/01/000000000001.pack', source: 'parity', end: false })
    expect(heal?.blocks.length).toBe(DAMAGES)
    const again = installation.json('scrub', '--repository', repository) as ScrubReport
    expect(again).toMatchObject({ found: [], healed: [], left: [] })
    expect(again.unprotected).toBe(again.files - 1)
  })

  it('is found and repaired by the collector itself, while it runs', async () => {
    damageEverywhere(pack)
    damageEnd(pack)
    await scrubbedByCollector()
    expect(installation.run('status', '--data', installation.data).stdout).toContain('1 file repaired')
    const to = join(installation.directory, 'running')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', installation.data)
    expect(differences(truth, walkTree(to))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    expect(installation.try('check', '--repository', join(installation.data, 'repository')).status).toBe(0)
  })

  it('with more damage than parity takes is made good from the replica, of which only what is right is taken', async () => {
    const { size } = statSync(pack)
    damage(pack, Math.floor(size / 3), Buffer.alloc(Math.floor(size / 3)))
    const repository = join(installation.data, 'repository')
    const affected = (): string[] => {
      const { stdout } = installation.try('check', '--repository', repository, '--json')
      return (JSON.parse(stdout) as { affected: { path: string }[] }).affected.map(({ path }) => path)
    }
    const before = affected()
    expect(before.length).toBeGreaterThan(10)
    // Somebody wrote into the replica: of that file there is nothing to be had.
    const [path = ''] = before
    const spoilt = join(installation.data, 'replica/pacs1/images', path)
    writeFileSync(spoilt, Buffer.alloc(FILE_BYTES, 'spoilt'))
    await scrubbedByCollector()
    await installation.kill('collector', 'SIGTERM')
    expect(affected()).toEqual([path])
    const heals = readFileSync(join(repository, 'heals.jsonl'), 'utf8').trim().split('\n')
    expect(heals.map((line) => (JSON.parse(line) as HealedFile).source)).toContain('replica')

    // With the file as it was, nothing is missing any more, also for who folds the repository anew.
    writeFileSync(spoilt, readFileSync(join(installation.directory, 'source', path)))
    rmSync(join(installation.data, 'scrub.json'))
    await scrubbedByCollector()
    expect(installation.json('status', '--data', installation.data)).toMatchObject({ damage: 0 })
    await installation.kill('collector', 'SIGTERM')
    expect(installation.run('check', '--repository', repository).stdout).toContain('is stored elsewhere')
    expect(installation.json('scrub', '--repository', repository)).toMatchObject({ left: [] })
    expect(installation.json('rebuild', '--data', installation.data)).toMatchObject({ before: 'equal' })
    expectWhole('from-replica')
  })

  it('that was damaged, index and all, when the catalog was made, is repaired, and the catalog gets what it lacked', async () => {
    damageEverywhere(pack)
    damageEnd(pack)
    rmSync(join(installation.data, 'catalog'), { recursive: true })
    // Without a replica, so that nothing else can help.
    rmSync(join(installation.data, 'replica'), { recursive: true })
    await startCollector()
    const status = (): CollectorStatus => installation.json('status', '--data', installation.data) as CollectorStatus
    expect(status().damage).toBeGreaterThan(0)
    await installation.kill('collector', 'SIGTERM')
    await scrubbedByCollector()
    expect(status()).toMatchObject({ damage: 0, scrub: { repaired: 1 } })
    const to = join(installation.directory, 'folded')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', installation.data)
    expect(differences(truth, walkTree(to))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    expect(installation.json('rebuild', '--data', installation.data)).toMatchObject({ before: 'equal' })
  })

  it('with more damage than parity takes keeps what is whole, and what is not is named', () => {
    const repository = join(installation.data, 'repository')
    const { size } = statSync(pack)
    damageEverywhere(pack)
    damageEnd(pack)
    // A third of the file: three or more blocks of every stripe.
    damage(pack, Math.floor(size / 3), Buffer.alloc(Math.floor(size / 3)))
    const scrubbed = installation.try('scrub', '--repository', repository, '--json')
    expect(scrubbed.status).toBe(3)
    const report = JSON.parse(scrubbed.stdout) as ScrubReport
    expect(report.left.length).toBeGreaterThan(0)
    expect(new Set(report.left.map(({ file }) => file))).toEqual(new Set([pack]))
    const checked = installation.try('check', '--repository', repository, '--json')
    expect(checked.status).toBe(3)
    const { affected } = JSON.parse(checked.stdout) as { affected: { path: string }[] }
    const to = join(installation.directory, 'rest')
    const restored = installation.try('restore', 'pacs1:images', '--at', 'now', '--to', to, '--repository', repository)
    expect(restored.status).toBe(3)
    const missing = [...new Set(affected.map(({ path }) => `${JSON.stringify(path)} is missing`))]
    expect(missing.length).toBeGreaterThan(FILES / 10)
    expect(missing.length).toBeLessThan(FILES * 0.8)
    expect(new Set(differences(truth, walkTree(to)))).toEqual(new Set(missing))
  })
})

describe('a catalog with a flipped bit in one of its tables', () => {
  it('is found by the collector, set aside, and made anew, with nothing missing', async () => {
    installation = await Installation.make()
    const source = join(installation.directory, 'source')
    await startCollector()
    installation.enroll('pacs1', source)
    for (let i = 0; i < 50; i++) writeFileSync(join(source, `${i}.dcm`), new Random(i).bytes(5000))
    truth = walkTree(source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await installation.kill('pacs1', 'SIGTERM')
    const catalog = join(installation.data, 'catalog')
    const tables = (): string[] => readdirSync(catalog).filter((name) => name.endsWith('.ldb'))
    // What is opened again becomes a table.
    await installation.kill('collector', 'SIGTERM')
    await startCollector()
    await installation.kill('collector', 'SIGTERM')
    // One of them may be of no use any more, and go at the next start.
    for (const table of tables()) {
      const bytes = readFileSync(join(catalog, table))
      damage(join(catalog, table), Math.floor(bytes.length / 2), Buffer.from([(bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 1]))
    }
    const config = join(installation.data, 'collector.toml')
    writeFileSync(config, readFileSync(config, 'utf8').replace('scrubDays = 30', 'scrubDays = 0.00001'))
    installation.startCollector()
    // What is in the way of opening it is found then, all else at the end of a round: then the collector ends.
    const isSetAside = (): boolean => readdirSync(installation.data).some((name) => name.startsWith('catalog.damaged-'))
    await until('the damage to be found', SCRUB_SECONDS_MAX, () =>
      installation.isRunning('collector') && !isSetAside() ? undefined : true,
    )
    expect(installation.log('collector')).toMatch(/the catalog is damaged; (the collector starts anew|it is set aside)/)
    if (installation.isRunning('collector')) await installation.kill('collector', 'SIGTERM')
    writeFileSync(config, readFileSync(config, 'utf8').replace('scrubDays = 0.00001', 'scrubDays = 30'))
    await startCollector()
    expect(isSetAside()).toBe(true)
    const to = join(installation.directory, 'after')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', installation.data)
    expect(differences(truth, walkTree(to))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    expect(installation.json('rebuild', '--data', installation.data)).toMatchObject({ before: 'equal' })
  })
})

describe('a pack that is not full, and damaged', () => {
  it('is made good from the replica, also by a catalog that was made after the damage', async () => {
    installation = await Installation.make()
    const source = join(installation.directory, 'source')
    await startCollector()
    installation.enroll('pacs1', source)
    for (let i = 0; i < 8; i++) writeFileSync(join(source, `${i}.dcm`), new Random(i).bytes(50_000))
    truth = walkTree(source)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    const repository = join(installation.data, 'repository')
    const open = join(repository, 'packs/01/000000000001.pack')
    damage(open, 200_000, Buffer.alloc(64, 0x55))
    chmodSync(open, 0o600)
    rmSync(join(installation.data, 'catalog'), { recursive: true })
    expect(installation.try('scrub', '--repository', repository).status).toBe(3)
    await scrubbedByCollector()
    expect(installation.json('status', '--data', installation.data)).toMatchObject({ damage: 0 })
    await installation.kill('collector', 'SIGTERM')
    expect(installation.run('check', '--repository', repository).stdout).toContain('is stored elsewhere')
    expect(installation.json('scrub', '--repository', repository)).toMatchObject({ left: [] })
    expectWhole('made-good')
  })
})
