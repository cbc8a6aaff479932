import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { ranges } from '../../collector/catalog-keys.ts'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { checkRepository } from '../../collector/check.ts'
import { holdsOf, ledgerEntries, retiredPacks } from '../../collector/ledger-view.ts'
import { Prune, type PruneReport } from '../../collector/prune.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import type { Hold } from '../../collector/repository/ledger-entry.ts'
import type { Retention, RetentionPolicy } from '../../collector/retention.ts'
import { Ticks } from '../../collector/ticks.ts'
import { digestOf } from '../../shared/digest.ts'
import { silentLog } from '../../shared/log.ts'
import { label, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { FileVersion } from '../../shared/version.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'
import { Random } from '../support/workload.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const NONE: Retention = { all: 0, hourly: 0, daily: 0, monthly: 0, worm: 0 }
const START_MS = Date.UTC(2026, 0, 1)
const QUARANTINE_MS = 3 * HOUR_MS

class Archive {
  readonly store: Store
  readonly writer = new JournalWriter()
  policy: RetentionPolicy
  prune!: Prune
  ticks!: Ticks
  /** Where each tick stands. */
  readonly points: { readonly wallMs: number; readonly position: Position }[] = []

  private constructor(store: Store, retention: Partial<Retention>) {
    this.store = store
    this.policy = { others: { ...NONE, ...retention }, volumes: {} }
  }

  static async open(retention: Partial<Retention>): Promise<Archive> {
    const archive = new Archive(await Store.open(), retention)
    archive.store.wallMs = START_MS
    archive.begin()
    return archive
  }

  /** Of the catalog. */
  get directory(): string {
    return join(this.store.directory, 'catalog')
  }

  /** The parts that are made at each start. */
  begin(): void {
    const { catalog, repository, ingest, age } = this.store
    const { policy, directory } = this
    this.ticks = new Ticks({ catalog, repository, ingest, policy })
    this.prune = new Prune({
      directory,
      catalog,
      repository,
      ingest,
      ticks: this.ticks,
      policy,
      age,
      quarantineMs: QUARANTINE_MS,
      log: silentLog,
    })
  }

  async restart(): Promise<void> {
    await this.store.stop()
    await this.store.start()
    this.begin()
  }

  /** Sends what was written, and lets an hour pass. The content of each hour is in a pack of its own. */
  async hour(): Promise<void> {
    await this.send()
    this.pass(HOUR_MS)
    await this.ticks.tick()
    this.points.push({ wallMs: this.store.wallMs ?? 0, position: this.writer.end })
  }

  async send(): Promise<void> {
    const session = await this.store.send(this.writer)
    expect(session.failures).toEqual([])
    this.store.repository.abandonOpenFiles()
  }

  pass(ms: number): void {
    this.store.nowMs += ms
    this.store.wallMs = (this.store.wallMs ?? 0) + ms
  }

  /** Prunes twice: what the first one leaves, the second one deletes. */
  async pruneAll(): Promise<PruneReport> {
    await this.prune.run()
    this.store.repository.abandonOpenFiles()
    this.pass(QUARANTINE_MS + 1)
    return this.prune.run()
  }

  /** What is not to be had of the files at a position: by path, why. */
  async absent(position: Position): Promise<Map<RelativePath, string>> {
    const { history } = this.store
    const found = new Map<RelativePath, string>()
    for await (const entry of history.tree(this.writer.agent, VOLUME, ROOT, position)) {
      if (entry.version.kind !== 'file') continue
      if (entry.absent !== undefined) {
        found.set(entry.path, entry.absent)
        continue
      }
      for await (const chunk of history.chunks(entry.version.chunks)) if ('failure' in chunk) found.set(entry.path, chunk.failure)
    }
    return found
  }

  /** The files that were there at a position, by the fold of what was written. */
  truth(position: Position): Map<RelativePath, FileVersion> {
    const tree = new MemoryTree()
    for (const { record } of this.writer.written) if (record.seq <= position.seq) tree.apply(record)
    return new Map([...tree.within(ROOT)].flatMap(({ path, version }) => (version.kind === 'file' ? [[path, version]] : [])))
  }

  async listed(position: Position): Promise<Map<RelativePath, FileVersion>> {
    const found = new Map<RelativePath, FileVersion>()
    for await (const { path, version } of this.store.history.tree(this.writer.agent, VOLUME, ROOT, position))
      if (version.kind === 'file') found.set(path, version)
    return found
  }

  async expectWhole(): Promise<void> {
    const report = await checkRepository(this.store.repositoryDirectory, this.store.dataKey)
    expect(report).toMatchObject({ damage: [], affected: [] })
  }

  /** Stops the store. */
  async expectRebuilt(): Promise<void> {
    const { store } = this
    await store.stop()
    const { repositoryDirectory, dataKey } = store
    const report = await rebuildCatalog({ directory: join(store.directory, 'catalog'), repositoryDirectory, dataKey })
    expect(report).toMatchObject({ before: 'equal', differences: 0, damage: [] })
  }
}

const hold = (name: string, pattern: string): Hold => ({
  name: label(name, 'Hold'),
  agent: label('pacs1', 'Agent'),
  volume: VOLUME,
  pattern,
  fromMs: undefined,
  untilMs: undefined,
})

describe('prune', () => {
  it('removes what no retention keeps, after the quarantine, and says that it expired', async () => {
    const archive = await Archive.open({ all: 2 * HOUR_MS })
    const { writer, store } = archive
    for (let i = 0; i < 10; i++) {
      writer.file('f', Buffer.from(`${i}`.repeat(3000)))
      await archive.hour()
    }
    const first = await archive.prune.run()
    expect(first).toMatchObject({ deleted: 0, kept: [], retired: 6 })
    // Of the seventh the end was recorded two hours ago, so it is as old as is asked for.
    expect(first.plan.volumes).toMatchObject([{ expiring: 7, kept: { current: 1, recent: 2 }, versions: 10 }])
    for (const [i, { position }] of archive.points.entries())
      expect(await archive.absent(position)).toEqual(new Map(i < 7 ? [['f', 'expired']] : []))
    expect(existsSync(store.repository.pathOf('pack', 1))).toBe(true)
    expect((await archive.prune.plan()).quarantined.length).toBe(6)

    archive.pass(QUARANTINE_MS + 1)
    const second = await archive.prune.run()
    expect(second).toMatchObject({ deleted: 6, retired: 3, kept: [] })
    expect(second.freedBytes).toBeGreaterThan(0)
    expect(existsSync(store.repository.pathOf('pack', 1))).toBe(false)
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it('removes nothing without a retention, of a volume without one, or before a tick', async () => {
    const archive = await Archive.open({})
    archive.policy = { others: undefined, volumes: { 'other:images': NONE } }
    archive.begin()
    for (let i = 0; i < 5; i++) {
      archive.writer.file('f', Buffer.from(`${i}`.repeat(3000)))
      await archive.hour()
    }
    expect(await archive.pruneAll()).toMatchObject({ retired: 0, deleted: 0, plan: { volumes: [{ isLimited: false, expiring: 0 }] } })
    for (const { position } of archive.points) expect(await archive.absent(position)).toEqual(new Map())
  })

  it('keeps content that is shared with what is kept, and moves it out of packs that are left', async () => {
    const archive = await Archive.open({})
    const shared = randomBytes(1000)
    const image = randomBytes(1000)
    archive.writer.file('a', Buffer.concat([shared, randomBytes(6000)]))
    archive.writer.file('image', image)
    await archive.hour()
    archive.writer.file('a', Buffer.concat([shared, randomBytes(1000)]))
    archive.writer.file('b', Buffer.from('x'))
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.ticks.tick()
    const report = await archive.prune.run()
    expect(report).toMatchObject({ retired: 1, movedBytes: 2000, kept: [] })
    expect(await archive.absent(archive.writer.end)).toEqual(new Map())
    archive.pass(QUARANTINE_MS + 1)
    expect(await archive.prune.run()).toMatchObject({ deleted: 1 })
    await archive.restart()
    expect(await archive.absent(archive.writer.end)).toEqual(new Map())
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it('keeps what is needed again by a record that arrives while it runs, and asks anew for what had gone', async () => {
    const archive = await Archive.open({})
    const { writer, store, prune } = archive
    const content = randomBytes(5000)
    writer.file('a', content)
    await archive.hour()
    writer.file('a', Buffer.from('another'))
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.ticks.tick()
    // Nobody sends it again: it is there.
    writer.file('b', content)
    const [report] = await Promise.all([prune.run(), archive.send()])
    expect(report.kept).toEqual([])
    expect(await archive.absent(writer.end)).toEqual(new Map())
    // Gone for good.
    writer.file('b', Buffer.from('short'))
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.pruneAll()
    const [chunk] = writer.fileVersion(content).chunks
    expect(chunk === undefined ? undefined : store.ingest.hasChunk(writer.agent, chunk.digest)).toBe(false)
    writer.file('c', content)
    await archive.send()
    expect(await archive.absent(writer.end)).toEqual(new Map())
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it('keeps what is held until it is released', async () => {
    const archive = await Archive.open({})
    await archive.send()
    await archive.prune.hold(hold('trial', 'study-1'))
    for (const study of ['study-1', 'study-2']) archive.writer.put(study, directoryVersion())
    for (let i = 0; i < 4; i++) {
      for (const study of ['study-1', 'study-2']) archive.writer.file(`${study}/1.dcm`, randomBytes(3000))
      await archive.hour()
    }
    archive.pass(QUARANTINE_MS)
    await archive.pruneAll()
    const [first] = archive.points
    expect(await archive.absent(first?.position ?? archive.writer.end)).toEqual(new Map([['study-2/1.dcm', 'expired']]))
    expect((await holdsOf(archive.store.catalog)).map(({ name }) => name)).toEqual(['trial'])
    await archive.prune.release(label('trial', 'Hold'))
    await archive.pruneAll()
    expect((await archive.absent(first?.position ?? archive.writer.end)).size).toBe(2)
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it('stops where a hold is set meanwhile', async () => {
    const archive = await Archive.open({})
    for (let i = 0; i < 4; i++) {
      archive.writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    archive.pass(QUARANTINE_MS)
    const { catalog } = archive.store
    const entries = catalog.entries.bind(catalog)
    const looking = vi.spyOn(catalog, 'entries').mockImplementation((range, options) => {
      // By then it has found what expires.
      if (range === ranges.chunks) void archive.prune.hold(hold('late', ''))
      return entries(range, options)
    })
    await expect(archive.prune.run()).rejects.toMatchObject({ code: 'held' })
    looking.mockRestore()
    for (const { position } of archive.points) expect(await archive.absent(position)).toEqual(new Map())
    expect(await archive.prune.run()).toMatchObject({ retired: 0, plan: { volumes: [{ expiring: 0, kept: { held: 3 } }] } })
  })

  it('does not let a WORM window be made shorter for what was written in it', async () => {
    const archive = await Archive.open({ worm: 10 * DAY_MS })
    await archive.ticks.notePolicy()
    for (let i = 0; i < 3; i++) {
      archive.writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    archive.policy = { others: NONE, volumes: {} }
    archive.begin()
    archive.pass(DAY_MS)
    await archive.pruneAll()
    for (const { position } of archive.points) expect(await archive.absent(position)).toEqual(new Map())
    for (let i = 0; i < 3; i++) {
      archive.writer.file('b', randomBytes(3000))
      await archive.hour()
    }
    archive.pass(DAY_MS)
    const report = await archive.pruneAll()
    expect(report.plan.volumes).toMatchObject([{ kept: { worm: 2, current: 2 } }])
    archive.pass(10 * DAY_MS)
    await archive.ticks.tick()
    await archive.pruneAll()
    expect((await archive.absent(archive.points[0]?.position ?? archive.writer.end)).size).toBe(1)
    await archive.expectRebuilt()
  })

  it('removes nothing because a clock jumped, or because the collector did not run', async () => {
    const archive = await Archive.open({ all: DAY_MS })
    for (let i = 0; i < 4; i++) {
      archive.writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    const { store } = archive
    store.wallMs = (store.wallMs ?? 0) + 3650 * DAY_MS
    await archive.ticks.tick()
    await archive.prune.run()
    await store.stop()
    // The monotonic clock of another boot.
    store.nowMs += 3650 * DAY_MS
    await store.start()
    archive.begin()
    expect(await archive.prune.run()).toMatchObject({ retired: 0, plan: { volumes: [{ expiring: 0 }] } })
    for (const { position } of archive.points) expect(await archive.absent(position)).toEqual(new Map())
  })

  it('finishes what another one had decided', async () => {
    const archive = await Archive.open({})
    const { writer, store } = archive
    for (let i = 0; i < 4; i++) {
      writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    archive.pass(QUARANTINE_MS)
    await archive.prune.run()
    archive.pass(QUARANTINE_MS + 1)
    const due = (await archive.prune.plan()).deletable.map(({ number }) => number)
    expect(due.length).toBeGreaterThan(0)
    // It ended between the entry and the files.
    await store.ingest.note(() => [{ kind: 'deleted', packs: due }])
    await archive.restart()
    await archive.prune.run()
    for (const pack of due) expect(existsSync(store.repository.pathOf('pack', pack))).toBe(false)
    const entries = await Array.fromAsync(ledgerEntries(store.catalog))
    expect(entries.filter(({ body }) => body.kind === 'deleted').length).toBe(1)
    expect([...(await retiredPacks(store.catalog)).keys()]).toEqual(due)
    await archive.expectWhole()
    await archive.expectRebuilt()
  }, 60_000)
})

describe('prune of what is not whole', () => {
  /** Expired content. */
  async function expired(): Promise<Archive> {
    const archive = await Archive.open({})
    for (let i = 0; i < 4; i++) {
      archive.writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    archive.pass(QUARANTINE_MS)
    await archive.ticks.tick()
    return archive
  }

  async function cataloguedAnew(archive: Archive): Promise<void> {
    const { store } = archive
    await store.stop()
    rmSync(join(store.directory, 'catalog'), { recursive: true })
    await store.start()
    archive.begin()
  }

  function flip(file: string, at: number): void {
    chmodSync(file, 0o600)
    const bytes = readFileSync(file)
    bytes[at] = (bytes[at] ?? 0) ^ 1
    writeFileSync(file, bytes)
  }

  it('removes nothing by what a catalog says of which a table is damaged, and which is made anew for that', async () => {
    const archive = await expired()
    const { store, directory } = archive
    // Tables are what a database that is opened makes of its log.
    await archive.restart()
    const packs = store.repository.numbers('pack')
    const table = readdirSync(directory).find((name) => name.endsWith('.ldb')) ?? ''
    flip(join(directory, table), 30)
    await expect(archive.prune.run({ isDespiteDoubts: true })).rejects.toMatchObject({
      code: 'damage',
      message: expect.stringContaining(`table ${table}`),
    })
    expect(store.repository.numbers('pack')).toEqual(packs)
    await store.stop()
    await (await openCatalog(directory, silentLog)).close()
    await store.start()
    archive.begin()
    expect(await archive.prune.run()).toMatchObject({ retired: 3, kept: [] })
    await archive.expectRebuilt()
  })

  it('never gives out the number of a pack again', async () => {
    const archive = await expired()
    const { writer, store } = archive
    writer.remove('a')
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.pruneAll()
    expect((await retiredPacks(store.catalog)).size).toBeGreaterThan(0)
    await archive.restart()
    writer.file('b', randomBytes(3000))
    await archive.send()
    const newest = store.repository.numbers('pack').at(-1)
    expect([...(await retiredPacks(store.catalog)).keys()].every((pack) => pack < (newest ?? 0))).toBe(true)
    await archive.pruneAll()
    expect(await archive.absent(writer.end)).toEqual(new Map())
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it.each(['pack', 'segment'] as const)('removes nothing where the header of a %s is damaged', async (kind) => {
    const archive = await expired()
    // Of each hour a pack and a segment.
    const file = archive.store.repository.pathOf(kind, 2)
    flip(file, 40)
    await cataloguedAnew(archive)
    await expect(archive.prune.run()).rejects.toMatchObject({ code: 'damage' })
    expect((await archive.prune.plan()).doubts.length).toBeGreaterThan(0)
    flip(file, 40)
    await cataloguedAnew(archive)
    for (const { position } of archive.points) expect(await archive.absent(position)).toEqual(new Map())
    expect((await archive.prune.run()).retired).toBeGreaterThan(0)
    await archive.expectWhole()
  })

  it('removes nothing where a part of the ledger is missing, in which a hold may have been', async () => {
    const archive = await Archive.open({})
    await archive.send()
    await archive.prune.hold(hold('trial', ''))
    const holding = archive.store.repository.numbers('segment').at(-1)
    archive.store.repository.abandonOpenFiles()
    for (let i = 0; i < 4; i++) {
      archive.writer.file('a', randomBytes(3000))
      await archive.hour()
    }
    archive.pass(QUARANTINE_MS)
    flip(archive.store.repository.pathOf('segment', holding ?? 0), FILE_HEADER_BYTES + 90)
    await cataloguedAnew(archive)
    await expect(archive.prune.run()).rejects.toMatchObject({ code: 'damage' })
    expect(await archive.prune.run({ isDespiteDoubts: true })).toMatchObject({ kept: [] })
  })

  it('does not take a pack that has grown since a tick for as old as the tick', async () => {
    const archive = await Archive.open({})
    archive.writer.file('a', randomBytes(3000))
    await archive.store.send(archive.writer)
    await archive.ticks.tick()
    archive.pass(QUARANTINE_MS)
    // Into the same pack, and named by nothing yet.
    const content = randomBytes(1000)
    const name = digestOf(content)
    await archive.store.ingest.move({ digest: name, plainLength: 1000, filtered: false, compressed: false, bytes: content })
    archive.store.repository.abandonOpenFiles()
    archive.writer.file('a', randomBytes(3000))
    await archive.hour()
    await archive.prune.run()
    expect(archive.store.catalog.chunk(name)).toBeDefined()
  })

  it('keeps the last whole version that stands in for a torn one, though one that was lost lies between', async () => {
    const archive = await Archive.open({})
    const { writer } = archive
    const first = writer.file('db', randomBytes(3000)).record.seq
    await archive.hour()
    const { seq } = writer.file('db', randomBytes(3000)).record
    writer.append({ kind: 'lost', volume: VOLUME, path: relativePath('db'), lostSeq: seq })
    await archive.hour()
    writer.file('db', randomBytes(3000), { consistency: 'torn' })
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.pruneAll()
    expect(await archive.absent(archive.points[0]?.position ?? writer.end)).toEqual(new Map())
    const standIn = await archive.store.catalog.lastWhole(writer.agent, VOLUME, relativePath('db'), writer.end)
    expect(standIn?.position.seq).toBe(first)
  })

  it('has the same ticks in a rebuilt catalog, also where records come right behind one', async () => {
    const archive = await Archive.open({})
    const { writer, store } = archive
    for (let i = 0; i < 5; i++) {
      writer.file('a', randomBytes(100))
      const sent = store.send(writer)
      const ticked = archive.ticks.tick()
      await sent
      writer.file('b', randomBytes(100))
      await Promise.all([ticked, archive.ticks.tick(), store.send(writer)])
    }
    await archive.expectRebuilt()
  })

  it('has no use for a frame in a pack that was left, where another one is read', async () => {
    const archive = await expired()
    const { writer, store } = archive
    const content = randomBytes(1000)
    writer.file('x', content)
    await archive.hour()
    const name = digestOf(content)
    const place = store.catalog.chunk(name)
    // A copy that the catalog does not know, as a commit leaves it that failed.
    store.repository.appendChunk({ digest: name, plainLength: 1000, filtered: false, compressed: false, bytes: content })
    await store.repository.commit([])
    store.repository.abandonOpenFiles()
    writer.file('y', randomBytes(1000))
    await archive.hour()
    archive.pass(QUARANTINE_MS)
    await archive.ticks.tick()
    expect((await archive.prune.run()).retired).toBeGreaterThan(0)
    expect(store.catalog.chunk(name)).toEqual(place)
    await archive.expectWhole()
    await archive.expectRebuilt()
  })

  it('is of a volume that there is', async () => {
    const archive = await expired()
    await expect(archive.prune.hold({ ...hold('h', ''), volume: label('imagse', 'Volume') })).rejects.toMatchObject({ code: 'not-found' })
  })
})

describe('a random history under a retention', () => {
  it.each([1, 2, 3])(
    'keeps every point that the retention promises, and says of everything else that it expired (seed %i)',
    async (seed) => {
      const random = new Random(seed)
      const retention = { all: 6 * HOUR_MS, hourly: 2 * DAY_MS, daily: 5 * DAY_MS }
      const archive = await Archive.open(retention)
      const { writer } = archive
      const held = 'd0/f1'
      await archive.send()
      await archive.prune.hold(hold('held', held))
      const pool = Array.from({ length: 40 }, () => random.bytes(1000))
      for (let d = 0; d < 4; d++) writer.put(`d${d}`, directoryVersion())
      const heldVersions: [Position, RelativePath][] = []
      let pruned = 0
      for (let hour = 0; hour < 24 * 6; hour++) {
        for (let step = random.below(6); step > 0; step--) {
          const path = `d${random.below(4)}/f${random.below(6)}` as RelativePath
          const there = archive.truth(writer.end)
          const action = random.below(10)
          if (action === 0 && there.has(path)) writer.remove(path)
          else if (action === 1 && there.has(path)) writer.rename(path, `d${random.below(4)}/r${random.below(3)}`)
          else {
            const parts = Array.from(
              { length: 1 + random.below(4) },
              () => (random.below(3) === 0 ? random.pick(pool) : undefined) ?? random.bytes(1000),
            )
            writer.file(path, Buffer.concat(parts))
            if (path === held) heldVersions.push([writer.end, path])
          }
        }
        await archive.hour()
        if (hour % 20 === 19) {
          pruned += (await archive.prune.run()).retired
          archive.store.repository.abandonOpenFiles()
          if (random.below(2) === 0) await archive.restart()
        }
      }
      await archive.pruneAll()
      expect(pruned).toBeGreaterThan(10)
      const nowMs = archive.store.wallMs ?? 0
      const isPromised = (i: number): boolean => {
        const point = archive.points[i]
        const before = archive.points[i - 1]
        if (point === undefined) return false
        const ageMs = nowMs - point.wallMs
        const isDay = before === undefined || Math.floor(before.wallMs / DAY_MS) !== Math.floor(point.wallMs / DAY_MS)
        return ageMs <= retention.hourly || (isDay && ageMs <= retention.daily)
      }
      const found = { promised: 0, expired: 0 }
      for (const [i, { position }] of archive.points.entries()) {
        expect(await archive.listed(position)).toEqual(archive.truth(position))
        const absent = await archive.absent(position)
        if (isPromised(i)) {
          expect(absent, `${i}`).toEqual(new Map())
          found.promised += 1
        }
        for (const reason of absent.values()) expect(reason).toBe('expired')
        found.expired += absent.size
      }
      // Every record of the window, not its hours alone.
      const recent = archive.points.find(({ wallMs }) => nowMs - wallMs <= retention.all)?.position ?? writer.end
      for (let { seq } = recent; seq <= writer.end.seq; seq++) expect(await archive.absent({ epoch: 1, seq })).toEqual(new Map())
      for (const [position, path] of heldVersions) expect((await archive.absent(position)).has(path)).toBe(false)
      expect(found.promised).toBeGreaterThanOrEqual(48)
      expect(found.expired).toBeGreaterThan(100)
      await archive.expectWhole()
      await archive.expectRebuilt()
    },
    120_000,
  )
})
