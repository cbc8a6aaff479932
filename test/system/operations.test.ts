import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount, FILESYSTEM_KINDS } from '../support/image-filesystem.ts'
import { faults, Ground, OPERATIONS, type Operation, type Recorded } from '../support/operations.ts'
import { type LogLine, type Scanned, Site, type Watch } from '../support/site.ts'
import { type WalkedEntry, walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

const FILESYSTEM_BYTES = 1 << 30
const SETUID_SETGID = 0o6000
const TAME_KINDS: ReadonlySet<string> = new Set(['file', 'directory', 'symlink'])
const HOLE_SLACK_BLOCKS = 256
/** Not a divisor of what a scan takes: they meet at every stage of each other. */
const BETWEEN_ACTS_MS = 7

const CASES: readonly (readonly [kind: (typeof FILESYSTEM_KINDS)[number], watch: Watch])[] = FILESYSTEM_KINDS.flatMap((kind) => [
  [kind, 'fanotify'] as const,
  [kind, 'chokidar'] as const,
])

interface Staged {
  readonly operation: Operation
  /** Its directory, below the volume. */
  readonly name: string
  readonly ground: Ground
}

function stage(volume: string, outside: string): Staged[] {
  return OPERATIONS.map((operation, i) => {
    const name = `op-${i}`
    const ground = new Ground(join(volume, name), join(outside, name))
    mkdirSync(ground.directory, { recursive: true })
    mkdirSync(ground.outside, { recursive: true })
    operation.setup?.(ground)
    return { operation, name, ground }
  })
}

const bytesOf = (line: LogLine, field: 'path' | 'to'): string | undefined => {
  const exact: unknown = Reflect.get(line, `${field}Bytes`)
  if (typeof exact === 'string') return Buffer.from(exact, 'base64').toString('latin1')
  const text = line[field]
  return text === undefined ? undefined : Buffer.from(text, 'utf8').toString('latin1')
}

/** Of each operation's directory, what was recorded there. */
function recordedBelow(name: string, lines: readonly LogLine[]): Recorded[] {
  const below = (path: string | undefined): string | undefined =>
    path === name ? '' : path?.startsWith(`${name}/`) === true ? path.slice(name.length + 1) : undefined
  return lines.flatMap((line): Recorded[] => {
    const path = below(bytesOf(line, 'path'))
    const to = below(bytesOf(line, 'to'))
    if (path === undefined || (line.op !== 'put' && line.op !== 'remove' && line.op !== 'rename')) return []
    return [{ op: line.op, path, ...(to === undefined ? {} : { to }) }]
  })
}

/** What a copy holds that was not asked to be more: no special files, no setuid. */
function tame(copy: ReadonlyMap<string, WalkedEntry>): Map<string, WalkedEntry> {
  return new Map(
    [...copy]
      .filter(([, { kind }]) => TAME_KINDS.has(kind))
      .map(([path, entry]) => [path, entry.kind === 'file' ? { ...entry, mode: entry.mode & ~SETUID_SETGID } : entry]),
  )
}

/** Files whose holes are not holes in the copy. */
function filled(staged: readonly Staged[], source: string, copy: string): string[] {
  return staged
    .flatMap(({ operation, name }) => (operation.sparse ?? []).map((file) => ({ of: operation.name, path: join(name, file) })))
    .flatMap(({ of, path }) => {
      const [want, have] = [statSync(join(source, path)).blocks, statSync(join(copy, path)).blocks]
      const isAlike = Math.abs(have - want) <= want / 10 + HOLE_SLACK_BLOCKS
      return isAlike ? [] : [`${of}: ${want} blocks expected, ${have} found`]
    })
}

describe.skipIf(!canMount)('every kind of change', () => {
  it.each(CASES)('S06 S07 S24 is recorded and restored on %s, watched by %s', async (kind, watch) => {
    const { at } = makeFilesystem(kind, FILESYSTEM_BYTES)
    const volume = join(at, 'volume')
    const staged = stage(volume, join(at, 'outside'))
    const site = await Site.watching({ source: volume, watch })
    const before = site.log().at(-1)

    for (const { operation, ground } of staged) operation.act(ground)
    await site.wait()
    for (const { operation, ground } of staged) operation.later?.(ground)
    await site.wait()

    const lines = site.log({ since: before })
    const wrong = staged.flatMap(({ operation, name }) => {
      const recorded = recordedBelow(name, lines)
      const told = JSON.stringify(recorded).slice(0, 600)
      return faults(operation, recorded).map((fault) => `${operation.name}: ${fault}; recorded: ${told}`)
    })
    // Soft: what the tree looks like in the end says more about a record that is lacking.
    expect.soft(wrong).toEqual([])

    const copy = walkTree(volume)
    const replica = site.installation.replicaOf('pacs1')
    expect(differences(tame(copy), walkTree(replica)), 'replica').toEqual([])
    const restored = site.restore('now', { options: ['--setuid', '--special'] })
    expect(differences(copy, walkTree(restored)), 'restore --setuid --special').toEqual([])
    // Without being asked for, no setuid file and no device comes into the world; what is left out is told.
    const missing = staged.flatMap(({ operation, name }) => (operation.special === undefined ? [] : [`${name}/${operation.special}`]))
    expect(differences(tame(copy), walkTree(site.restore('now', { missing }))), 'restore').toEqual([])
    for (const place of [replica, restored]) expect(filled(staged, volume, place), place).toEqual([])

    expect(site.status.volumes[0]?.mode).toBe(watch === 'fanotify' ? 'complete' : 'best-effort')
    if (watch === 'fanotify') site.expectNothingMissed()
  })

  it('is called unannounced by no scan that comes in the middle of it', async () => {
    const { at } = makeFilesystem('ext4', FILESYSTEM_BYTES)
    const volume = join(at, 'volume')
    const staged = stage(volume, join(at, 'outside'))
    const site = await Site.watching({ source: volume })
    const scans: Scanned[] = []
    const acting = new AbortController()
    const scanning = (async () => {
      while (!acting.signal.aborted) scans.push(await site.scanBeside())
    })()
    for (const { operation, ground } of staged) {
      await setTimeout(BETWEEN_ACTS_MS)
      operation.act(ground)
    }
    acting.abort()
    await scanning
    expect(scans.filter(({ unannounced }) => unannounced > 0)).toEqual([])
    // They did come upon changes.
    expect(scans.filter(({ differences }) => differences > 0)).not.toEqual([])
    await site.wait()
    site.expectNothingMissed()
  })

  it('would be missed aloud: a record that is lacking or made up is a fault', () => {
    const rename: Operation = { name: 'rename', act: () => {}, records: ['remove a', 'put z'] }
    expect(faults(rename, [{ op: 'rename', path: 'a', to: 'z' }])).toEqual([])
    expect(faults(rename, [{ op: 'put', path: 'z' }])).toEqual(['no record: "remove a"'])
    expect(
      faults(rename, [
        { op: 'rename', path: 'a', to: 'z' },
        { op: 'put', path: '#1234' },
      ]),
    ).toHaveLength(1)
    const inside: Operation = { name: 'inside', act: () => {}, records: ['put e/f', 'remove d/f'], maybe: ['d', 'e'] }
    expect(faults(inside, [{ op: 'rename', path: 'd', to: 'e' }])).toEqual([])
    expect(faults(inside, [])).toHaveLength(2)
  })
})
