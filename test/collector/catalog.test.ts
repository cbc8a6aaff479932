import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CatalogBatch } from '../../collector/catalog-batch.ts'
import { type RelativePath, ROOT } from '../../shared/path.ts'
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
        }
        const newest = (await store.catalog.newestBelow(writer.agent, VOLUME, ROOT)).map(shown)
        expect(newest).toEqual(states.at(-1)?.slice(1) ?? [])
      }),
      { numRuns: 60 },
    )
  })
})
