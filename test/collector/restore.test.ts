import { lstatSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import type { HistorySource } from '../../collector/history-source.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import type { PointRequest } from '../../collector/point.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { libc } from '../../shared/libc.ts'
import type { RelativePath } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'

async function restoreAt(
  source: HistorySource,
  writer: JournalWriter,
  to: string,
  { at = { kind: 'head' }, ...change }: Partial<RestoreRequest> & { at?: PointRequest } = {},
): Promise<RestoreReport> {
  const point = await source.point(writer.agent, VOLUME, at)
  return restore(source, {
    agent: writer.agent,
    volume: VOLUME,
    path: '' as RelativePath,
    point,
    to,
    dryRun: false,
    setuid: false,
    special: false,
    torn: false,
    ...change,
  })
}

describe('restore', () => {
  it('brings back content, mode, times, links, empty directories, xattrs and names of any bytes', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.put('empty', directoryVersion({ mode: 0o2750, mtimeNs: 1_600_000_000_000_000_007n }))
    writer.put('d', directoryVersion({ mtimeNs: 1_500_000_000_000_000_009n }))
    writer.file('d/\xff\xfe\n name', Buffer.from('x'.repeat(2500)), {
      mode: 0o640,
      mtimeNs: 1_650_000_000_987_654_321n,
      xattrs: [{ name: 'user.note', value: 'v\0\xff' }],
    })
    const shared = { inode: 77n, links: 2 }
    writer.file('d/one', Buffer.from('linked'), shared)
    writer.file('two', Buffer.from('linked'), shared)
    writer.put('d/link', symlinkVersion('../nowhere/\xff'))
    writer.file('zero', Buffer.alloc(0))
    writer.file('setuid', Buffer.from('#!'), { mode: 0o4755 })
    await store.send(writer)
    const to = join(scratchDirectory(), 'out')
    const report = await restoreAt(store.history, writer, to)
    expect(report).toMatchObject({ files: 5, directories: 3, symlinks: 1, hardLinks: 1, missing: [], shortcomings: [] })
    const found = walkTree(to)
    expect([...found.keys()]).toEqual(['', 'd', 'd/link', 'd/one', 'd/\xff\xfe\n name', 'empty', 'setuid', 'two', 'zero'])
    expect(found.get('d')).toMatchObject({ mode: 0o755, mtimeNs: 1_500_000_000_000_000_009n })
    expect(found.get('empty')).toMatchObject({ mode: 0o2750, mtimeNs: 1_600_000_000_000_000_007n })
    expect(found.get('d/\xff\xfe\n name')).toMatchObject({
      mode: 0o640,
      size: 2500,
      mtimeNs: 1_650_000_000_987_654_321n,
      xattrs: '[{"name":"user.note","value":"v\\u0000ÿ"}]',
    })
    expect(found.get('two')?.sameAs).toBe('d/one')
    expect(found.get('d/link')?.content).toBe('../nowhere/\xff')
    expect(found.get('setuid')?.mode).toBe(0o755)
  })

  it('ends with the error that the disk told once, when it was synced beside the writing', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    // More than is written before a sync is begun.
    const files = 8
    const content = Buffer.alloc(33 << 20, 'x')
    for (let i = 0; i < files; i++) writer.file(`f${i}`, content)
    await store.send(writer)
    const synced = vi
      .spyOn(libc ?? { filesystemSynced: () => Promise.resolve() }, 'filesystemSynced')
      .mockRejectedValueOnce(Object.assign(new Error('EIO: syncfs'), { code: 'EIO' }))
    const to = join(scratchDirectory(), 'out')
    await expect(restoreAt(store.history, writer, to)).rejects.toMatchObject({ code: 'io', message: expect.stringContaining(to) })
    expect(synced).toHaveBeenCalledTimes(1)
    // What was brought back is not called whole, and the same command goes on with it.
    expect(readdirSync(to)).toContain('.pacsimile-tmp-restore.json')
    expect(await restoreAt(store.history, writer, to)).toMatchObject({ files, kept: files, missing: [] })
  }, 60_000)

  it('restores every earlier point, a directory into the target, and a single file under its name', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.put('d', directoryVersion())
    const first = writer.file('d/f', Buffer.from('one'))
    writer.file('d/f', Buffer.from('two'))
    writer.remove('d')
    await store.send(writer)
    const scratch = scratchDirectory()
    await restoreAt(store.history, writer, join(scratch, 'a'), { at: { kind: 'seq', epoch: undefined, seq: first.record.seq } })
    expect(readFileSync(join(scratch, 'a/d/f'), 'utf8')).toBe('one')
    await restoreAt(store.history, writer, join(scratch, 'b'), {
      path: 'd' as RelativePath,
      at: { kind: 'seq', epoch: 1, seq: first.record.seq + 1 },
    })
    expect(readFileSync(join(scratch, 'b/f'), 'utf8')).toBe('two')
    await restoreAt(store.history, writer, join(scratch, 'c'), {
      path: 'd/f' as RelativePath,
      at: { kind: 'seq', epoch: 1, seq: first.record.seq },
    })
    expect(readFileSync(join(scratch, 'c/f'), 'utf8')).toBe('one')
    await expect(restoreAt(store.history, writer, join(scratch, 'e'), { path: 'd' as RelativePath })).rejects.toMatchObject({
      code: 'not-found',
    })
    await expect(restoreAt(store.history, writer, join(scratch, 'a'))).rejects.toMatchObject({ code: 'target-not-empty' })
  })

  it('understands a moment as everything up to the end of its millisecond, and refuses one before all', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const { record } = writer.file('f', Buffer.from('one'))
    await store.send(writer)
    const ms = Number(record.time >> 16n)
    const point = await store.history.point(writer.agent, VOLUME, { kind: 'time', ms })
    expect(point.position.seq).toBe(record.seq)
    await expect(store.history.point(writer.agent, VOLUME, { kind: 'time', ms: ms - 60_000 })).rejects.toMatchObject({
      code: 'outside-window',
    })
    await expect(store.history.point(writer.agent, VOLUME, { kind: 'seq', epoch: undefined, seq: 999 })).rejects.toMatchObject({
      code: 'outside-window',
    })
  })

  it('names the file and the time that a damaged chunk hits, and restores all else', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    for (const name of ['a', 'b', 'c']) writer.file(name, Buffer.from(`${name} `.repeat(3000)), {}, 6000)
    await store.send(writer)
    await store.stop()
    const shelf = join(store.repositoryDirectory, 'packs/01')
    const pack = join(shelf, readdirSync(shelf)[0] ?? '')
    const place = await (async () => {
      await using offline = await OfflineHistory.open(store.repositoryDirectory, store.dataKey)
      const [, , , , b] = writer.written
      if (b?.record.kind !== 'put' || b.record.version.kind !== 'file') throw new Error('not the file b')
      return offline.catalog.chunk(b.record.version.chunks[0]?.digest ?? b.record.version.digest)
    })()
    const at = (place?.offset ?? 0) + 90
    writeSync(openSync(pack, 'r+'), Buffer.of((readFileSync(pack)[at] ?? 0) ^ 0x55), 0, 1, at)

    const report = await checkRepository(store.repositoryDirectory, store.dataKey)
    expect(report.damage).toHaveLength(1)
    expect(report.affected.map((found) => found.path)).toEqual(['b'])
    expect(report.affected[0]?.timeMs).toBeGreaterThan(Date.now() - 60_000)

    await using offline = await OfflineHistory.open(store.repositoryDirectory, store.dataKey)
    const to = join(scratchDirectory(), 'out')
    const restored = await restoreAt(offline, writer, to)
    expect(restored.missing.map((found) => found.path)).toEqual(['b'])
    expect(restored.damaged).toBe(true)
    expect(readdirSync(to)).toEqual(['a', 'c'])
    expect(readFileSync(join(to, 'c'), 'utf8')).toBe('c '.repeat(3000))
  })

  it('finds every single flipped bit of a small repository', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('a', Buffer.from('some content'))
    await store.send(writer)
    await store.stop()
    for (const kind of ['packs', 'segments']) {
      const shelf = join(store.repositoryDirectory, kind, '01')
      const file = join(shelf, readdirSync(shelf)[0] ?? '')
      const whole = readFileSync(file)
      const { size } = statSync(file)
      for (let at = 0; at < size; at += 7) {
        const spoilt = Buffer.from(whole)
        spoilt[at] = (spoilt[at] ?? 0) ^ (1 << (at % 8))
        writeFileSync(file, spoilt)
        const report = await checkRepository(store.repositoryDirectory, store.dataKey)
        const found = report.damage.length + report.affected.length
        // The one frame of an unsealed file has nothing whole behind it: its damage cannot be told from an append cut short, unless something names it.
        if (found === 0) expect(report.notes.length, `${kind} byte ${at}`).toBeGreaterThan(0)
        if (kind === 'packs') expect(found, `${kind} byte ${at}`).toBeGreaterThan(0)
      }
      writeFileSync(file, whole)
    }
  })

  it('never leaves the target through a symlink that is there', async () => {
    const scratch = scratchDirectory()
    const outside = join(scratch, 'outside')
    mkdirSync(outside)
    const to = join(scratch, 'to')
    mkdirSync(to)
    const { Materializer } = await import('../../collector/materialize.ts')
    const files = new Materializer(to, () => Buffer.from('x'), { setuid: false, special: false })
    symlinkSync(outside, join(to, 'd'))
    const writer = new JournalWriter()
    await expect(files.put('d/f' as RelativePath, writer.fileVersion(Buffer.from('x')))).rejects.toThrow('is in the way')
    expect(readdirSync(outside)).toEqual([])
    files.makeDirectory('d' as RelativePath)
    expect(lstatSync(join(to, 'd')).isDirectory()).toBe(true)
    files.close()
  })
})
