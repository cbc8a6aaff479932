import { appendFileSync, chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Catalog } from '../../collector/catalog.ts'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { Checkpoints, catalogFromCheckpoint } from '../../collector/checkpoint.ts'
import { checkpointsOf } from '../../collector/ledger-view.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { replay } from '../../collector/replay.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import { FRAME_HEADER_BYTES } from '../../collector/repository/frame.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { silentLog } from '../../shared/log.ts'
import { ROOT } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

const FILES = 40

interface History {
  readonly store: Store
  readonly writer: JournalWriter
  readonly directory: string
}

function write({ writer }: Pick<History, 'writer'>, round: number): void {
  writer.put(`d${round}`, directoryVersion())
  for (let i = 0; i < FILES; i++) writer.file(`d${round}/f${i}`, Buffer.from(`content ${i} of ${round} `.repeat(100)))
  if (round > 0) writer.remove(`d${round - 1}/f0`)
}

/** Tables are what a database that is opened makes of its log. */
async function reopened({ store }: Pick<History, 'store'>): Promise<void> {
  await store.stop()
  await store.start()
}

async function makeCheckpoint({ store, directory }: History): Promise<void> {
  const { catalog, repository, ingest } = store
  await new Checkpoints({ directory, catalog, repository, ingest, log: silentLog }).make()
  repository.abandonOpenFiles()
}

/** Three rounds, each with a checkpoint behind it but the last, of which each segment is a file of its own. */
async function history(): Promise<History> {
  const store = await Store.open()
  const found = { store, writer: new JournalWriter(), directory: join(store.directory, 'catalog') }
  for (let round = 0; round < 3; round++) {
    write(found, round)
    await store.send(found.writer)
    store.repository.abandonOpenFiles()
    await reopened(found)
    if (round < 2) await makeCheckpoint(found)
  }
  return found
}

/** The catalog made anew as a collector does at its start. @returns how many records were folded */
async function startedAnew({ store, directory }: History): Promise<{ catalog: Catalog; records: number; isFromCheckpoint: boolean }> {
  rmSync(directory, { recursive: true })
  const repository = Repository.open(store.repositoryDirectory, store.dataKey)
  try {
    let isFromCheckpoint = false
    const catalog = await openCatalog(directory, silentLog, (at) => (isFromCheckpoint = catalogFromCheckpoint(repository, at)))
    const { records } = await replay(repository, catalog)
    return { catalog, records, isFromCheckpoint }
  } finally {
    repository.close()
  }
}

/** Closes the catalog, and compares it with one that is folded from the very beginning. */
async function expectWhole({ store, directory }: History, catalog: Catalog): Promise<void> {
  await catalog.close()
  const { repositoryDirectory, dataKey } = store
  expect(await rebuildCatalog({ directory, repositoryDirectory, dataKey })).toMatchObject({ before: 'equal', damage: [] })
}

function damage(file: string, frame = FILE_HEADER_BYTES): void {
  chmodSync(file, 0o600)
  const bytes = readFileSync(file)
  const at = frame + FRAME_HEADER_BYTES + 10
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(file, bytes)
}

describe('a catalog that is gone', () => {
  it('is made from the last checkpoint and the tail behind it', async () => {
    const found = await history()
    const { store, writer } = found
    await store.stop()
    const { catalog, records, isFromCheckpoint } = await startedAnew(found)
    expect(isFromCheckpoint).toBe(true)
    // The last round, and what was in no table when the checkpoint was made.
    expect(records).toBeGreaterThanOrEqual(FILES + 2)
    expect(records).toBeLessThan(2 * (FILES + 2) + 4)
    expect(catalog.chainEnd(writer.agent)?.seq).toBe(writer.end.seq)
    await expectWhole(found, catalog)
  })

  it('is made from the one before where the last one is damaged, and from all of history where both are', async () => {
    const found = await history()
    const { store } = found
    const places = (await checkpointsOf(store.catalog)).map(({ body }) =>
      body.kind === 'checkpoint' ? body.files.flatMap(({ chunks }) => chunks.map(({ place }) => place)) : [],
    )
    const own = (places[1] ?? []).find(({ file }) => !(places[0] ?? []).some((other) => other.file === file))
    const shared = (places[0] ?? [])[0]
    await store.stop()
    damage(store.repository.pathOf('pack', own?.file ?? 0), own?.offset)
    const second = await startedAnew(found)
    expect(second.isFromCheckpoint).toBe(true)
    expect(second.records).toBeGreaterThan(2 * FILES)
    await second.catalog.close()
    damage(store.repository.pathOf('pack', shared?.file ?? 0), shared?.offset)
    const third = await startedAnew(found)
    expect(third.isFromCheckpoint).toBe(false)
    expect(third.records).toBe(found.writer.written.length)
    await third.catalog.close()
  })

  it('is folded from the beginning where the files of the checkpoint make no catalog', async () => {
    const found = await history()
    const { store, directory, writer } = found
    await store.stop()
    rmSync(directory, { recursive: true })
    const repository = Repository.open(store.repositoryDirectory, store.dataKey)
    const catalog = await openCatalog(directory, silentLog, (at) => {
      const isMade = catalogFromCheckpoint(repository, at)
      appendFileSync(join(at, readFileSync(join(at, 'CURRENT'), 'latin1').trim()), 'x'.repeat(40_000))
      return isMade
    })
    expect(catalog.chainEnd(writer.agent)).toBeUndefined()
    expect((await replay(repository, catalog)).records).toBe(writer.written.length)
    repository.close()
    await expectWhole(found, catalog)
  })

  it('finds the tables of a checkpoint where they were moved', async () => {
    const found = await history()
    const { store } = found
    const { catalog, repository, ingest } = store
    for (const { body } of await checkpointsOf(catalog))
      for (const { chunks } of body.kind === 'checkpoint' ? body.files : [])
        for (const { digest, place } of chunks) {
          await ingest.move(repository.readPayload(place, digest))
        }
    const packs = (await checkpointsOf(catalog)).flatMap(({ body }) =>
      body.kind === 'checkpoint' ? body.files.flatMap(({ chunks }) => chunks.map(({ place }) => place.file)) : [],
    )
    await store.stop()
    for (const pack of new Set(packs)) rmSync(repository.pathOf('pack', pack))
    const { catalog: made, isFromCheckpoint } = await startedAnew(found)
    expect(isFromCheckpoint).toBe(true)
    await made.close()
  })
})

describe('a bare repository with a checkpoint', () => {
  it('is read from there, also where records before it cannot be read any more', async () => {
    const { store, writer } = await history()
    await store.stop()
    damage(store.repository.pathOf('segment', 1))
    await using offline = await OfflineHistory.open(store.repositoryDirectory, store.dataKey)
    expect(offline.damage).toEqual([])
    const paths: string[] = []
    for await (const { path } of offline.tree(writer.agent, VOLUME, ROOT, writer.end)) paths.push(path)
    expect(paths).toEqual(store.newestTree(writer).map(({ path }) => path))
    // Who asks for every record is told what is wrong with them.
    await using folded = await OfflineHistory.open(store.repositoryDirectory, store.dataKey, { isFromCheckpoint: false })
    expect(folded.damage.length).toBeGreaterThan(0)
  })
})

describe('a checkpoint', () => {
  it('stores a table once, and keeps the two newest', async () => {
    const found = await history()
    const { store } = found
    const tables = async (): Promise<Map<string, number>[]> =>
      (await checkpointsOf(store.catalog)).map(
        ({ body }) => new Map(body.kind === 'checkpoint' ? body.files.map(({ name, chunks }) => [name, chunks[0]?.place.file ?? 0]) : []),
      )
    for (let i = 0; i < 2; i++) await makeCheckpoint(found)
    const [first, second, ...more] = await tables()
    expect(more).toEqual([])
    const shared = [...(first?.keys() ?? [])].filter((name) => name.endsWith('.ldb'))
    expect(shared.length).toBeGreaterThan(0)
    // Each checkpoint was made with a pack of its own, but what was there before is where it was.
    for (const name of shared) expect(second?.get(name)).toBe(first?.get(name))
    expect(second?.has('CURRENT')).toBe(true)
  })

  it('is not made of a catalog that may lack something', async () => {
    const found = await history()
    const { store } = found
    await store.stop()
    damage(store.repository.pathOf('segment', 1))
    rmSync(found.directory, { recursive: true })
    await store.start()
    await expect(makeCheckpoint(found)).rejects.toMatchObject({ code: 'damage' })
  })

  it('is a whole state also where it is made while much is written', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const found = { store, writer, directory: join(store.directory, 'catalog') }
    const making = (async (): Promise<void> => {
      for (let i = 0; i < 3; i++) await makeCheckpointBeside(found)
    })()
    for (let round = 0; round < 30; round++) {
      write(found, round)
      await store.send(writer)
    }
    await making
    await store.stop()
    const { catalog } = await startedAnew(found)
    await expectWhole(found, catalog)
  })
})

/** Without beginning new files, which the writers use. */
async function makeCheckpointBeside({ store, directory }: History): Promise<void> {
  const { catalog, repository, ingest } = store
  await new Checkpoints({ directory, catalog, repository, ingest, log: silentLog }).make()
}
