import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { OPEN_DIRECTORY, systemCalls, WORKING_DIRECTORY } from '../../agent/system-calls.ts'
import { ROOT } from '../../shared/path.ts'
import { path } from '../support/agent-parts.ts'
import { changeTree, growTree } from '../support/changing-tree.ts'
import { mountDisk } from '../support/mounted-disk.ts'
import { ofKind, ScannedTree } from '../support/scanned-tree.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const isRoot = process.getuid?.() === 0

/** A walk that relies on what earlier scans have seen. */
const TRUSTING = { bulkInodesMax: 1 }

async function openTree(): Promise<ScannedTree> {
  return ScannedTree.open(scratchDirectory())
}

/** Scans until it tells of no directory that it was not sure of before: the filesystem's clock has to go on for that. */
async function settle(tree: ScannedTree): Promise<void> {
  await expect.poll(() => tree.scan(TRUSTING).then(({ listed }) => listed), { timeout: 15_000 }).toBeGreaterThan(0)
  await expect.poll(() => tree.scan(TRUSTING).then(({ listed }) => listed), { timeout: 15_000 }).toBe(0)
}

async function expectExact(tree: ScannedTree, options: { bulkInodesMax?: number } = {}): Promise<void> {
  const { differences } = await tree.scan(options)
  const found = { changed: ofKind(differences, 'changed'), missing: ofKind(differences, 'missing') }
  expect(found).toEqual(tree.expected())
}

/** Makes directories by descriptors: no path string could name the deepest. @returns the deepest path */
function makeDeep(root: string, bytes: number): string {
  if (systemCalls === undefined) throw new Error('Linux only')
  const names: string[] = []
  let fd = systemCalls.openat(WORKING_DIRECTORY, root, OPEN_DIRECTORY)
  for (let length = 0; length < bytes; length += 251) {
    const name = `${names.length}`.padEnd(250, 'x')
    mkdirSync(`/proc/self/fd/${fd}/${name}`)
    const next = systemCalls.openat(fd, name, OPEN_DIRECTORY)
    systemCalls.close(fd)
    fd = next
    names.push(name)
  }
  writeFileSync(`/proc/self/fd/${fd}/bottom`, 'deep')
  systemCalls.close(fd)
  // Removal by path strings would fail as well.
  onTestFinished(() => void spawnSync('rm', ['-rf', root]))
  return [...names, 'bottom'].join('/')
}

describe('a walk by several threads', () => {
  it.each([1, 2, 3])('finds what a naive walk finds, after random changes (seed %i)', async (seed) => {
    const tree = await openTree()
    const random = new Random(seed)
    growTree(tree.root, random, 120, 6)
    const first = await tree.scan()
    expect(ofKind(first.differences, 'changed')).toEqual(tree.expected().changed)
    await tree.capture()
    for (let round = 0; round < 3; round++) {
      changeTree(tree.root, random, 12)
      await expectExact(tree)
      if (round === 1) await tree.capture()
    }
    await tree.capture()
    expect((await tree.scan()).differences).toEqual([])
  })

  it.skipIf(!isRoot).each(['ext4', 'xfs'] as const)('finds the same when it relies on earlier scans (%s)', async (type) => {
    const root = join(mountDisk(type, 400 << 20), 'volume')
    mkdirSync(root)
    const tree = await ScannedTree.open(root)
    const random = new Random(11)
    growTree(root, random, 100, 6)
    await tree.capture()
    await settle(tree)
    for (let round = 0; round < 6; round++) {
      changeTree(root, random, 10)
      await expectExact(tree, TRUSTING)
      await expectExact(tree)
      if (round % 2 === 1) await tree.capture()
      if (round === 3) await settle(tree)
    }
    await tree.capture()
    writeFileSync(join(root, 'unseen'), 'x')
    await tree.capture([path('unseen')])
    expect((await tree.scan(TRUSTING)).differences).toEqual([{ kind: 'changed', path: 'unseen', isNewDirectory: false }])
  })

  it('does a large tree in parts, and each part once', async () => {
    const tree = await openTree()
    growTree(tree.root, new Random(5), 1000, 4)
    await tree.capture()
    // How soon the other threads are there is the system's to say.
    await expect.poll(async () => (await tree.scan()).tasks, { timeout: 15_000 }).toBeGreaterThan(1)
    const { differences, entries } = await tree.scan()
    expect(differences).toEqual([])
    expect(entries).toBe(tree.known.size)
  })

  it('does one large directory in parts', async () => {
    const tree = await openTree()
    for (let i = 0; i < 12_000; i++) writeFileSync(join(tree.root, `${i}`), '')
    await tree.capture()
    for (let i = 0; i < 12_000; i += 1000) rmSync(join(tree.root, `${i}`))
    writeFileSync(join(tree.root, '5555-'), '')
    await expectExact(tree)
    await expect.poll(async () => (await tree.scan()).tasks, { timeout: 15_000 }).toBeGreaterThan(1)
    await expectExact(tree)
  })

  it('takes names of any bytes, long names, and paths longer than PATH_MAX', async () => {
    const tree = await openTree()
    for (const name of [
      Buffer.from([0xff, 0xfe, 0x41]),
      Buffer.from([0x01]),
      Buffer.from('\n \\ "'),
      Buffer.alloc(255, 0xe4),
      Buffer.from('a-'),
      Buffer.from('a.b'),
    ])
      writeFileSync(Buffer.concat([Buffer.from(`${tree.root}/`), name]), 'x')
    mkdirSync(join(tree.root, 'a'))
    writeFileSync(join(tree.root, 'a', 'x'), 'x')
    const deepest = makeDeep(tree.root, 3900)
    expect(`${tree.root}/${deepest}`.length).toBeGreaterThan(3950)
    await expectExact(tree)
    await tree.capture()
    expect(tree.known.has(path(deepest))).toBe(true)
    expect((await tree.scan()).differences).toEqual([])
  })

  it('says that it cannot tell what no record could name, and goes on beside it', async () => {
    const tree = await openTree()
    makeDeep(tree.root, 4200)
    writeFileSync(join(tree.root, 'z'), 'x')
    const { differences } = await tree.scan()
    const [closed, ...others] = differences.filter(({ kind }) => kind === 'closed')
    expect(closed).toMatchObject({ reason: 'a path below it is longer than 4096 bytes' })
    expect(others).toEqual([])
    expect(ofKind(differences, 'changed')).toContain('z')
  })

  it('goes back up from far below', async () => {
    const tree = await openTree()
    const deep = Array.from({ length: 200 }, (_, i) => `d${i}`)
    mkdirSync(join(tree.root, ...deep), { recursive: true })
    for (let i = 0; i < deep.length; i += 20) writeFileSync(join(tree.root, ...deep.slice(0, i), 'z-last'), 'x')
    await expectExact(tree)
    await tree.capture()
    for (let i = 0; i < deep.length; i += 40) rmSync(join(tree.root, ...deep.slice(0, i), 'z-last'))
    await expectExact(tree)
  })

  it('does not enter what is ignored, and says nothing of it', async () => {
    const tree = await openTree()
    growTree(tree.root, new Random(6), 20, 3)
    mkdirSync(join(tree.root, 'state'))
    writeFileSync(join(tree.root, 'state', 'x'), 'x')
    await tree.capture()
    tree.ignored = [path('state')]
    rmSync(join(tree.root, 'state', 'x'))
    mkdirSync(join(tree.root, 'state', 'y'))
    expect((await tree.scan()).differences).toEqual([])
  })

  it('follows no symlink', async () => {
    const tree = await openTree()
    const elsewhere = scratchDirectory()
    writeFileSync(join(elsewhere, 'secret'), 'x')
    mkdirSync(join(tree.root, 'd'))
    writeFileSync(join(tree.root, 'd', 'secret'), 'x')
    await tree.capture()
    rmSync(join(tree.root, 'd'), { recursive: true })
    symlinkSync(elsewhere, join(tree.root, 'd'))
    const { differences } = await tree.scan()
    expect(differences).toEqual([
      { kind: 'changed', path: '', isNewDirectory: false },
      { kind: 'changed', path: 'd', isNewDirectory: false },
    ])
    const below = await tree.scan({ path: path('d/secret') })
    expect(below.differences).toEqual([{ kind: 'missing', path: 'd/secret' }])
  })

  it('scans a subtree, one that is not there, and direct children only', async () => {
    const tree = await openTree()
    for (const name of ['a/b/c', 'a/d', 'e']) mkdirSync(join(tree.root, name), { recursive: true })
    for (const name of ['a/b/c/1', 'a/b/2', 'a/3', 'e/4']) writeFileSync(join(tree.root, name), 'x')
    await tree.capture()
    rmSync(join(tree.root, 'a/b/c/1'))
    writeFileSync(join(tree.root, 'e/5'), 'x')
    mkdirSync(join(tree.root, 'a/new/sub'), { recursive: true })
    expect((await tree.scan({ path: path('a/b') })).differences).toEqual([
      { kind: 'changed', path: 'a/b/c', isNewDirectory: false },
      { kind: 'missing', path: 'a/b/c/1' },
    ])
    expect((await tree.scan({ path: path('a'), isShallow: true })).differences).toEqual([
      { kind: 'changed', path: 'a', isNewDirectory: false },
      { kind: 'changed', path: 'a/new', isNewDirectory: true },
    ])
    rmSync(join(tree.root, 'a'), { recursive: true })
    expect((await tree.scan({ path: path('a/b') })).differences).toEqual([{ kind: 'missing', path: 'a/b' }])
    expect((await tree.scan({ path: path('nowhere/at/all') })).differences).toEqual([])
  })

  it('tells every file to a deep scan, and nothing else', async () => {
    const tree = await openTree()
    growTree(tree.root, new Random(7), 10, 3)
    symlinkSync('x', join(tree.root, 'link'))
    await tree.capture()
    chmodSync(join(tree.root, 'f0'), 0o600)
    const { differences } = await tree.scan({ isDeep: true })
    const files = [...tree.known].filter(([, { kind }]) => kind === 'file').map(([at]) => at as string)
    expect(ofKind(differences, 'changed')).toEqual(['f0'])
    expect(ofKind(differences, 'unread')).toEqual(files.filter((at) => at !== 'f0').toSorted())
  })

  it('ends with an error when the root is another directory', async () => {
    const tree = await openTree()
    await tree.capture()
    const scanning = tree.scan()
    renameSync(tree.root, `${tree.root}.moved`)
    onTestFinished(() => rmSync(`${tree.root}.moved`, { recursive: true }))
    await expect(scanning).rejects.toThrow(/does not exist/)
  })

  it.skipIf(!isRoot)('does not enter other mounts, of the same filesystem or of another, and concludes nothing there', async () => {
    const tree = await openTree()
    for (const name of ['bind', 'other', 'source']) mkdirSync(join(tree.root, name))
    for (const name of ['bind/1', 'other/2', 'source/3', 'file']) writeFileSync(join(tree.root, name), 'x')
    await tree.capture()
    const mounts = [
      ['--bind', join(tree.root, 'source'), join(tree.root, 'bind')],
      ['-t', 'tmpfs', 'none', join(tree.root, 'other')],
      ['--bind', '/etc/hostname', join(tree.root, 'file')],
    ].filter((mount) => existsSync(mount.at(-2) === 'none' ? '/' : (mount.at(-2) ?? '')))
    for (const mount of mounts) {
      expect(spawnSync('mount', mount).status).toBe(0)
      onTestFinished(() => void spawnSync('umount', [mount.at(-1) ?? '']))
    }
    const { differences } = await tree.scan()
    expect(differences.map(({ kind, path: at }) => `${kind} ${at}`)).toEqual(['foreign bind', 'foreign file', 'foreign other'])
    expect((await tree.scan({ path: path('bind/1') })).differences).toMatchObject([{ kind: 'foreign', path: 'bind/1' }])
    expect((await tree.scan({ path: ROOT, isShallow: true })).differences).toHaveLength(3)
  })
})
