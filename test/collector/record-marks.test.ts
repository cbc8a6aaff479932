import { describe, expect, it } from 'vitest'
import { absenceOfContent, putOf } from '../../collector/absent-content.ts'
import { RecordMarks } from '../../collector/record-marks.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

/** Of three files one is lost, one has expired; all are moved with their directory, twice. */
async function movedFiles(): Promise<{ store: Store; writer: JournalWriter; puts: number[] }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  writer.put('d', directoryVersion())
  const puts = ['lost', 'expired', 'whole'].map((name) => writer.file(`d/${name}`, Buffer.from(name)).record.seq)
  writer.append({ kind: 'lost', volume: VOLUME, path: 'd/lost' as never, lostSeq: puts[0] ?? 0 })
  writer.rename('d', 'e')
  writer.rename('e', 'f')
  await store.send(writer)
  await store.ingest.note(() => [{ kind: 'expired', agent: writer.agent, positions: [{ epoch: 1, seq: puts[1] ?? 0 }] }])
  return { store, writer, puts }
}

describe('the marks of an agent', () => {
  it('say of every version what the catalog says, wherever it was moved to', async () => {
    const {
      store: { catalog },
      writer: { agent },
      puts,
    } = await movedFiles()
    const marks = await RecordMarks.read(catalog, agent)
    const found: Record<string, unknown> = {}
    for await (const { path, position, version } of catalog.allVersions(agent, VOLUME)) {
      if (version?.kind !== 'file') continue
      const absence = await absenceOfContent(catalog, agent, VOLUME, { path, position }, marks)
      expect(absence).toBe(await absenceOfContent(catalog, agent, VOLUME, { path, position }))
      found[path] = [absence, (await putOf(catalog, agent, VOLUME, { path, position }, marks))?.seq]
    }
    const [lost, expired, whole] = puts
    for (const directory of ['d', 'e', 'f'])
      expect(found).toMatchObject({
        [`${directory}/lost`]: ['lost', lost],
        [`${directory}/expired`]: ['expired', expired],
        [`${directory}/whole`]: [undefined, whole],
      })
  })

  it('do not know what came after they were read', async () => {
    const { store, writer } = await movedFiles()
    const marks = await RecordMarks.read(store.catalog, writer.agent)
    const { seq } = writer.file('f/late', Buffer.from('late')).record
    await store.send(writer)
    const entry = { path: 'f/late' as never, position: { epoch: 1, seq } }
    expect(await putOf(store.catalog, writer.agent, VOLUME, entry, marks)).toBeUndefined()
    const now = await RecordMarks.read(store.catalog, writer.agent)
    expect(await putOf(store.catalog, writer.agent, VOLUME, entry, now)).toMatchObject({ seq })
  })
})
