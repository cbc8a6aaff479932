import { randomBytes } from 'node:crypto'
import { chmodSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { retiredPacks } from '../../collector/ledger-view.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import { digestOf } from '../../shared/digest.ts'
import { silentLog } from '../../shared/log.ts'
import { label, relativePath } from '../../shared/path.ts'
import { VOLUME } from '../support/journal-writer.ts'
import { Archive, hold, QUARANTINE_MS } from '../support/pruned-archive.ts'

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
