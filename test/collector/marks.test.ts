import { describe, expect, it } from 'vitest'
import { markNamed, marksOf } from '../../collector/marks.ts'
import { parsePoint } from '../../collector/point.ts'
import { relativePath } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

async function marked(): Promise<{ store: Store; writer: JournalWriter }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const mark = (name: string): unknown => writer.append({ kind: 'mark', volume: VOLUME, name })
  writer.file('a', Buffer.from('one'))
  mark('first')
  writer.file('a', Buffer.from('two'))
  mark('again')
  writer.remove('a')
  mark('again')
  writer.file('b', Buffer.from('three'))
  await store.send(writer)
  return { store, writer }
}

describe('marks', () => {
  it('are listed in the order of time, also those of one name, and stand for their positions', async () => {
    const { store, writer } = await marked()
    const records = writer.written.filter(({ record }) => record.kind === 'mark').map(({ record }) => record)
    const found = await marksOf(store.catalog, writer.agent, VOLUME)
    expect(found.map(({ name }) => name)).toEqual(['first', 'again', 'again'])
    expect(found.map(({ position }) => position.seq)).toEqual(records.map(({ seq }) => seq))
    expect(found.map(({ time }) => time)).toEqual(records.map(({ time }) => time))
    expect(await markNamed(store.catalog, writer.agent, VOLUME, 'again')).toEqual(found[2])
  })

  it('are moments: the state is the one that was marked, of the newest where a name was given twice', async () => {
    const { store, writer } = await marked()
    const namesAt = async (text: string): Promise<string[]> => {
      const { position } = await store.history.point(writer.agent, VOLUME, parsePoint(text))
      const names = []
      for await (const { path } of store.history.tree(writer.agent, VOLUME, relativePath(''), position)) names.push(path)
      return names
    }
    expect(await namesAt('mark:first')).toEqual(['', 'a'])
    expect(await namesAt('mark:again')).toEqual([''])
    expect(await namesAt('now')).toEqual(['', 'b'])
    await expect(namesAt('mark:never')).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('first, again') as string,
    })
  })
})

describe('the versions of a path', () => {
  it('are what became of it, by its own records and by those of directories above', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.put('d', directoryVersion())
    writer.file('d/x', Buffer.from('one'))
    writer.file('d/x', Buffer.from('two'))
    writer.file('d/y', Buffer.from('other'))
    writer.rename('d', 'e')
    writer.put('d', directoryVersion())
    writer.file('d/x', Buffer.from('three'))
    writer.remove('d')
    await store.send(writer)
    const became = async (path: string): Promise<string[]> => {
      const found = []
      for await (const { record, version } of store.history.versions(writer.agent, VOLUME, relativePath(path)))
        found.push(`${record.kind} ${version?.kind === 'file' ? version.size : 'gone'}`)
      return found
    }
    expect(await became('d/x')).toEqual(['put 3', 'put 3', 'rename gone', 'put 5', 'remove gone'])
    expect(await became('e/x')).toEqual(['rename 3'])
    expect(await became('never')).toEqual([])
  })
})
