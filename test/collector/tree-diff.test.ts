/** Comparing trees: against a comparison of maps, and of a directory against what was recorded of it. */
import { chmodSync, linkSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ListedEntry } from '../../collector/history-source.ts'
import { liveTree, type Unreadable } from '../../collector/live-tree.ts'
import { type Side, sideOf, type TreeChange, treeDiff } from '../../collector/tree-diff.ts'
import { digestOf } from '../../shared/digest.ts'
import { libc } from '../../shared/libc.ts'
import { pathKey, relativePath } from '../../shared/path.ts'
import type { Version } from '../../shared/version.ts'
import { directoryVersion, fileVersion } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const PLAIN = { isWithDirectoryTimes: false }

function side(path: string, version: Version): Side {
  const entry: ListedEntry = { path: relativePath(path), position: { epoch: 1, seq: 1 }, version, absent: undefined }
  return sideOf(entry)
}

async function* each(sides: readonly Side[]): AsyncGenerator<Side> {
  yield* sides
}

async function diffOf(before: AsyncIterable<Side>, after: AsyncIterable<Side>, options = PLAIN): Promise<TreeChange[]> {
  const found = []
  for await (const change of treeDiff(before, after, options)) found.push(change)
  return found
}

const shown = (changes: readonly TreeChange[]): string[] =>
  changes.map(({ path, before, after, aspects }) => {
    if (before === undefined) return `+ ${path}`
    return after === undefined ? `- ${path}` : `M ${path} ${aspects.join(' ')}`
  })

describe('a comparison of two trees', () => {
  it('finds what a comparison of two maps finds, in the order of a walk', async () => {
    const name = fc.constantFrom('a', 'b', 'a-', 'a.b', '\xff')
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
    const tree = fc
      .dictionary(path, fc.constantFrom('one', 'two', 'six'), { maxKeys: 12 })
      .map((contents) => new Map(Object.entries(contents)))
    const sidesOf = (contents: ReadonlyMap<string, string>): Side[] =>
      [...contents]
        .map(([at, content]) => side(at, fileVersion(content)))
        .sort((a, b) => Buffer.compare(Buffer.from(pathKey(a.path), 'latin1'), Buffer.from(pathKey(b.path), 'latin1')))
    await fc.assert(
      fc.asyncProperty(tree, tree, async (before, after) => {
        const found = await diffOf(each(sidesOf(before)), each(sidesOf(after)))
        const expected = [...new Set([...before.keys(), ...after.keys()])].flatMap((at) => {
          if (before.get(at) === after.get(at)) return []
          if (!before.has(at)) return [`+ ${at}`]
          return after.has(at) ? [`M ${at} content`] : [`- ${at}`]
        })
        expect(shown(found).sort()).toEqual(expected.sort())
        const keys = found.map((change) => pathKey(change.path))
        expect(keys).toEqual([...keys].sort())
      }),
    )
  })

  it('names everything in which a path differs', async () => {
    const plain = fileVersion('one')
    const { chunks: _chunks, size: _size, digest: _digest, consistency: _consistency, ...metadata } = plain
    const others: [string, Version][] = [
      ['content', fileVersion('two')],
      ['mode', { ...plain, mode: 0o600 }],
      ['owner', { ...plain, gid: plain.gid + 1 }],
      ['mtime', { ...plain, mtimeNs: plain.mtimeNs + 1n }],
      ['xattrs', { ...plain, xattrs: [{ name: 'user.a', value: 'b' }] }],
      ['kind', { ...metadata, kind: 'fifo' }],
    ]
    for (const [aspect, other] of others)
      expect(shown(await diffOf(each([side('x', plain)]), each([side('x', other)])))).toEqual([`M x ${aspect}`])
    const link = (target: string): Side => side('x', { ...metadata, kind: 'symlink', target })
    expect(shown(await diffOf(each([link('a')]), each([link('b')])))).toEqual(['M x target'])
    const device = (number: bigint): Side => side('x', { ...metadata, kind: 'block-device', device: number })
    expect(shown(await diffOf(each([device(1n)]), each([device(2n)])))).toEqual(['M x device'])
  })

  it('leaves out directories of which only the time differs, unless they are asked for', async () => {
    const [old, now] = [directoryVersion({ mtimeNs: 1n }), directoryVersion({ mtimeNs: 2n })]
    expect(await diffOf(each([side('d', old)]), each([side('d', now)]))).toEqual([])
    expect(shown(await diffOf(each([side('d', old)]), each([side('d', now)]), { isWithDirectoryTimes: true }))).toEqual(['M d mtime'])
  })
})

describe('a directory as it is now', () => {
  function archive(): string {
    const root = join(scratchDirectory(), 'archive')
    mkdirSync(join(root, 'a/b'), { recursive: true })
    writeFileSync(join(root, 'a/b/1.dcm'), 'one')
    writeFileSync(join(root, 'a-'), 'two')
    symlinkSync('a', join(root, 'link'))
    linkSync(join(root, 'a-'), join(root, 'other'))
    return root
  }

  async function sidesIn(root: string, unreadable: Unreadable[] = []): Promise<Side[]> {
    const found = []
    for await (const each of liveTree(root, relativePath('2026'), (what) => unreadable.push(what))) found.push(each)
    return found
  }

  it('is walked in the order of a recorded tree, below the path that it stands for, symlinks not followed', async () => {
    const sides = await sidesIn(archive())
    expect(sides.map(({ path, kind }) => `${path} ${kind}`)).toEqual([
      '2026 directory',
      '2026/a directory',
      '2026/a/b directory',
      '2026/a/b/1.dcm file',
      '2026/a- file',
      '2026/link symlink',
      '2026/other file',
    ])
    expect(sides[3]).toMatchObject({ size: 3, mode: 0o644 })
    expect(sides[3]?.digest()).toBe(digestOf(Buffer.from('one')))
    expect(sides[5]).toMatchObject({ target: 'a' })
  })

  it('is equal to itself, and differs where content does behind the same size and times', async () => {
    const root = archive()
    const file = join(root, 'a/b/1.dcm')
    utimesSync(file, 1, 1)
    const before = await sidesIn(root)
    const read = before.map((each) => ({
      ...each,
      digest: (
        (digest) => () =>
          digest
      )(each.digest()),
    }))
    expect(
      await diffOf(
        each(read),
        liveTree(root, relativePath('2026'), () => {}),
      ),
    ).toEqual([])
    writeFileSync(file, 'eno')
    utimesSync(file, 1, 1)
    expect(
      shown(
        await diffOf(
          each(read),
          liveTree(root, relativePath('2026'), () => {}),
        ),
      ),
    ).toEqual(['M 2026/a/b/1.dcm content'])
    chmodSync(file, 0o600)
    libc?.setXattr(file, 'user.n', 'v')
    expect(
      shown(
        await diffOf(
          each(read),
          liveTree(root, relativePath('2026'), () => {}),
        ),
      ),
    ).toEqual(['M 2026/a/b/1.dcm content mode xattrs'])
  })

  it('tells what cannot be read, and does not call it different', async () => {
    const root = archive()
    const unreadable: Unreadable[] = []
    const sides = await sidesIn(root, unreadable)
    const read = sides.find(({ path }) => path === '2026/a-')
    // Another process is at work: where the file was there is a symlink now, which is not followed.
    rmSync(join(root, 'a-'))
    symlinkSync('a/b/1.dcm', join(root, 'a-'))
    const recorded = side('2026/a-', fileVersion('old'))
    const same = { ...recorded, mtimeNs: read?.mtimeNs ?? 0n, mode: read?.mode ?? 0 }
    expect(await diffOf(each([same]), each(read === undefined ? [] : [read]))).toEqual([])
    expect(unreadable).toEqual([{ path: '2026/a-', reason: expect.stringContaining('ELOOP') as string }])
  })

  it('that is not there is an error, not an empty one', async () => {
    await expect(sidesIn(join(scratchDirectory(), 'nothing'))).rejects.toMatchObject({ code: 'io' })
  })
})
