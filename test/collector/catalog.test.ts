import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CatalogBatch } from '../../collector/catalog-batch.ts'
import { parentOf, type RelativePath, ROOT } from '../../shared/path.ts'
import { MemoryTree } from '../../shared/tree.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

const NOTHING = { packs: { file: 0, offset: 0 }, segments: { file: 0, offset: 0 } }
const NAMES = ['a', 'b', 'c', 'a-', 'a.b', '\xff\xfe']

type Step =
  | { readonly op: 'dir' | 'file' | 'link' | 'remove' | 'sweep'; readonly path: string[] }
  | { readonly op: 'rename'; readonly path: string[]; readonly to: string[] }
const path = fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ op: fc.constantFrom('dir' as const, 'file' as const, 'link' as const, 'remove' as const), path }),
  fc.record({ op: fc.constant('rename' as const), path, to: path }),
  fc.record({ op: fc.constant('sweep' as const), path }),
)

function write(writer: JournalWriter, tree: MemoryTree, next: Step): boolean {
  const at = next.path.join('/') as RelativePath
  const parentIsDirectory = (of: string[]): boolean => tree.at(of.slice(0, -1).join('/') as RelativePath)?.version.kind === 'directory'
  switch (next.op) {
    case 'dir':
      if (!parentIsDirectory(next.path)) return false
      writer.put(at, directoryVersion())
      return true
    case 'file':
      if (!parentIsDirectory(next.path)) return false
      writer.file(at, Buffer.from(at))
      return true
    case 'link':
      if (!parentIsDirectory(next.path)) return false
      writer.put(at, symlinkVersion(at))
      return true
    case 'remove':
      writer.remove(at)
      return true
    case 'rename':
      if (!parentIsDirectory(next.to)) return false
      writer.rename(at, next.to.join('/'))
      return true
    case 'sweep':
      writer.append({ kind: 'sweep', volume: VOLUME, since: Math.max(1, writer.end.seq - 3) })
      return true
  }
}

const shown = (entry: { path: string; version: { kind: string; inode: bigint } }): string =>
  `${entry.path} ${entry.version.kind} ${entry.version.inode}`

async function listed(store: Store, writer: JournalWriter, directory: RelativePath, seq: number): Promise<string[]> {
  const found = []
  for await (const entry of store.catalog.treeAt(writer.agent, VOLUME, directory, { epoch: 1, seq }, 'directory')) found.push(shown(entry))
  return found
}

/** Of a tree as it is shown. */
function inDirectory(tree: readonly string[], directory: RelativePath): string[] {
  return tree.filter((line) => {
    const path = (line.split(' ')[0] ?? '') as RelativePath
    return path === directory || parentOf(path) === directory
  })
}

const MANY_VERSIONS = 3000

describe('the catalog', () => {
  it('holds, at every position, the fold of the journal up to there', async () => {
    const store = await Store.open()
    let agents = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 20 }), async (steps, batchSize) => {
        // Each run is an agent of its own in the one catalog.
        const writer = new JournalWriter({ agent: `agent${++agents}` })
        const truth = new MemoryTree()
        const states: string[][] = []
        for (const { record } of writer.written) {
          truth.apply(record)
          states.push([...truth.within(ROOT)].map(shown))
        }
        for (const next of steps) {
          if (!write(writer, truth, next)) continue
          const last = writer.written.at(-1)
          if (last === undefined) continue
          truth.apply(last.record)
          states.push([...truth.within(ROOT)].map(shown))
        }
        for (let at = 0; at < writer.written.length; at += batchSize) {
          const batch = new CatalogBatch(store.catalog)
          for (const { record, bytes } of writer.written.slice(at, at + batchSize)) await batch.addRecord(writer.agent, record, bytes)
          await batch.write(NOTHING)
        }
        for (const [i, expected] of states.entries()) {
          const found: string[] = []
          for await (const entry of store.catalog.treeAt(writer.agent, VOLUME, ROOT, { epoch: 1, seq: i + 1 })) found.push(shown(entry))
          expect(found).toEqual(expected)
          for (const directory of [ROOT, ...NAMES] as RelativePath[])
            expect(await listed(store, writer, directory, i + 1)).toEqual(inDirectory(expected, directory))
        }
        const newest = (await store.catalog.newestBelow(writer.agent, VOLUME, ROOT)).map(shown)
        expect(newest).toEqual(states.at(-1)?.slice(1) ?? [])
      }),
      { numRuns: 60 },
    )
  })

  it('finds the version that counts among many, and what lies behind them', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const truth = new MemoryTree()
    const states = new Map<number, string[]>()
    writer.put('', directoryVersion())
    writer.put('d', directoryVersion())
    for (const name of ['a', 'd/before', 'd/db', 'd/db-wal', 'e']) writer.file(name, Buffer.from(name))
    for (let i = 0; i < MANY_VERSIONS; i++) {
      writer.file('d/db', Buffer.from(`${i}`), { inode: BigInt(i) })
      if (i % 100 === 0) writer.file('d/db-wal', Buffer.from(`${i}`), { inode: BigInt(i) })
      if (i === MANY_VERSIONS / 2) writer.remove('d')
      if (i === MANY_VERSIONS / 2) writer.put('d', directoryVersion())
    }
    const { seq: last } = writer.end
    const looked = [8, 9, 500, 1503, 1530, 1531, 1532, 1533, 1534, 2500, last - 1, last]
    const batch = new CatalogBatch(store.catalog)
    for (const { record, bytes } of writer.written) {
      truth.apply(record)
      if (looked.includes(record.seq)) states.set(record.seq, [...truth.within(ROOT)].map(shown))
      await batch.addRecord(writer.agent, record, bytes)
    }
    await batch.write(NOTHING)
    for (const seq of looked) {
      const [expected, found] = [states.get(seq) ?? [], [] as string[]]
      for await (const entry of store.catalog.treeAt(writer.agent, VOLUME, ROOT, { epoch: 1, seq })) found.push(shown(entry))
      expect(found, `at ${seq}`).toEqual(expected)
      for (const directory of ['', 'd'] as RelativePath[])
        expect(await listed(store, writer, directory, seq), `at ${seq}`).toEqual(inDirectory(expected, directory))
      const database = await store.catalog.entryAt(writer.agent, VOLUME, 'd/db' as RelativePath, { epoch: 1, seq })
      expect(database && shown(database), `at ${seq}`).toEqual(expected.find((line) => line.startsWith('d/db ')))
    }
  })

  it('lists a directory that is not known itself where something below it is', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.put('', directoryVersion())
    for (const name of ['gone/x', 'lost/deep/file', 'lost/other', 'z']) writer.file(name, Buffer.from(name))
    writer.remove('gone/x')
    const batch = new CatalogBatch(store.catalog)
    // As of segments that are damaged.
    for (const { record, bytes } of writer.written) await batch.addRecord(writer.agent, record, bytes, true)
    await batch.write(NOTHING)
    const names = async (directory: string): Promise<string[]> =>
      (await listed(store, writer, directory as RelativePath, writer.end.seq)).map((line) => line.split(' ').slice(0, 2).join(' '))
    expect(await names('')).toEqual([' directory', 'lost directory', 'z file'])
    expect(await names('lost')).toEqual(['lost/deep directory', 'lost/other file'])
    expect(await names('lost/deep')).toEqual(['lost/deep/file file'])
    expect(await names('gone')).toEqual([])
  })
})
