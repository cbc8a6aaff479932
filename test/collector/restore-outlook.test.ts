/** What a restore would do, against what it does, and how the sample is chosen that it is estimated from. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { restore } from '../../collector/restore.ts'
import { ContentSample } from '../../collector/restore-estimate.ts'
import { planRestore, type RestoreRequest, selectionOf } from '../../collector/restore-plan.ts'
import { parentOf, type RelativePath, ROOT } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'

async function archive(): Promise<{ store: Store; writer: JournalWriter; request: RestoreRequest }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  for (const directory of ['a', 'a/deep', 'a/deep/er', 'a-', 'b', 'empty']) writer.put(directory, directoryVersion())
  for (const path of ['a/deep/er/x.dcm', 'a/deep/y.dcm', 'a/z.txt', 'a-/x.dcm', 'b/x.txt', 'x.dcm'])
    writer.file(path, Buffer.from(`content of ${path}`), path === 'b/x.txt' ? { consistency: 'torn' } : {})
  writer.put('b/link', symlinkVersion('x.txt'))
  writer.put('b/pipe', { ...directoryVersion(), kind: 'fifo' })
  const { record } = writer.file('b/lost', Buffer.from('lost'), { consistency: 'unverified' })
  writer.append({ kind: 'lost', volume: VOLUME, path: 'b/lost' as RelativePath, lostSeq: record.seq })
  await store.send(writer)
  const point = await store.history.point(writer.agent, VOLUME, { kind: 'head' })
  const options = { dryRun: true, setuid: false, special: false, torn: false }
  return { store, writer, request: { agent: writer.agent, volume: VOLUME, path: ROOT, point, to: `${scratchDirectory()}/to`, ...options } }
}

describe('the outlook of a restore', () => {
  it('has the numbers of the restore, and what that will miss', async () => {
    const { store, request } = await archive()
    for (const change of [{}, { include: '**/*.dcm' }, { exclude: 'a' }, { torn: true, special: true, path: 'b' as RelativePath }]) {
      const asked = { ...request, ...change, to: `${scratchDirectory()}/to` }
      const outlook = await restore(store.history, asked)
      const report = await restore(store.history, { ...asked, dryRun: false })
      const numbers = ({ files, directories, symlinks, others, bytes, torn, unverified, momentMs }: typeof report): object => ({
        files,
        directories,
        symlinks,
        others,
        bytes,
        torn,
        unverified,
        momentMs,
      })
      expect(numbers(outlook)).toEqual(numbers(report))
      expect(outlook.missing).toEqual(report.missing)
      expect(outlook.dryRun).toBe(true)
      expect(outlook.estimate?.sampledBytes).toBeGreaterThan(0)
    }
    await expect(restore(store.history, { ...request, path: 'nowhere' as RelativePath })).rejects.toMatchObject({ code: 'not-found' })
  })

  it('chooses what matches, what was asked for, and the directories above, as a look at all paths does', async () => {
    const { store, request } = await archive()
    const all = (await planRestore(store.history, request)).entries.map(({ path }) => path)
    const pattern = fc.constantFrom(undefined, '*', '**/x.*', 'a', 'a/deep/er', '**/er/*', 'b/*', 'a-', '**/nothing')
    await fc.assert(
      fc.asyncProperty(pattern, pattern, fc.constantFrom('', 'a', 'a/deep'), async (include, exclude, path) => {
        const asked = { ...request, include, exclude, path: path as RelativePath }
        const isSelected = selectionOf(asked)
        const wanted = new Set<RelativePath | undefined>([asked.path])
        for (const each of all)
          if (isSelected(each)) for (let at: RelativePath | undefined = each; at !== undefined; at = parentOf(at)) wanted.add(at)
        const below = all.filter((each) => path === '' || each === path || each.startsWith(`${path}/`))
        const { entries } = await planRestore(store.history, asked)
        expect(entries.map((entry) => entry.path)).toEqual(below.filter((each) => wanted.has(each)))
      }),
      { numRuns: 150 },
    )
  })
})

describe('the sample of an estimate', () => {
  it('is of chunks from all over the files, however many they are, and of few bytes', () => {
    for (const files of [0, 1, 5, 64, 127, 128, 1000, 100_000]) {
      const sample = new ContentSample()
      const writer = new JournalWriter()
      const chunk = writer.fileVersion(Buffer.from('x'))
      for (let i = 0; i < files; i++) sample.add({ ...chunk, size: 1000, chunks: [{ digest: chunk.digest, length: i + 1 }] })
      expect(sample.bytes).toBe(files * 1000)
      // Their lengths say which they are.
      const numbers = sample.chunks().map(({ length }) => length - 1)
      expect(numbers.length).toBe(Math.min(files, 64))
      for (const [i, number] of numbers.entries()) expect(Math.abs(number - (i * files) / numbers.length)).toBeLessThanOrEqual(files / 32)
    }
    const large = new ContentSample()
    const { digest, ...version } = new JournalWriter().fileVersion(Buffer.from('x'))
    for (let i = 0; i < 200; i++) large.add({ ...version, digest, chunks: [{ digest, length: 1 << 20 }] })
    expect(large.chunks().length).toBe(16)
  })
})
