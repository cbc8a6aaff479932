import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { replay } from '../../collector/replay.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { silentLog } from '../../shared/log.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { RecordedSession, Store } from '../support/store.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const CHUNKS = 1500
const CHUNK_BYTES = 100
const CHUNKS_AT_ONCE = 10
const SECTOR_BYTES = 512
const BLOCK_BYTES = 32_768

interface Stopped {
  readonly store: Store
  /** Of the catalog, as it was written. */
  readonly bytes: Buffer
  readonly name: string
}

/** A file whose chunks were committed many times before its record was: blocks of the log hold nothing but their places. */
async function stopped(): Promise<Stopped> {
  const store = await Store.open()
  const writer = new JournalWriter()
  await store.send(writer)
  writer.file('big', new Random(4).bytes(CHUNKS * CHUNK_BYTES), {}, CHUNK_BYTES)
  const [named] = writer.written.slice(-1)
  const session = new RecordedSession(writer.agent)
  for (const [i, digest] of [...writer.chunks.keys()].entries()) {
    const known = store.committed.length
    await store.ingest.submit({ session, chunk: writer.chunkMessage(digest) })
    if (i % CHUNKS_AT_ONCE > 0) continue
    while (store.committed.length === known) await setImmediate()
  }
  const answered = session.next()
  await store.ingest.submit({ session, records: [named?.bytes ?? Buffer.alloc(0)] })
  await answered
  await store.stop()
  const directory = join(store.directory, 'catalog')
  const name = readdirSync(directory).find((file) => file.endsWith('.log')) ?? ''
  return { store, name, bytes: readFileSync(join(directory, name)) }
}

/** Starts with another log. @returns whether the catalog was set aside, and what it was worth afterwards */
async function startedWith({ store, name }: Stopped, log: Buffer): Promise<{ isSetAside: boolean; before: string }> {
  const place = scratchDirectory()
  const directory = join(place, 'catalog')
  cpSync(join(store.directory, 'catalog'), directory, { recursive: true })
  writeFileSync(join(directory, name), log)
  const catalog = await openCatalog(directory, silentLog)
  const repository = Repository.open(store.repositoryDirectory, store.dataKey)
  await replay(repository, catalog)
  repository.close()
  await catalog.close()
  const isSetAside = readdirSync(place).some((file) => file.startsWith('catalog.damaged-'))
  const { before } = await rebuildCatalog({ directory, repositoryDirectory: store.repositoryDirectory, dataKey: store.dataKey })
  rmSync(place, { recursive: true })
  return { isSetAside, before }
}

describe(`the log of a catalog (PACSIMILE_SEED=${SEED})`, () => {
  it('with a flipped bit, or a sector of zeros, anywhere, costs nothing of what the repository holds', async () => {
    const found = await stopped()
    expect(found.bytes.length).toBeGreaterThan(3 * BLOCK_BYTES)
    const random = new Random(SEED)
    for (let i = 0; i < 9; i++) {
      const log = Buffer.from(found.bytes)
      const at = random.below(log.length - SECTOR_BYTES)
      if (i % 3 === 0) log.fill(0, at, at + SECTOR_BYTES)
      else log[at] = (log[at] ?? 0) ^ (1 << random.below(8))
      const { isSetAside, before } = await startedWith(found, log)
      expect(before, `byte ${at}`).toBe('equal')
      // Of the last block, LevelDB leaves out the end: that is an older state.
      if (at < log.length - BLOCK_BYTES) expect(isSetAside, `byte ${at}`).toBe(true)
    }
  }, 60_000)

  it('that a crash has cut short is an older whole state', async () => {
    const found = await stopped()
    for (const bytes of [found.bytes.length - 3, 2 * BLOCK_BYTES + 3, 2 * BLOCK_BYTES, BLOCK_BYTES + 1000])
      expect(await startedWith(found, found.bytes.subarray(0, bytes))).toEqual({ isSetAside: false, before: 'equal' })
    const zeros = Buffer.concat([found.bytes.subarray(0, 2 * BLOCK_BYTES + 1000), Buffer.alloc(2 * BLOCK_BYTES)])
    expect(await startedWith(found, zeros)).toEqual({ isSetAside: false, before: 'equal' })
  }, 60_000)
})
