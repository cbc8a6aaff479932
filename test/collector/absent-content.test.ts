/** Why content is not there, asked of many entries at once: what is said of each when it is asked alone. */
import { describe, expect, it } from 'vitest'
import { absenceOfContent, absencesOf } from '../../collector/absent-content.ts'
import { keys } from '../../collector/catalog-keys.ts'
import { type RelativePath, ROOT } from '../../shared/path.ts'
import type { TreeEntry } from '../../shared/tree.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

describe('the absences of a group of entries', () => {
  it('are those of each, also where a directory was renamed since', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    for (const directory of ['a', 'b', 'c']) writer.put(directory, directoryVersion())
    const expired: number[] = []
    for (let i = 0; i < 30; i++) {
      const path = `${'abc'[i % 3] ?? ''}/f${i}`
      const { record } = writer.file(path, Buffer.from(`${i}`))
      if (i % 5 === 0) writer.append({ kind: 'lost', volume: VOLUME, path: path as RelativePath, lostSeq: record.seq })
      if (i % 5 === 1) expired.push(record.seq)
    }
    // Once, twice, and not at all.
    writer.rename('a', 'moved')
    writer.rename('b', 'on its way')
    writer.rename('on its way', 'moved twice')
    await store.send(writer)
    const marks = expired.map((seq) => ({
      type: 'put' as const,
      key: keys.expired(writer.agent, { epoch: 1, seq }),
      value: Buffer.alloc(0),
    }))
    await store.catalog.write(marks)
    const entries: TreeEntry[] = await Array.fromAsync(store.catalog.treeAt(writer.agent, VOLUME, ROOT, writer.end))
    const found = await absencesOf(store.catalog, writer.agent, VOLUME, entries)
    const one = (entry: TreeEntry): ReturnType<typeof absenceOfContent> => absenceOfContent(store.catalog, writer.agent, VOLUME, entry)
    expect(found).toEqual(await Promise.all(entries.map(one)))
    const count = (what: string | undefined): number => found.filter((absence) => absence === what).length
    // The root and three directories are whole.
    expect([count('lost'), count('expired'), count(undefined)]).toEqual([6, 6, 22])
    const listed = await Array.fromAsync(store.history.tree(writer.agent, VOLUME, ROOT, writer.end))
    expect(listed.map(({ absent }) => absent)).toEqual(found)
  })
})
