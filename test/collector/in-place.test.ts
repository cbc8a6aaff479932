/** Restoring into a directory that has content, and taking that back. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { InPlaceReport } from '../../collector/in-place-report.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { forgetRestore, type UndoReport, undoRestore } from '../../collector/undo.ts'
import { UndoPlace } from '../../collector/undo-place.ts'
import { libc } from '../../shared/libc.ts'
import type { RelativePath } from '../../shared/path.ts'
import { changeTree, growTree } from '../support/changing-tree.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { recordTree } from '../support/recorded-tree.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const ROUNDS = process.env['PACSIMILE_SOAK'] === undefined ? 6 : 200

interface Archive {
  readonly store: Store
  readonly writer: JournalWriter
  /** What the history says. */
  readonly truth: Copy
  /** A copy of it, to be changed and restored into. */
  readonly live: string
}

/** The history of what `make` makes in a directory. */
async function archiveOf(make: (directory: string) => void): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const source = join(scratchDirectory(), 'source')
  mkdirSync(source)
  make(source)
  recordTree(writer, source)
  await store.send(writer)
  return { store, writer, truth: walkTree(source), live: copyOf(source) }
}

function copyOf(directory: string): string {
  const copy = join(scratchDirectory(), 'live')
  execFileSync('cp', ['-a', directory, copy])
  return copy
}

type Change = Partial<RestoreRequest>

async function restoreInto(at: Archive, to: string, change: Change = {}): Promise<RestoreReport & { readonly inPlace: InPlaceReport }> {
  const point = await at.store.history.point(at.writer.agent, VOLUME, { kind: 'head' })
  const whole = { agent: at.writer.agent, volume: VOLUME, path: '' as RelativePath, point, to, inPlace: true, delete: true }
  const report = await restore(at.store.history, { ...whole, dryRun: false, setuid: false, special: false, torn: false, ...change })
  if (report.inPlace === undefined) throw new Error('it was not in place')
  return { ...report, inPlace: report.inPlace }
}

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

function undo(to: string, id: string | undefined, force = false): Promise<UndoReport> {
  return undoRestore(to, id ?? '', force)
}

const write = (directory: string, name: string, content: string): void => writeFileSync(join(directory, name), content)

/** Two studies of three images. */
function studies(directory: string): void {
  for (const study of ['a', 'b']) {
    mkdirSync(join(directory, study))
    for (const image of ['1', '2', '3']) write(directory, `${study}/${image}`, `${study}${image} `.repeat(500))
  }
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
    const real = at.store.history.tree.bind(at.store.history)
    vi.spyOn(at.store.history, 'tree').mockImplementation(async function* (...asked) {
      for await (const entry of real(...asked)) yield entry.path === 'a' ? { ...entry, version: symlinkVersion(outside) } : entry
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

describe('a restore in place that is cut short', () => {
  /** Fails as a power cut does, from the given rename on, and says how many there were. */
  function cutAt(limit: number): { count: () => number; mend: () => void } {
    let count = 0
    const spies = (['exchange', 'renameToNew'] as const).map((name) => {
      const real = libc?.[name] as (a: string, b: string) => boolean
      return vi.spyOn(libc as NonNullable<typeof libc>, name).mockImplementation((a, b) => {
        count += 1
        if (count >= limit) throw new RangeError('the power failed')
        return real(a, b)
      })
    })
    return { count: () => count, mend: () => spies.forEach((spy) => spy.mockRestore()) }
  }

  function spoil(live: string): void {
    write(live, 'a/1', 'newer')
    rmSync(join(live, 'a/2'))
    write(live, 'a/new', 'was not there')
    rmSync(join(live, 'b'), { recursive: true })
    write(live, 'b', 'a file now')
    mkdirSync(join(live, 'c'))
    write(live, 'c/d', 'x')
    chmodSync(join(live, 'a/3'), 0o600)
  }

  it('at any of its renames goes on, or goes back', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const cut = cutAt(limit)
      const whole = await restoreInto(at, live).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (whole) {
        expect(limit).toBeGreaterThan(8)
        return
      }
      const [place] = UndoPlace.in(live).places
      expect(place?.note.state).toBe('swapping')
      if (limit % 2 === 0) {
        expect((await restoreInto(at, live)).inPlace).toMatchObject({ id: place?.id, bytesToWrite: undefined })
        expect(differences(at.truth, archiveTree(live)), `cut at ${limit}`).toEqual([])
      }
      await undo(live, place?.id)
      expect(differences(before, walkTree(live)), `cut at ${limit}, undone`).toEqual([])
    }
  })

  it('at any rename of its undo goes on with that, and nothing else begins there', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const { id } = (await restoreInto(at, live)).inPlace
      const cut = cutAt(limit)
      const whole = await undo(live, id).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (!whole) {
        await expect(restoreInto(at, live)).rejects.toMatchObject({ code: 'unfinished' })
        await expect(forgetRestore(live, id ?? '')).rejects.toMatchObject({ code: 'unfinished' })
        expect(await undo(live, id)).toMatchObject({ done: true })
      }
      expect(differences(before, walkTree(live)), `cut at ${limit}`).toEqual([])
      if (whole) {
        expect(limit).toBeGreaterThan(8)
        return
      }
    }
  })

  it('where names cannot be exchanged likewise', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    const moved = (): { mend: () => void } => {
      const spy = vi.spyOn(libc as NonNullable<typeof libc>, 'exchange').mockReturnValue(false)
      return { mend: () => spy.mockRestore() }
    }
    for (let limit = 1; ; limit++) {
      const live = copyOf(at.live)
      const cut = cutAt(limit)
      const plain = moved()
      const whole = await restoreInto(at, live).then(
        () => true,
        () => false,
      )
      cut.mend()
      if (!whole) await restoreInto(at, live)
      plain.mend()
      expect(differences(at.truth, archiveTree(live)), `cut at ${limit}`).toEqual([])
      const [place] = UndoPlace.in(live).places
      await undo(live, place?.id)
      expect(differences(before, walkTree(live)), `cut at ${limit}, undone`).toEqual([])
      if (whole) {
        expect(limit).toBeGreaterThan(10)
        return
      }
    }
  })

  it('while it stages has changed nothing, keeps what it has written, and is not gone on with by another one', async () => {
    const at = await archiveOf(studies)
    spoil(at.live)
    const before = walkTree(at.live)
    const real = at.store.history.chunks.bind(at.store.history)
    let calls = 0
    const chunks = vi.spyOn(at.store.history, 'chunks').mockImplementation(async function* (refs) {
      // The first is for the estimate.
      calls += 1
      let given = 0
      for await (const result of real(refs)) {
        if (calls > 1 && ++given > 2) throw new RangeError('the power failed')
        yield result
      }
    })
    await expect(restoreInto(at, at.live)).rejects.toThrow('the power failed')
    chunks.mockRestore()
    const unchanged = new Map([...archiveTree(at.live)].filter(([path]) => path !== ''))
    expect(differences(new Map([...before].filter(([path]) => path !== '')), unchanged)).toEqual([])
    await expect(restoreInto(at, at.live, { delete: false })).rejects.toMatchObject({ code: 'unfinished' })
    const { inPlace } = await restoreInto(at, at.live)
    expect(differences(at.truth, archiveTree(at.live))).toEqual([])
    await undo(at.live, inPlace.id)
    expect(differences(before, walkTree(at.live))).toEqual([])
  })
})

describe('an undo', () => {
  it('leaves alone what was changed since, and brings back the rest; --force keeps the change aside', async () => {
    const at = await archiveOf(studies)
    for (const name of ['a/1', 'a/2', 'a/3']) write(at.live, name, `newer ${name}`)
    rmSync(join(at.live, 'b'), { recursive: true })
    const { id } = (await restoreInto(at, at.live)).inPlace
    write(at.live, 'a/1', 'newest')
    rmSync(join(at.live, 'a/2'))
    write(at.live, 'b/more', 'made since')
    const first = await undo(at.live, id)
    expect(first.done).toBe(false)
    expect(first.troubles.map(({ path }) => path).sort()).toEqual(['a/1', 'a/2', 'b'])
    expect(readFileSync(join(at.live, 'a/1'), 'utf8')).toBe('newest')
    expect(readFileSync(join(at.live, 'a/3'), 'utf8')).toBe('newer a/3')
    expect(readdirSync(join(at.live, 'b'))).toEqual(['more'])

    expect(await undo(at.live, id, true)).toMatchObject({ done: true, troubles: [] })
    for (const name of ['a/1', 'a/2', 'a/3']) expect(readFileSync(join(at.live, name), 'utf8')).toBe(`newer ${name}`)
    expect(existsSync(join(at.live, 'b'))).toBe(false)
    const [place] = UndoPlace.in(at.live).places
    expect(place?.note.state).toBe('undone-but')
    const aside = [...walkTree(place?.directory ?? '').keys()].filter((path) => path.endsWith('/more'))
    expect(aside, 'what was made since').toHaveLength(1)
    await forgetRestore(at.live, id ?? '')
    expect(readdirSync(at.live)).toEqual(['a'])
  })

  it('can be given up, and then leaves what was restored', async () => {
    const at = await archiveOf(studies)
    write(at.live, 'a/1', 'newer')
    const { id } = (await restoreInto(at, at.live)).inPlace
    await forgetRestore(at.live, id ?? '')
    expect(differences(at.truth, walkTree(at.live))).toEqual([])
    await expect(undo(at.live, id)).rejects.toMatchObject({ code: 'not-found' })
  })
})
