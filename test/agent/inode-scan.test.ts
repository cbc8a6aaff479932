import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Database } from '../../agent/database.ts'
import { BLOCK_INODES_SHIFT } from '../../agent/inode-block.ts'
import { blockKey, blockPrefix, groupKey, rangeOfPrefix } from '../../agent/state-keys.ts'
import { path, VOLUME } from '../support/agent-parts.ts'
import { changeTree, growTree } from '../support/changing-tree.ts'
import { mountDisk } from '../support/mounted-disk.ts'
import { naiveWalk, ofKind, ScannedTree, type ScanResult } from '../support/scanned-tree.ts'
import { Random } from '../support/workload.ts'

const ANY = 1_000_000_000

/** A tree on XFS that is captured, and known well enough to be scanned by inodes. */
async function openTree(seed: number, directories: number): Promise<ScannedTree> {
  const disk = mountDisk('xfs', 400 << 20)
  const root = join(disk, 'volume')
  mkdirSync(root)
  mkdirSync(join(disk, 'elsewhere'))
  growTree(join(disk, 'elsewhere'), new Random(99), 30, 5)
  growTree(root, new Random(seed), directories, 6)
  const tree = await ScannedTree.open(root)
  await tree.capture()
  await settle(tree)
  return tree
}

/** Scans until all directories are known: of one that changed a moment ago the filesystem's clock does not tell enough. */
async function settle(tree: ScannedTree): Promise<void> {
  await expect.poll(() => byInodes(tree).then(({ method }) => method), { timeout: 15_000 }).toBe('bulkstat')
}

function byInodes(tree: ScannedTree): Promise<ScanResult> {
  return tree.scan({ bulkInodesMax: ANY })
}

async function unseenBlocks(database: Database): Promise<string[]> {
  const rows = await database.page(rangeOfPrefix(blockPrefix(VOLUME)))
  return rows.filter(([, row]) => row.length === 0).map(([key]) => key)
}

/** Scans until each block of inodes has been seen to be as it is recorded: of what changed a moment ago the filesystem's clock does not tell enough. */
async function seeWhole(tree: ScannedTree, database: Database): Promise<void> {
  // What is not on the disk yet is not whole.
  expect(spawnSync('sync', ['-f', tree.root]).status).toBe(0)
  await expect
    .poll(
      async () => {
        const { method, differences } = await byInodes(tree)
        return { method, differences, unseen: await unseenBlocks(database) }
      },
      { timeout: 15_000 },
    )
    .toEqual({ method: 'bulkstat', differences: [], unseen: [] })
}

async function databaseOf(tree: ScannedTree): Promise<Database> {
  const database = await Database.join(tree.stateDirectory)
  onTestFinished(() => database.close())
  return database
}

function told({ differences }: ScanResult): string[] {
  return [...new Set([...ofKind(differences, 'changed'), ...ofKind(differences, 'missing')])].toSorted()
}

describe.skipIf(process.getuid?.() !== 0)('a scan by the inodes of XFS', () => {
  it.each([1, 2, 3])('finds all that a walk finds, after random changes (seed %i)', async (seed) => {
    const tree = await openTree(seed, 100)
    const random = new Random(seed)
    for (let round = 0; round < 6; round++) {
      changeTree(tree.root, random, 10)
      const [inodes, walk] = [await byInodes(tree), await tree.scan()]
      expect(inodes.method).toBe('bulkstat')
      expect(walk.method).toBe('walk')
      const [byInode, byWalk] = [told(inodes), told(walk)]
      expect(byWalk.filter((at) => !byInode.includes(at))).toEqual([])
      // What was moved is told at its old place too, and nothing else.
      const disk = naiveWalk(tree.root)
      expect(byInode.filter((at) => !byWalk.includes(at) && disk.has(path(at)))).toEqual([])
      if (round % 2 === 1) await tree.capture()
    }
    await tree.capture()
    expect(await byInodes(tree)).toMatchObject({ method: 'bulkstat', differences: [], entries: tree.known.size })
  })
  it('finds a file of which no event told, although its directory was recorded after it', async () => {
    const tree = await openTree(4, 10)
    writeFileSync(join(tree.root, 'd0', 'unseen'), 'x')
    mkdirSync(join(tree.root, 'd1-', 'unseen', 'below'), { recursive: true })
    await tree.capture([path('d0/unseen'), path('d1-/unseen'), path('d1-/unseen/below')])
    expect(told(await byInodes(tree))).toEqual(['d0/unseen', 'd1-/unseen', 'd1-/unseen/below'])
  })

  it('does not list again what it has seen as it is recorded', async () => {
    const tree = await openTree(5, 10)
    writeFileSync(join(tree.root, 'd0', 'new'), 'x')
    expect(told(await byInodes(tree))).toEqual(['d0', 'd0/new'])
    await tree.capture()
    const listed = async (): Promise<number> => (await byInodes(tree)).listed
    // As soon as the filesystem's clock has gone on, once more, and then never.
    await expect.poll(listed, { timeout: 15_000 }).toBe(1)
    expect(await listed()).toBe(0)
  })

  it('passes what it has seen as it is recorded without reading the index, and finds whatever changes there', async () => {
    const tree = await openTree(10, 30)
    const file = (name: string): string => join(tree.root, name)
    for (const name of ['mode', 'owner', 'time', 'size', 'gone', 'linked', 'moved', 'replaced', 'swapped']) writeFileSync(file(name), 'x')
    await tree.capture()
    const database = await databaseOf(tree)
    await seeWhole(tree, database)
    const inode = tree.known.get(path('mode'))?.inode ?? 0n
    const group = database.getNow(groupKey(VOLUME, inode)) ?? Buffer.alloc(0)
    await database.write([{ type: 'put', key: groupKey(VOLUME, inode), value: Buffer.from('damaged') }], { sync: false })
    expect(await byInodes(tree)).toMatchObject({ method: 'bulkstat', differences: [], entries: tree.known.size, blocks: 0 })
    await database.write([{ type: 'put', key: groupKey(VOLUME, inode), value: group }], { sync: false })

    const changes: [readonly string[], () => void][] = [
      [['mode'], () => chmodSync(file('mode'), 0o600)],
      [['owner'], () => chownSync(file('owner'), 12, 34)],
      [['time'], () => utimesSync(file('time'), 1, 1)],
      [['size'], () => appendFileSync(file('size'), 'y')],
      [['', 'gone'], () => unlinkSync(file('gone'))],
      [['', 'another', 'linked'], () => linkSync(file('linked'), file('another'))],
      [['', 'moved', 'to'], () => renameSync(file('moved'), file('to'))],
      [['', 'swapped'], () => renameSync(file('swapped'), file('replaced'))],
      [['d0', 'd0/new'], () => writeFileSync(file('d0/new'), 'x')],
    ]
    for (const [expected, change] of changes) {
      await seeWhole(tree, database)
      change()
      const found = told(await byInodes(tree))
      expect(found).toEqual(expect.arrayContaining([...expected]))
      await tree.capture()
    }
  }, 60_000)

  it('looks again at a block of which what it has seen is damaged', async () => {
    const tree = await openTree(11, 10)
    const database = await databaseOf(tree)
    await seeWhole(tree, database)
    chmodSync(join(tree.root, 'f0'), 0o600)
    for (const [key, row] of await database.page(rangeOfPrefix(blockPrefix(VOLUME)))) {
      for (const damaged of [row.toString('latin1').replace(/.$/, (digit) => (digit === '0' ? '1' : '0')), 'damaged', '-1', '7']) {
        await database.write([{ type: 'put', key, value: Buffer.from(damaged) }], { sync: false })
        expect(told(await byInodes(tree))).toEqual(['f0'])
      }
    }
    await tree.capture()
    await seeWhole(tree, database)
  }, 30_000)

  it('keeps nothing of a block in which content is not on the disk yet, and may never come to it', async () => {
    const tree = await openTree(12, 10)
    const database = await databaseOf(tree)
    await seeWhole(tree, database)
    appendFileSync(join(tree.root, 'f0'), 'more than there was')
    await tree.capture()
    const own = blockKey(VOLUME, (tree.known.get(path('f0'))?.inode ?? 0n) >> BLOCK_INODES_SHIFT)
    for (let scans = 0; scans < 3; scans++) {
      expect((await byInodes(tree)).differences).toEqual([])
      expect(await unseenBlocks(database)).toContain(own)
    }
    await seeWhole(tree, database)
  }, 30_000)

  it('tells of names of an inode that has others, and of files that only their writers hold', async () => {
    const tree = await openTree(6, 10)
    linkSync(join(tree.root, 'f0'), join(tree.root, 'd0', 'link'))
    const held = openSync(join(tree.root, 'f1'), 'r+')
    await tree.capture()
    unlinkSync(join(tree.root, 'd0', 'link'))
    unlinkSync(join(tree.root, 'f1'))
    expect(told(await byInodes(tree))).toEqual(['', 'd0', 'd0/link', 'f0', 'f1'])
    closeSync(held)
  })

  it('does not enter other mounts nor what is ignored, and concludes nothing there', async () => {
    const tree = await openTree(7, 10)
    tree.ignored = [path('own')]
    mkdirSync(join(tree.root, 'own'))
    for (const name of ['bind', 'bind/x', 'source', 'source/y']) mkdirSync(join(tree.root, name))
    await tree.capture()
    const at = join(tree.root, 'bind')
    expect(spawnSync('mount', ['--bind', join(tree.root, 'source'), at]).status).toBe(0)
    onTestFinished(() => void spawnSync('umount', [at]))
    writeFileSync(join(tree.root, 'own', 'spool'), 'x')
    const { differences, method } = await byInodes(tree)
    expect(method).toBe('bulkstat')
    expect(differences).toEqual([{ kind: 'foreign', path: 'bind' }])
  })

  it('tells of what was put in place of a directory, and of the directory only once', async () => {
    const tree = await openTree(8, 40)
    rmSync(join(tree.root, 'd0'), { recursive: true })
    const paths = told(await byInodes(tree)).filter((at) => at.startsWith('d0'))
    expect(paths).toEqual(['d0'])
  })

  it.each([
    ['the index is damaged', /index by inode is damaged/, {}],
    ['the scan is deep', /deep/, { isDeep: true }],
    ['the filesystem holds much more', /far more/, { bulkInodesMax: 1 }],
  ])('is a walk where %s', async (what, reason, options) => {
    const tree = await openTree(9, 10)
    if (what === 'the index is damaged') {
      const root = tree.known.get(path(''))
      const database = await Database.join(tree.stateDirectory)
      const key = groupKey(VOLUME, root?.inode ?? 0n)
      await database.write([{ type: 'put', key, value: Buffer.from('damaged') }], { sync: false })
      await database.close()
    }
    writeFileSync(join(tree.root, 'd0', 'new'), 'x')
    const result = await tree.scan({ bulkInodesMax: ANY, ...options })
    expect(result.method).toBe('walk')
    expect(result.reason).toMatch(reason)
    expect(told(result)).toEqual(['d0', 'd0/new'])
  })
})
