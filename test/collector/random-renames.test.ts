/** Renames at random, among all else that happens: the replica ends where a restore does. */
import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Materializer } from '../../collector/materialize.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { childOf, ROOT } from '../../shared/path.ts'
import { expectEqual, follow, followedStore } from '../support/followed-store.ts'
import { directoryVersion, type JournalWriter, VOLUME } from '../support/journal-writer.ts'

/** Random histories; more of them on demand. */
const RUNS = Number(process.env['PACSIMILE_RUNS'] ?? 20)

const NAMES = ['a', 'b', 'c', 'd', 'e']
const step = fc.record({
  op: fc.oneof(
    { weight: 6, arbitrary: fc.constant('rename') },
    { weight: 4, arbitrary: fc.constantFrom('file', 'dir', 'remove', 'touch', 'link', 'torn') },
    { weight: 2, arbitrary: fc.constantFrom('reach', 'reach', 'reach', 'sweep', 'break', 'mend') },
  ),
  which: fc.nat(),
  where: fc.nat(),
  name: fc.constantFrom(...NAMES),
})

describe('renames at random', () => {
  it('lead the replica to the same tree as a restore', async () => {
    const renamed = vi.spyOn(Materializer.prototype, 'renameDirectory')
    onTestFinished(() => {
      vi.restoreAllMocks()
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
        const site = await followedStore((writer) => {
          for (const name of ['a', 'b', 'a/a', 'a/b', 'b/c', 'b/c/d']) {
            writer.put(name, directoryVersion())
            writer.file(`${name}/f`, Buffer.from(name))
            writer.file(`${name}/l`, Buffer.from('linked'), { inode: 42n, links: 9 })
          }
        })
        const { writer, store } = site
        const unbroken = store.history.readChunk.bind(store.history)
        const mend = (): void => {
          store.history.readChunk = unbroken
        }
        let count = 0
        for (const { op, which, where, name } of steps) {
          const before = writer.written.length
          count += 1
          if (op === 'reach') {
            await follow(site)
            continue
          }
          if (op === 'mend') mend()
          if (op === 'break')
            store.history.readChunk = () => {
              throw new PacsimileError('damage', 'not now')
            }
          if (op === 'mend' || op === 'break') continue
          const tree = store.newestTree(writer)
          const directories = tree.filter(({ version }) => version.kind === 'directory').map(({ path }) => path)
          const parent = directories[where % directories.length] ?? ROOT
          // Mostly directories, sometimes what lies in them.
          const among = (which % 5 === 0 ? tree.map((entry) => entry.path) : directories).filter((path) => path !== ROOT)
          write(writer, { op, path: childOf(parent, name), from: among[which % among.length] ?? name }, count)
          if (!(await store.accepts(writer))) writer.undo(before)
        }
        // What is torn is left out of a restore, and stood in for in the replica: at the end there is none.
        for (const { path, version } of store.newestTree(writer))
          if (version.kind === 'file' && version.consistency === 'torn') writer.put(path, { ...version, consistency: 'stable' })
        await follow(site)
        mend()
        // What could not be written is tried again when there is nothing else to do, or when it is put again.
        const problems = site.running.replica.problems(writer.agent, VOLUME)
        for (const { path, version } of store.newestTree(writer)) if (problems.has(path)) writer.put(path, version)
        await follow(site)
        expect([...problems]).toEqual([])
        await expectEqual(site)
        await site.running.stop()
        await site.store.stop()
      }),
      { numRuns: RUNS },
    )
    expect(renamed.mock.results.filter(({ value }) => value === true).length).toBeGreaterThan(RUNS)
  }, 120_000)
})

function write(writer: JournalWriter, { op, path, from }: { op: string; path: string; from: string }, count: number): void {
  switch (op) {
    case 'rename':
      writer.rename(from, path)
      return
    case 'file':
      writer.file(path, Buffer.from(`${path} ${count}`))
      return
    case 'torn':
      writer.file(path, Buffer.from(`torn ${count % 2}`), { consistency: 'torn' })
      return
    case 'dir':
      writer.put(path, directoryVersion({ mtimeNs: BigInt(count) * 1_000_000_007n }))
      return
    case 'remove':
      writer.remove(from)
      return
    case 'touch':
      writer.file(path, Buffer.from('same content'), { mtimeNs: BigInt(count) })
      return
    case 'sweep':
      writer.append({ kind: 'sweep', volume: VOLUME, since: Math.max(1, writer.end.seq - 12) })
      writer.put('', directoryVersion())
      return
    default:
      writer.file(path, Buffer.from('linked'), { inode: 42n, links: 9, mtimeNs: BigInt(count % 2) })
  }
}
