import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { keys } from '../../collector/catalog-keys.ts'
import { type RebuildReport, rebuildCatalog } from '../../collector/rebuild.ts'
import { startOfMillisecond } from '../../shared/clock.ts'
import { digestOf } from '../../shared/digest.ts'
import { ROOT, relativePath } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

/** A stopped store with a history of every kind of record. */
async function stopped(): Promise<{ store: Store; writer: JournalWriter; directory: string }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  for (let round = 0; round < 5; round++) {
    writer.put(`d${round}`, directoryVersion())
    for (let i = 0; i < 30; i++) writer.file(`d${round}/f${i}`, Buffer.from(`content ${i} of round ${round % 3} `.repeat(200)))
    const linked = writer.fileVersion(Buffer.from(`linked ${round}`), { links: 2, inode: BigInt(10_000 + round) })
    for (const name of ['one', 'two']) writer.put(`d${round}/${name}`, linked)
    writer.remove(`d${round}/f3`)
    writer.put(`d${round}/link`, symlinkVersion('one'))
    writer.rename(`d${round}`, `moved${round}`)
    const [from, until] = [writer.end.time, startOfMillisecond(Date.now() + 1000)]
    writer.append({ kind: 'coverage', volume: VOLUME, from, until, mode: 'best-effort' })
    writer.append({ kind: 'gap', volume: VOLUME, from, until, cause: `round ${round}` })
    await store.send(writer)
  }
  writer.remove('moved1')
  await store.send(writer)
  await store.stop()
  return { store, writer, directory: join(store.directory, 'catalog') }
}

function rebuild({ repositoryDirectory, dataKey }: Store, directory: string): Promise<RebuildReport> {
  return rebuildCatalog({ directory, repositoryDirectory, dataKey })
}

async function paths(directory: string, writer: JournalWriter): Promise<string[]> {
  const catalog = await Catalog.open(directory)
  const found: string[] = []
  for await (const { path } of catalog.treeAt(writer.agent, VOLUME, ROOT, writer.end)) found.push(path)
  await catalog.close()
  return found
}

const beside = ({ directory }: Store): string[] => readdirSync(directory).filter((name) => name.startsWith('catalog.'))

describe('rebuilding the catalog', () => {
  it('makes from the repository alone what ingest made', async () => {
    const { store, writer, directory } = await stopped()
    const expected = store.newestTree(writer).map(({ path }) => path)
    const report = await rebuild(store, directory)
    expect(report).toMatchObject({ before: 'equal', differences: 0, damage: [], setAside: undefined, records: writer.written.length })
    expect(await paths(directory, writer)).toEqual(expected)
    expect(beside(store)).toEqual([])
  })

  it('does so where there is none', async () => {
    const { store, writer, directory } = await stopped()
    const before = await paths(directory, writer)
    rmSync(directory, { recursive: true })
    expect(await rebuild(store, directory)).toMatchObject({ before: 'missing', setAside: undefined })
    expect(await paths(directory, writer)).toEqual(before)
  })

  it.each<[string, (catalog: Catalog, writer: JournalWriter) => Promise<void>, number]>([
    [
      'lacks an entry',
      (catalog, { agent }) => catalog.write([{ type: 'del', key: keys.newest(agent, VOLUME, relativePath('moved0/f1')) }]),
      1,
    ],
    [
      'has one too many',
      (catalog) => catalog.write([{ type: 'put', key: keys.chunk(digestOf(Buffer.from('no'))), value: Buffer.from([1, 1, 1, 1]) }]),
      1,
    ],
    ['says something else', (catalog, { agent }) => catalog.write([{ type: 'put', key: keys.agent(agent), value: Buffer.alloc(56) }]), 1],
  ])('keeps one aside that %s', async (_, harm, differences) => {
    const { store, writer, directory } = await stopped()
    const whole = await paths(directory, writer)
    const catalog = await Catalog.open(directory)
    await harm(catalog, writer)
    await catalog.close()
    const report = await rebuild(store, directory)
    expect(report).toMatchObject({ before: 'different', differences })
    expect(beside(store).map((name) => join(store.directory, name))).toEqual([report.setAside])
    expect(await paths(directory, writer)).toEqual(whole)
    expect(await rebuild(store, directory)).toMatchObject({ before: 'equal' })
  })

  it('keeps one aside that cannot be read', async () => {
    const { store, writer, directory } = await stopped()
    const whole = await paths(directory, writer)
    writeFileSync(join(directory, 'CURRENT'), 'MANIFEST-999999\n')
    const report = await rebuild(store, directory)
    expect(report).toMatchObject({ before: 'damaged', reason: expect.stringContaining('MANIFEST-999999') })
    expect(existsSync(report.setAside ?? '')).toBe(true)
    expect(await paths(directory, writer)).toEqual(whole)
  })

  it('removes what one that was killed has left', async () => {
    const { store, directory } = await stopped()
    for (const name of ['partial', 'equal', 'links']) mkdirSync(`${directory}.${name}`)
    writeFileSync(join(`${directory}.equal`, 'CURRENT'), '')
    expect(await rebuild(store, directory)).toMatchObject({ before: 'equal' })
    expect(beside(store)).toEqual([])
  })

  it('touches nothing while another program has the catalog open, or where the repository cannot be read', async () => {
    const { store, writer, directory } = await stopped()
    const open = await Catalog.open(directory)
    await expect(rebuild(store, directory)).rejects.toMatchObject({ code: 'locked' })
    await open.close()
    const whole = await paths(directory, writer)
    const description = join(store.repositoryDirectory, 'repository.json')
    writeFileSync(description, readFileSync(description, 'utf8').replace('"version": 1', '"version": 2'))
    await expect(rebuild(store, directory)).rejects.toMatchObject({ code: 'format-unknown' })
    expect(beside(store)).toEqual([])
    expect(await paths(directory, writer)).toEqual(whole)
  })
})
