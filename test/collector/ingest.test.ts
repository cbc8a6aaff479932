import { describe, expect, it } from 'vitest'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { digestOf } from '../../shared/digest.ts'
import type { RelativePath } from '../../shared/path.ts'
import { encodeRecord } from '../../shared/record.ts'
import { JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { RecordedSession, Store } from '../support/store.ts'

const bytesOf = (writer: JournalWriter): Buffer[] => writer.written.map(({ bytes }) => bytes)

async function submitRecords(store: Store, writer: JournalWriter, records: readonly Buffer[]): Promise<RecordedSession> {
  const session = new RecordedSession(writer.agent)
  const answered = session.next()
  await store.ingest.submit({ session, records })
  await answered
  return session
}

describe('ingest', () => {
  it('acknowledges what is durable, and a repository opened without the catalog holds the same', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('a.dcm', Buffer.from('content of a'))
    const session = await store.send(writer)
    expect(session.acks.at(-1)).toMatchObject({ epoch: 1, seq: 4, hash: writer.end.hash })
    await using offline = await OfflineHistory.open(store.repositoryDirectory, store.dataKey)
    expect(offline.damage).toEqual([])
    expect(offline.catalog.chainEnd(writer.agent)?.hash).toBe(writer.end.hash)
    expect(offline.readChunk(digestOf(Buffer.from('content of a'))).toString()).toBe('content of a')
  })

  it('refuses a chunk whose content is not what its digest names, and goes on with others', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const session = new RecordedSession(writer.agent)
    const answered = session.next()
    await store.ingest.submit({
      session,
      chunk: { kind: 'chunk', digest: digestOf(Buffer.from('x')), length: 1, filtered: false, compressed: false, bytes: Buffer.from('y') },
    })
    await answered
    expect(session.failures[0]?.code).toBe('protocol')
    expect(store.ingest.hasChunk(writer.agent, digestOf(Buffer.from('x')))).toBe(false)
    expect((await store.send(writer)).failures).toEqual([])
  })

  it('refuses a compressed chunk that would grow beyond the length it claims', async () => {
    const store = await Store.open()
    const { zstdCompressSync } = await import('node:zlib')
    const session = new RecordedSession(new JournalWriter().agent)
    const answered = session.next()
    const bomb = Buffer.alloc(50 << 20)
    await store.ingest.submit({
      session,
      chunk: {
        kind: 'chunk',
        digest: digestOf(bomb.subarray(0, 10)),
        length: 10,
        filtered: false,
        compressed: true,
        bytes: zstdCompressSync(bomb),
      },
    })
    await answered
    expect(session.failures[0]?.message).toMatch(/Compressed content does not open/)
  })

  it('refuses records that name a chunk which was not sent', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('a.dcm', Buffer.from('never sent'))
    const session = await submitRecords(store, writer, bytesOf(writer))
    expect(session.failures[0]?.message).toMatch(/was not sent/)
    // What came before the bad record is whole and stays.
    expect(store.catalog.chainEnd(writer.agent)?.seq).toBe(3)
  })

  it('takes records that name a chunk which the agent declared lost', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const { record } = writer.file('a.dcm', Buffer.from('gone'))
    writer.append({ kind: 'lost', volume: VOLUME, path: 'a.dcm' as RelativePath, lostSeq: record.seq })
    const session = new RecordedSession(writer.agent)
    session.lost.add(digestOf(Buffer.from('gone')))
    const answered = session.next()
    await store.ingest.submit({ session, records: bytesOf(writer) })
    await answered
    expect(session.failures).toEqual([])
    expect(store.catalog.isLost(writer.agent, { epoch: 1, seq: record.seq })).toBe(true)
  })

  it.each([
    ['a missing seq', (bytes: Buffer[]) => [...bytes.slice(0, 2), ...bytes.slice(3)]],
    [
      'a changed record in the middle',
      (bytes: Buffer[]) =>
        bytes.map((record, i) => (i === 1 ? Buffer.from(record.map((byte, at) => (at === record.length - 1 ? byte ^ 3 : byte))) : record)),
    ],
    ['a swapped order', (bytes: Buffer[]) => [bytes[0] ?? Buffer.alloc(0), bytes[2] ?? Buffer.alloc(0), bytes[1] ?? Buffer.alloc(0)]],
    ['garbage', () => [Buffer.from('not a record')]],
  ])('refuses %s', async (_, spoil) => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('a.dcm', Buffer.alloc(0))
    const session = await submitRecords(store, writer, spoil(bytesOf(writer)))
    expect(session.failures.map((error) => error.code)).toEqual(['protocol'])
  })

  it('refuses a file below a symlink, a file without a directory, and a volume that was never declared', async () => {
    for (const attack of [
      (writer: JournalWriter) => {
        writer.put('link', {
          kind: 'symlink',
          mode: 0o777,
          uid: 0,
          gid: 0,
          mtimeNs: 0n,
          ctimeNs: 0n,
          inode: 1n,
          links: 1,
          xattrs: [],
          target: '/etc',
        })
        writer.file('link/passwd', Buffer.alloc(0))
      },
      (writer: JournalWriter) => writer.file('nowhere/passwd', Buffer.alloc(0)),
      (writer: JournalWriter) => writer.append({ kind: 'remove', volume: 'other' as typeof VOLUME, path: 'x' as RelativePath }),
    ]) {
      const store = await Store.open()
      const writer = new JournalWriter()
      attack(writer)
      const session = await submitRecords(store, writer, bytesOf(writer))
      expect(session.failures[0]?.code).toBe('protocol')
    }
  })

  it('holds senders back by the memory that many small chunks take, not by their bytes', async () => {
    const store = await Store.open()
    const session = new RecordedSession(new JournalWriter().agent)
    const chunk = { kind: 'chunk', digest: digestOf(Buffer.from('x')), length: 1, filtered: false, compressed: false } as const
    // The loop has not had a turn before this one ends.
    const submitted = Array.from({ length: 40_000 }, () => store.ingest.submit({ session, chunk: { ...chunk, bytes: Buffer.from('x') } }))
    expect(store.ingest.isCrowded).toBe(true)
    await Promise.all(submitted)
    await store.send(new JournalWriter())
    expect(store.ingest.isCrowded).toBe(false)
  })

  it('takes records that were sent twice as one', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    await submitRecords(store, writer, bytesOf(writer))
    const again = await submitRecords(store, writer, bytesOf(writer))
    expect(again.failures).toEqual([])
    expect(again.acks.at(-1)?.seq).toBe(3)
    await using offline = await OfflineHistory.open(store.repositoryDirectory, store.dataKey)
    expect(offline.damage).toEqual([])
  })

  it('does not let an agent write as another, or into an epoch that is over', async () => {
    const store = await Store.open()
    const first = new JournalWriter({ agent: 'pacs1', epoch: 2 })
    await store.send(first)
    const old = new JournalWriter({ agent: 'pacs1', epoch: 1 })
    expect((await submitRecords(store, old, bytesOf(old))).failures[0]?.message).toMatch(/epoch 1 is over/)
    const other = new JournalWriter({ agent: 'other' })
    const session = new RecordedSession('pacs1' as typeof other.agent)
    const answered = session.next()
    const [record] = other.written
    if (record === undefined) throw new Error('no record')
    await store.ingest.submit({ session, records: [encodeRecord({ ...record.record, epoch: 3 })] })
    await answered
    expect(session.failures[0]?.message).toMatch(/says that it is of other/)
  })

  it('survives a restart between commits with everything acknowledged', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    for (let round = 0; round < 4; round++) {
      writer.file(`f${round}`, Buffer.from(`content ${round}`))
      await store.send(writer)
      await store.stop()
      await store.start()
      expect(store.catalog.chainEnd(writer.agent)?.hash).toBe(writer.end.hash)
    }
    expect(store.history.readChunk(digestOf(Buffer.from('content 0'))).toString()).toBe('content 0')
  })
})
