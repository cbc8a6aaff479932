/** Restores in place, and into new directories, where the system says no: each refusal is told, and everything else is restored. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { undoRestore } from '../../collector/undo.ts'
import { UndoPlace } from '../../collector/undo-place.ts'
import type { RelativePath } from '../../shared/path.ts'
import { canMount } from '../support/image-filesystem.ts'
import { JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { recordTree } from '../support/recorded-tree.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { SmallDisk } from '../support/small-disk.ts'
import { Store } from '../support/store.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const DISK_BYTES = 24 << 20
const IMAGE_BYTES = 50_000

interface Archive {
  readonly store: Store
  readonly writer: JournalWriter
  readonly source: string
}

/** Two studies of `images` images each. */
async function archiveOf(images: number, bytes: number): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const random = new Random(11)
  const source = join(scratchDirectory(), 'source')
  for (const study of ['a', 'b']) {
    mkdirSync(join(source, study), { recursive: true })
    for (let i = 0; i < images; i++) writeFileSync(join(source, study, `${i}`), random.bytes(bytes))
  }
  recordTree(writer, source)
  await store.send(writer)
  return { store, writer, source }
}

async function restoreInto({ store, writer }: Archive, to: string, change: Partial<RestoreRequest> = {}): Promise<RestoreReport> {
  const point = await store.history.point(writer.agent, VOLUME, { kind: 'head' })
  const whole = { agent: writer.agent, volume: VOLUME, path: '' as RelativePath, point, to, inPlace: true, delete: true }
  return restore(store.history, { ...whole, dryRun: false, setuid: false, special: false, torn: false, ...change })
}

const missingOf = ({ missing }: RestoreReport): string[] => missing.map(({ path }) => path)

describe.skipIf(!canMount)('a disk', () => {
  it('that is full before everything is written has nothing changed on it, and the same restore goes on when there is room', async () => {
    const at = await archiveOf(6, IMAGE_BYTES)
    const disk = new SmallDisk(DISK_BYTES)
    const live = join(disk.directory, 'live')
    mkdirSync(live)
    writeFileSync(join(live, 'other'), 'x'.repeat(100))
    disk.fill()
    rmSync(join(live, 'other'))
    writeFileSync(join(live, 'other'), 'y')
    const before = walkTree(live)
    await expect(restoreInto(at, live)).rejects.toMatchObject({ code: 'space', message: expect.stringContaining('nothing of') as string })
    expect([...archiveTree(live).keys()]).toEqual([...before.keys()])
    disk.free()
    const { inPlace, missing } = await restoreInto(at, live)
    expect(missing).toEqual([])
    expect(differences(walkTree(at.source), archiveTree(live))).toEqual([])
    await undoRestore(live, inPlace?.id ?? '', false)
    expect(differences(before, walkTree(live))).toEqual([])
  })

  it('that is read-only refuses at once, in place or not, and its plan can be seen all the same', async () => {
    const at = await archiveOf(2, 1000)
    const disk = new SmallDisk(DISK_BYTES)
    const live = join(disk.directory, 'live')
    mkdirSync(live)
    writeFileSync(join(live, 'other'), 'x')
    expect(disk.remount('ro')).toBe(true)
    const plan = await restoreInto(at, live, { dryRun: true })
    expect(plan.inPlace).toMatchObject({ added: expect.arrayContaining(['a', 'a/0']) as string[], removed: ['other'] })
    const refused = { code: 'io', message: expect.stringContaining('EROFS') as string }
    await expect(restoreInto(at, live)).rejects.toMatchObject(refused)
    await expect(restoreInto(at, join(disk.directory, 'new'), { inPlace: false, delete: false })).rejects.toMatchObject(refused)
    expect(readdirSync(live)).toEqual(['other'])
  })

  it('that does not let a file or a directory be changed has the rest restored, and is taken back', async () => {
    const at = await archiveOf(2, 1000)
    const disk = new SmallDisk(DISK_BYTES)
    const live = join(disk.directory, 'live')
    execFileSync('cp', ['-a', at.source, live])
    for (const name of ['a/0', 'a/1', 'b/0', 'b/1']) writeFileSync(join(live, name), `newer ${name}`)
    writeFileSync(join(live, 'b/more'), 'x')
    const before = walkTree(live)
    const immutable = ['a/0', 'b'].map((name) => join(live, name))
    execFileSync('chattr', ['+i', ...immutable])
    onTestFinished(() => {
      spawnSync('chattr', ['-i', ...immutable])
    })
    const report = await restoreInto(at, live)
    expect(new Set(missingOf(report))).toEqual(new Set(['a/0', 'b', 'b/0', 'b/1', 'b/more']))
    expect(readFileSync(join(live, 'a/1'))).toEqual(readFileSync(join(at.source, 'a/1')))
    expect(readFileSync(join(live, 'a/0'), 'utf8')).toBe('newer a/0')
    execFileSync('chattr', ['-i', ...immutable])
    const { inPlace } = await restoreInto(at, live)
    expect(differences(walkTree(at.source), archiveTree(live))).toEqual([])
    for (const id of [inPlace?.id, report.inPlace?.id]) expect(await undoRestore(live, id ?? '', false)).toMatchObject({ done: true })
    expect(differences(before, walkTree(live))).toEqual([])
  })

  it('without xattrs gets everything else, and each file that lacks one is told', async () => {
    const at = await archiveOf(1, 1000)
    at.writer.file('noted', Buffer.from('x'), { xattrs: [{ name: 'user.note', value: 'v' }] })
    await at.store.send(at.writer)
    const mounted = join(scratchDirectory(), 'ram')
    mkdirSync(mounted)
    execFileSync('mount', ['-t', 'ramfs', 'none', mounted])
    onTestFinished(() => {
      spawnSync('umount', ['-l', mounted])
    })
    for (const inPlace of [true, false]) {
      const to = join(mounted, inPlace ? 'live' : 'new')
      if (inPlace) mkdirSync(to)
      const report = await restoreInto(at, to, { inPlace, delete: inPlace })
      expect(report.missing).toEqual([])
      expect(report.shortcomings).toMatchObject([{ path: 'noted', what: 'xattr' }])
      expect(readFileSync(join(to, 'noted'), 'utf8')).toBe('x')
    }
  })
})

describe.skipIf(process.getuid?.() !== 0)('somebody without rights', () => {
  it('is told what they cannot look into, and has the rest restored', async () => {
    const at = await archiveOf(2, 1000)
    const live = join(scratchDirectory(), 'live')
    execFileSync('cp', ['-a', at.source, live])
    writeFileSync(join(live, 'a/0'), 'newer')
    writeFileSync(join(live, 'b/0'), 'newer')
    const nobody = 65_534
    execFileSync('chown', ['-R', `${nobody}:${nobody}`, join(live, '..'), at.store.directory])
    execFileSync('chown', ['0:0', join(live, 'b')])
    chmodSync(join(live, 'b'), 0o700)
    process.seteuid?.(nobody)
    let report: RestoreReport
    try {
      report = await restoreInto(at, live)
    } finally {
      process.seteuid?.(0)
    }
    expect(new Set(missingOf(report))).toEqual(new Set(['b', 'b/0', 'b/1']))
    expect(report.missing[0]?.reason).toContain('EACCES')
    expect(readFileSync(join(live, 'a/0'))).toEqual(readFileSync(join(at.source, 'a/0')))
    expect(readFileSync(join(live, 'b/0'), 'utf8')).toBe('newer')
  })
})

describe.skipIf(process.getuid?.() !== 0)('an undo place that somebody else has made up', () => {
  it('is none, whatever it says', async () => {
    const at = await archiveOf(1, 100)
    const live = join(scratchDirectory(), 'live')
    execFileSync('cp', ['-a', at.source, live])
    writeFileSync(join(live, 'a/0'), 'newer')
    const { inPlace } = await restoreInto(at, live)
    const id = inPlace?.id ?? ''
    const [place] = UndoPlace.in(live).places
    execFileSync('chown', ['65534', place?.directory ?? ''])
    await expect(undoRestore(live, id, true)).rejects.toMatchObject({ code: 'not-found' })
    expect(UndoPlace.in(live).places).toEqual([])
    execFileSync('chown', ['0', place?.directory ?? ''])
    chmodSync(place?.directory ?? '', 0o770)
    await expect(undoRestore(live, id, true)).rejects.toMatchObject({ code: 'not-found' })
    chmodSync(place?.directory ?? '', 0o700)
    // Nor is one that is reached through a symlink, or by another name.
    const elsewhere = scratchDirectory()
    execFileSync('ln', ['-s', place?.directory ?? '', join(elsewhere, place?.path ?? '')])
    for (const name of [id, `../${id}`, `x/../../${live}/${id}`])
      await expect(undoRestore(elsewhere, name, true)).rejects.toMatchObject({ code: 'not-found' })
    expect(await undoRestore(live, id, false)).toMatchObject({ done: true })
    expect(readFileSync(join(live, 'a/0'), 'utf8')).toBe('newer')
  })
})

const SWAPPER = `
const { renameSync } = require('node:fs')
const [directory, link] = process.argv.slice(1)
console.log('swapping')
for (;;) {
  try { renameSync(directory, directory + '-aside') } catch {}
  try { renameSync(link, directory) } catch {}
  try { renameSync(directory, link) } catch {}
  try { renameSync(directory + '-aside', directory) } catch {}
}
`

describe('a process that puts a symlink where a directory was', () => {
  it.each([true, false])('leads no restore out of its target (in place: %s)', async (inPlace) => {
    const at = await archiveOf(40, 2000)
    const outside = scratchDirectory()
    for (let i = 0; i < 40; i++) writeFileSync(join(outside, `${i}`), `outside ${i}`)
    const seen = walkTree(outside)
    const scratch = scratchDirectory()
    const to = join(scratch, 'to')
    mkdirSync(to)
    if (inPlace) execFileSync('cp', ['-a', `${at.source}/.`, to])
    if (inPlace) for (let i = 0; i < 40; i++) writeFileSync(join(to, `a/${i}`), 'newer')
    execFileSync('ln', ['-s', outside, join(scratch, 'link')])
    const swapper = spawn(process.execPath, ['-e', SWAPPER, join(to, 'a'), join(scratch, 'link')], { stdio: ['ignore', 'pipe', 'ignore'] })
    let isSwapping = false
    swapper.stdout.once('data', () => {
      isSwapping = true
    })
    try {
      await until('the process', 20, () => isSwapping || undefined)
      // What comes of the paths is luck, and may be a refusal of the whole; where it does not go is none.
      const report = await restoreInto(at, to, { inPlace, delete: false }).catch((error: unknown) => error)
      expect(report).toBeDefined()
      const [place] = UndoPlace.in(to).places
      if (place !== undefined) await undoRestore(to, place.id, true)
    } finally {
      swapper.kill('SIGKILL')
    }
    expect(differences(seen, walkTree(outside))).toEqual([])
  })
})
