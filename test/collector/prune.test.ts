import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { ranges } from '../../collector/catalog-keys.ts'
import { holdsOf, ledgerEntries, retiredPacks } from '../../collector/ledger-view.ts'
import { label } from '../../shared/path.ts'
import { directoryVersion } from '../support/journal-writer.ts'
import { Archive, DAY_MS, HOUR_MS, hold, NONE, QUARANTINE_MS } from '../support/pruned-archive.ts'

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
