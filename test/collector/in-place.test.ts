/** Restoring into a directory that has content. */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { RelativePath } from '../../shared/path.ts'
import { changeTree, growTree } from '../support/changing-tree.ts'
import { type Archive, archiveOf, copyOf, restoreInto, studies, undo, write } from '../support/in-place-archive.ts'
import { directoryVersion, symlinkVersion } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const ROUNDS = process.env['PACSIMILE_SOAK'] === undefined ? 6 : 200

/** A directory that was there and is there; the whole, where there is none. */
function partOf({ truth, live }: Archive, random: Random): string {
  const now = walkTree(live)
  const both = [...truth].flatMap(([path, { kind }]) => (kind === 'directory' && now.get(path)?.kind === 'directory' ? [path] : []))
  return both[random.below(both.length)] ?? ''
}

/** What is in a directory, whatever else has the same inode. */
function below(tree: Copy, directory: string): Copy {
  const part = [...tree].filter(([path]) => path === directory || path.startsWith(`${directory}/`))
  return new Map(part.map(([path, entry]) => [path, { ...entry, sameAs: '' }]))
}

describe(`a restore in place (PACSIMILE_SEED=${SEED})`, () => {
  it(`makes of ${ROUNDS} random changes of a random tree what it was, and its undo makes of it what it had become`, {
    timeout: 600_000,
  }, async () => {
    const random = new Random(SEED)
    for (let round = 0; round < ROUNDS; round++) {
      const at = await archiveOf((directory) => {
        growTree(directory, random, 8, 4)
        changeTree(directory, random, 20)
      })
      changeTree(at.live, random, 1 + random.below(40))
      const before = walkTree(at.live)
      const part = round % 3 === 0 ? '' : partOf(at, random)
      const to = part === '' ? at.live : join(at.live, part)
      const report = await restoreInto(at, to, { path: part as RelativePath })
      expect(report.missing).toEqual([])
      const [expected, found] = part === '' ? [at.truth, archiveTree(at.live)] : [below(at.truth, part), below(archiveTree(at.live), part)]
      expect(differences(expected, found), `round ${round}, ${part}`).toEqual([])
      const { id } = report.inPlace
      if (id === undefined) continue
      expect(await undo(to, id)).toMatchObject({ done: true, troubles: [] })
      expect(differences(before, walkTree(at.live)), `undo of round ${round}, ${part}`).toEqual([])
    }
  })

  it('keeps what is right by its content whatever its times say, and writes nothing where nothing differs', async () => {
    const at = await archiveOf(studies)
    const { ino } = statSync(join(at.live, 'a/1'))
    utimesSync(join(at.live, 'a/1'), 1, 1)
    const report = await restoreInto(at, at.live)
    expect(report.inPlace).toMatchObject({ metadata: ['a/1'], replaced: [], added: [], removed: [], bytesToWrite: 0 })
    expect(statSync(join(at.live, 'a/1')).ino).toBe(ino)
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    const again = await restoreInto(at, at.live)
    expect(again.inPlace).toMatchObject({ id: undefined, metadata: [], replaced: [] })
    expect(again.kept).toBe(6)
  })

  it('finds content that was changed behind the same size and times', async () => {
    const at = await archiveOf(studies)
    const file = join(at.live, 'b/2')
    const { atime, mtime } = statSync(file)
    write(at.live, 'b/2', 'x'.repeat(statSync(file).size))
    utimesSync(file, atime, mtime)
    expect((await restoreInto(at, at.live)).inPlace.replaced).toEqual(['b/2'])
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
  })

  it('says before it does anything what it would do, and then has done nothing', async () => {
    const at = await archiveOf(studies)
    write(at.live, 'a/1', 'newer')
    rmSync(join(at.live, 'a/2'))
    write(at.live, 'a/new', 'was not there')
    mkdirSync(join(at.live, 'c/d'), { recursive: true })
    write(at.live, 'c/d/e', '12345')
    const before = walkTree(at.live)
    const { inPlace, dryRun, estimate } = await restoreInto(at, at.live, { dryRun: true })
    expect(dryRun).toBe(true)
    expect(inPlace).toMatchObject({ id: undefined, replaced: ['a/1'], added: ['a/2'], removed: ['a/new', 'c'], removedPaths: 4 })
    expect(estimate).toMatchObject({ from: 'sample' })
    expect(differences(before, walkTree(at.live))).toEqual([])
  })

  it('leaves what was not there then, but for what --delete and the patterns choose', async () => {
    const at = await archiveOf(studies)
    for (const name of ['a/x.tmp', 'b/x.tmp', 'b/x.keep']) write(at.live, name, name)
    mkdirSync(join(at.live, 'b/new'))
    for (const name of ['b/new/y.tmp', 'b/new/y.keep']) write(at.live, name, name)
    write(at.live, 'a/1', 'newer')
    write(at.live, 'b/1', 'newer')
    const without = await restoreInto(at, copyOf(at.live), { delete: false })
    expect(without.inPlace).toMatchObject({ removed: [], others: 4 })
    expect(existsSync(join(without.to, 'b/new/y.tmp'))).toBe(true)
    expect(readFileSync(join(without.to, 'b/1'), 'utf8')).not.toBe('newer')

    const chosen = await restoreInto(at, copyOf(at.live), { include: 'b', exclude: '**/*.keep' })
    expect(chosen.inPlace.removed).toEqual(['b/new/y.tmp', 'b/x.tmp'])
    const left = [...archiveTree(chosen.to).keys()].filter((path) => !at.truth.has(path))
    expect(left).toEqual(['a/x.tmp', 'b/new', 'b/new/y.keep', 'b/x.keep'])
    expect(readFileSync(join(chosen.to, 'a/1'), 'utf8')).toBe('newer')
    expect(readFileSync(join(chosen.to, 'b/1'), 'utf8')).not.toBe('newer')
  })

  it('restores a directory or a file of the volume into a directory of its own', async () => {
    const at = await archiveOf(studies)
    write(at.live, 'a/1', 'newer')
    const directory = await restoreInto(at, join(at.live, 'a'), { path: 'a' as RelativePath })
    expect(directory.inPlace).toMatchObject({ replaced: ['a/1'] })
    expect(archiveTree(join(at.live, 'a')).get('1')).toEqual({ ...at.truth.get('a/1'), sameAs: '1' })
    write(at.live, 'b/2', 'newer')
    write(at.live, 'b/other', 'stays')
    const file = await restoreInto(at, join(at.live, 'b'), { path: 'b/2' as RelativePath })
    expect(file.inPlace).toMatchObject({ replaced: ['b/2'], removed: [] })
    expect(readFileSync(join(at.live, 'b/other'), 'utf8')).toBe('stays')
    await undo(join(at.live, 'b'), file.inPlace.id)
    expect(readFileSync(join(at.live, 'b/2'), 'utf8')).toBe('newer')
  })

  it('parts what became one file, and joins what became two', async () => {
    const at = await archiveOf((directory) => {
      studies(directory)
      linkSync(join(directory, 'a/1'), join(directory, 'b/link'))
      write(directory, 'a/same', 'same')
      write(directory, 'b/same', 'same')
    })
    rmSync(join(at.live, 'b/link'))
    execFileSync('cp', ['-p', join(at.live, 'a/1'), join(at.live, 'b/link')])
    rmSync(join(at.live, 'b/same'))
    linkSync(join(at.live, 'a/same'), join(at.live, 'b/same'))
    // The file that stays is given the time of then, under both its names.
    utimesSync(join(at.live, 'a/1'), 5, 5)
    const before = walkTree(at.live)
    const report = await restoreInto(at, at.live)
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    expect(await undo(at.live, report.inPlace.id)).toMatchObject({ troubles: [] })
    expect(differences(before, walkTree(at.live))).toEqual([])
  })

  it('does not take a directory that is not empty for a file, unless it is told to', async () => {
    const at = await archiveOf(studies)
    rmSync(join(at.live, 'a/1'))
    mkdirSync(join(at.live, 'a/1'))
    write(at.live, 'a/1/inside', 'x')
    const careful = await restoreInto(at, copyOf(at.live), { delete: false })
    expect(careful.missing).toMatchObject([{ path: 'a/1', cause: 'refused' }])
    const before = walkTree(at.live)
    const { inPlace } = await restoreInto(at, at.live)
    expect(inPlace.replaced).toEqual(['a/1'])
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    await undo(at.live, inPlace.id)
    expect(differences(before, walkTree(at.live))).toEqual([])
  })

  it('never passes through a symlink that stands in the target', async () => {
    const at = await archiveOf(studies)
    const outside = scratchDirectory()
    for (const name of ['1', '2', '3', 'other']) write(outside, name, `outside ${name}`)
    renameSync(join(at.live, 'a'), join(at.live, 'moved'))
    symlinkSync(outside, join(at.live, 'a'))
    const seen = walkTree(outside)
    const { inPlace } = await restoreInto(at, at.live)
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    expect(differences(seen, walkTree(outside))).toEqual([])
    await undo(at.live, inPlace.id)
    expect(differences(seen, walkTree(outside))).toEqual([])
  })

  it('does not write into its own undo place, whatever the history names', async () => {
    const at = await archiveOf(studies)
    const name = '.pacsimile-restore-0123456789ab'
    at.writer.put(name, directoryVersion())
    at.writer.file(`${name}/note.json`, Buffer.from('{}'))
    await at.store.send(at.writer)
    const { missing } = await restoreInto(at, at.live)
    expect(missing.map(({ path }) => path)).toEqual([name, `${name}/note.json`])
    expect(existsSync(join(at.live, name))).toBe(false)
  })

  it('does not follow a symlink of the history that has files below it', async () => {
    const at = await archiveOf(studies)
    const outside = scratchDirectory()
    for (const name of ['1', '2', '3']) write(outside, name, `outside ${name}`)
    for (const name of ['1', '2', '3']) write(at.live, `a/${name}`, `newer ${name}`)
    const seen = walkTree(outside)
    // No collector takes such records in: it is the source that lies.
    const real = at.store.history.treeGroups.bind(at.store.history)
    vi.spyOn(at.store.history, 'treeGroups').mockImplementation(async function* (...asked) {
      for await (const group of real(...asked))
        yield group.map((entry) => (entry.path === 'a' ? { ...entry, version: symlinkVersion(outside) } : entry))
    })
    const before = walkTree(at.live)
    const { missing, inPlace } = await restoreInto(at, at.live)
    expect(missing.map(({ path }) => path)).toEqual(['a/1', 'a/2', 'a/3'])
    expect(differences(seen, walkTree(outside))).toEqual([])
    await undo(at.live, inPlace.id)
    expect(differences(before, walkTree(at.live))).toEqual([])
    expect(differences(seen, walkTree(outside))).toEqual([])
  })

  it('says which files are open for writing', async () => {
    const at = await archiveOf(studies)
    write(at.live, 'a/1', 'newer')
    const open = openSync(join(at.live, 'a/1'), 'r+')
    const { inPlace } = await restoreInto(at, at.live)
    closeSync(open)
    expect(inPlace.inUse).toEqual(['a/1'])
  })

  it('is refused in the directory of the replica, and where there is none', async () => {
    const at = await archiveOf(studies)
    vi.spyOn(at.store.history, 'replicaDirectory').mockResolvedValue(at.live)
    await expect(restoreInto(at, at.live)).rejects.toMatchObject({ code: 'usage' })
    await expect(restoreInto(at, join(at.live, 'a'))).rejects.toMatchObject({ code: 'usage' })
    await expect(restoreInto(at, join(at.live, 'nothing'))).rejects.toMatchObject({ code: 'not-found' })
  })
})
