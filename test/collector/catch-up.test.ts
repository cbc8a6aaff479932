import { randomBytes } from 'node:crypto'
import { cpSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { factsOf } from '../../collector/catalog-facts.ts'
import { replay } from '../../collector/replay.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { JournalWriter, symlinkVersion } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { RecordedSession, Store } from '../support/store.ts'

const NEVER = new AbortController().signal
const content = (i: number): Buffer => Buffer.from(`content of file ${i} `.repeat(20))

/** A store that has taken in what two agents wrote. */
async function filled(): Promise<{ store: Store; writers: [JournalWriter, JournalWriter] }> {
  const store = await Store.open()
  const writers: [JournalWriter, JournalWriter] = [new JournalWriter(), new JournalWriter({ agent: 'pacs2' })]
  for (let round = 0; round < 4; round++) {
    for (const writer of writers) {
      for (let i = 0; i < 10; i++) writer.file(`file${round}-${i}`, content(round * 10 + i))
      await store.send(writer)
    }
  }
  return { store, writers }
}

/** Starts with no catalog, and nothing folded. */
async function restartWithoutCatalog(store: Store): Promise<void> {
  await store.stop()
  rmSync(join(store.directory, 'catalog'), { recursive: true })
  await store.start(0)
}

async function factsIn(catalog: Catalog): Promise<string[]> {
  const facts: string[] = []
  for await (const { key, value } of factsOf(catalog)) facts.push(`${key.toString('hex')}=${value.toString('hex')}`)
  return facts
}

/** The catalog says what one says that is folded from nothing. */
async function expectWhole(store: Store): Promise<void> {
  const repository = Repository.open(store.repositoryDirectory, store.dataKey)
  const fresh = await Catalog.open(join(scratchDirectory(), 'fresh'))
  try {
    expect((await replay(repository, fresh)).damage).toEqual([])
    expect(await factsIn(store.catalog)).toEqual(await factsIn(fresh))
  } finally {
    await fresh.close()
    repository.close()
  }
}

afterEach(() => vi.restoreAllMocks())

describe('a catalog that is made anew', () => {
  it('lets agents go on from where they were, and has what they sent meanwhile when it is done', async () => {
    const { store, writers } = await filled()
    await restartWithoutCatalog(store)
    expect(store.catalog.chainEnd(writers[0].agent)).toBeUndefined()
    for (const writer of writers) expect(store.ingest.chainEnd(writer.agent)).toMatchObject({ hash: writer.end.hash })
    writers[0].file('meanwhile', Buffer.from('new'))
    const session = await store.send(writers[0])
    expect(session.acks.at(-1)).toMatchObject({ seq: writers[0].end.seq, hash: writers[0].end.hash })
    expect(store.catalog.chainEnd(writers[0].agent)).toBeUndefined()
    expect(store.catchUp.progress).toMatchObject({ records: 0, percent: 0 })

    const folding = store.catchUp.run(store.ingest, NEVER)
    writers[1].file('while it is folded', Buffer.from('newer'))
    const during = await store.send(writers[1])
    expect(during.failures).toEqual([])
    expect(await folding).toBe(true)
    expect(store.catchUp.progress).toBeUndefined()
    writers[0].file('afterwards', Buffer.from('newest'))
    expect((await store.send(writers[0])).failures).toEqual([])
    for (const writer of writers) expect(store.catalog.chainEnd(writer.agent)?.hash).toBe(writer.end.hash)
    await expectWhole(store)
  })

  it('is read by nobody before, and the ledger is not continued', async () => {
    const { store } = await filled()
    await restartWithoutCatalog(store)
    expect(() => store.catchUp.requireDone()).toThrow(expect.objectContaining({ code: 'rebuilding' }))
    await expect(store.ingest.note(() => [{ kind: 'tick', newestPack: 1 }])).rejects.toMatchObject({ code: 'rebuilding' })
    await store.catchUp.run(store.ingest, NEVER)
    expect(() => store.catchUp.requireDone()).not.toThrow()
    await store.ingest.note(() => [{ kind: 'tick', newestPack: 1 }])
    await expectWhole(store)
  })

  it('takes no record meanwhile that does not continue its chain, or names content that is not there', async () => {
    const { store, writers } = await filled()
    await restartWithoutCatalog(store)
    const [writer] = writers
    const sendOnly = async (records: readonly Uint8Array[]): Promise<RecordedSession> => {
      const session = new RecordedSession(writer.agent)
      const answered = session.next()
      await store.ingest.submit({ session, records })
      await answered
      return session
    }
    const length = writer.written.length
    writer.file('never sent', Buffer.from('content that is nowhere'))
    const named = writer.put('behind it', symlinkVersion('x'))
    expect((await sendOnly([named.bytes])).failures[0]?.message).toMatch(/does not continue its chain/)
    expect((await sendOnly(writer.written.slice(length).map(({ bytes }) => bytes))).failures[0]?.message).toMatch(/was not sent/)
    expect(store.ingest.chainEnd(writer.agent)?.seq).toBe(length)
    await store.catchUp.run(store.ingest, NEVER)
    await expectWhole(store)
  })

  it('has agents send again what stands only in packs that nothing is read from', async () => {
    const { store, writers } = await filled()
    const [writer] = writers
    const name = digestOf(content(3).subarray(0, 1000))
    expect(store.catalog.chunk(name)?.file).toBe(1)
    // A catalog of some time ago, as a checkpoint gives one back.
    await store.stop()
    const [catalog, older] = [join(store.directory, 'catalog'), join(store.directory, 'older')]
    cpSync(catalog, older, { recursive: true })
    await store.start()
    // As prune does, which has stored elsewhere before what is needed of it: here nothing is.
    store.repository.abandonOpenFiles()
    writer.file('in the next pack', Buffer.from('another'))
    await store.send(writer)
    await store.ingest.note(() => [{ kind: 'retired', packs: [1] }])
    await store.stop()
    rmSync(catalog, { recursive: true })
    renameSync(older, catalog)
    await store.start(0)
    expect(store.catalog.chunk(name)?.file).toBe(1)
    expect(store.ingest.hasChunk(writer.agent, name)).toBe(false)
    writer.file('again', content(3))
    expect((await store.send(writer)).failures).toEqual([])
    await store.catchUp.run(store.ingest, NEVER)
    expect(store.catalog.chunk(name)?.file).toBe(2)
  })

  it('goes on where it was cut short', async () => {
    const { store, writers } = await filled()
    await restartWithoutCatalog(store)
    const stop = new AbortController()
    stop.abort()
    expect(await store.catchUp.run(store.ingest, stop.signal)).toBe(false)
    writers[0].file('meanwhile', Buffer.from('new'))
    await store.send(writers[0])
    await store.stop()
    await store.start(0)
    expect(store.ingest.chainEnd(writers[0].agent)?.hash).toBe(writers[0].end.hash)
    expect(await store.catchUp.run(store.ingest, NEVER)).toBe(true)
    await expectWhole(store)
  })

  it('lacks nothing, and has nothing that was not made durable, where the disk fails meanwhile', async () => {
    const { store, writers } = await filled()
    await restartWithoutCatalog(store)
    const [writer] = writers
    const before = writer.written.length
    writer.file('lost to the disk', Buffer.from('first try'))
    const commit = vi.spyOn(store.repository, 'commit').mockRejectedValueOnce(new PacsimileError('io', 'Writing: EIO'))
    expect((await store.send(writer)).failures[0]?.code).toBe('io')
    commit.mockRestore()
    store.holds(writer, before)
    expect((await store.send(writer)).failures).toEqual([])
    await store.catchUp.run(store.ingest, NEVER)
    await expectWhole(store)
  })

  it('is done although an agent does not stop sending', async () => {
    const { store, writers } = await filled()
    await restartWithoutCatalog(store)
    const [writer] = writers
    const folded = new AbortController()
    const folding = store.catchUp.run(store.ingest, NEVER).finally(() => folded.abort())
    let sent = 0
    while (!folded.signal.aborted) {
      for (let i = 0; i < 200; i++) writer.put(`link${sent}`, symlinkVersion(randomBytes(500).toString('hex')))
      expect((await store.send(writer)).failures).toEqual([])
      sent += 1
    }
    expect(await folding).toBe(true)
    expect(sent).toBeGreaterThan(0)
    await expectWhole(store)
  })
})
