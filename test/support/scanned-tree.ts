/**
 * A directory tree with a state that knows it as it was at one moment, scans of it, and what a naive walk says of both.
 *
 * The naive walk lists and looks with node:fs, through /proc/self/fd so that a path may be longer than PATH_MAX.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { type FileStat, fileStat, isUnchanged, type VolumeRoot } from '../../agent/file-stat.ts'
import type { Difference } from '../../agent/scan.ts'
import type { ScanMethod } from '../../agent/scan-task.ts'
import { ScanThread } from '../../agent/scan-threads.ts'
import { State } from '../../agent/state.ts'
import { hybridTime } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { byteString, childOf, parentOf, type RelativePath, ROOT } from '../../shared/path.ts'
import type { Change, JournalRecord } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { VOLUME } from './agent-parts.ts'
import { scratchDirectory } from './scratch.ts'

export type Listing = ReadonlyMap<RelativePath, FileStat & { readonly links: number }>

export interface ScanResult {
  readonly differences: readonly Difference[]
  readonly method: ScanMethod
  readonly reason: string
  /** Parts that the scan was done in. */
  readonly tasks: number
  readonly entries: number
  /** Directories that were seen to hold exactly what is recorded. */
  readonly listed: number
  /** Blocks of inodes that were seen to be as they are recorded, and were not known to be. */
  readonly blocks: number
}

export interface ScanOptions {
  readonly path?: RelativePath
  readonly isShallow?: boolean
  readonly isDeep?: boolean
  readonly bulkInodesMax?: number
  /** How long whoever takes what is found is busy with each part of it. */
  readonly takeMs?: number
}

const BATCH = 500
const CONTENT = digestOf(Buffer.from('content'))

export class ScannedTree {
  readonly root: string
  ignored: readonly RelativePath[] = []
  readonly #state: State
  readonly #thread: ScanThread
  #known: Listing = new Map()
  #seq = 0

  private constructor(root: string, state: State, thread: ScanThread) {
    this.root = root
    this.#state = state
    this.#thread = thread
  }

  /** `aloneMs` 0: several threads from the beginning. */
  static async open(root: string, aloneMs = 0): Promise<ScannedTree> {
    const state = await State.open(join(scratchDirectory(), 'state'), 1, { oldest: 1, head: { seq: 0 } })
    const thread = new ScanThread(aloneMs)
    onTestFinished(async () => {
      await thread.close()
      await state.close()
    })
    return new ScannedTree(root, state, thread)
  }

  get known(): Listing {
    return this.#known
  }

  get stateDirectory(): string {
    return this.#state.directory
  }

  /** As if everything had been captured as it is now, but for some paths of which nobody knows. */
  async capture(unseen: readonly RelativePath[] = []): Promise<void> {
    const now = new Map([...naiveWalk(this.root, this.ignored)].filter(([path]) => !unseen.includes(path)))
    const gone = [...this.#known.keys()].filter((path) => !now.has(path))
    const removed = gone.filter((path) => !gone.includes(parentOf(path) ?? path))
    const changes: Change[] = [
      ...removed.map((path): Change => ({ kind: 'remove', volume: VOLUME, path })),
      ...[...now].map(([path, stat]): Change => ({ kind: 'put', volume: VOLUME, path, version: versionOf(stat) })),
    ]
    const chain = { epoch: 1, previous: NO_DIGEST, time: hybridTime(1n) }
    const records = changes.map((change): JournalRecord => ({ ...change, ...chain, seq: ++this.#seq }))
    for (let at = 0; at < records.length; at += BATCH) await this.#state.apply(records.slice(at, at + BATCH))
    this.#known = now
  }

  async scan(options: ScanOptions = {}): Promise<ScanResult> {
    const { path = ROOT, isShallow = false, isDeep = false, bulkInodesMax = 0, takeMs = 0 } = options
    const stats = lstatSync(this.root, { bigint: true })
    const root: VolumeRoot = { directory: byteString(this.root), device: stats.dev, inode: stats.ino }
    const request = {
      stateDirectory: this.#state.directory,
      volume: VOLUME,
      root,
      path,
      isShallow,
      isDeep,
      ignored: this.ignored,
      ignorePatterns: [],
      bulkInodesMax,
    }
    using listing = this.#state.beginListing(VOLUME)
    const differences: Difference[] = []
    let [method, reason]: [ScanMethod, string] = ['walk', '']
    let [tasks, entries, listed, blocks] = [0, 0, 0, 0]
    for await (const news of this.#thread.run(request, new AbortController().signal)) {
      if (news.kind === 'found') {
        differences.push(...news.differences)
        listed += news.listed.length
        blocks += news.blocks.length
        await this.#state.noteSeen(listing, news)
        if (takeMs > 0) await setTimeout(takeMs)
      } else if (news.kind === 'entries') {
        tasks += 1
        entries += news.entries
      } else {
        ;({ method, reason } = news)
      }
    }
    return { differences, method, reason, tasks, entries, listed, blocks }
  }

  /** What a scan has to find, by a naive comparison. */
  expected(): { readonly changed: string[]; readonly missing: string[] } {
    const disk = naiveWalk(this.root, this.ignored)
    const changed = [...disk].filter(([path, stat]) => !isKnown(this.#known.get(path), stat)).map(([path]) => path)
    const missing = [...this.#known.keys()].filter((path) => !disk.has(path) && disk.get(parentOf(path) ?? ROOT)?.kind === 'directory')
    return { changed: changed.toSorted(), missing: missing.toSorted() }
  }
}

export function ofKind(differences: readonly Difference[], kind: Difference['kind']): string[] {
  return differences
    .filter((difference) => difference.kind === kind)
    .map(({ path }) => path as string)
    .toSorted()
}

function isKnown(known: FileStat | undefined, now: FileStat): boolean {
  return known !== undefined && isUnchanged(known, now)
}

export function naiveWalk(root: string, ignored: readonly RelativePath[] = []): Listing {
  const found = new Map<RelativePath, FileStat & { readonly links: number }>()
  const { dev } = lstatSync(root, { bigint: true })
  const visit = (place: Buffer, path: RelativePath): void => {
    if (ignored.includes(path)) return
    const stats = lstatSync(place, { bigint: true })
    if (stats.dev !== dev) return
    found.set(path, { ...fileStat(stats), links: Number(stats.nlink) })
    if (!stats.isDirectory()) return
    const fd = openSync(place, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      const here = `/proc/self/fd/${fd}`
      for (const name of readdirSync(here, { encoding: 'buffer' }))
        visit(Buffer.concat([Buffer.from(`${here}/`), name]), childOf(path, name.toString('latin1')))
    } finally {
      closeSync(fd)
    }
  }
  visit(Buffer.from(root), ROOT)
  return found
}

function versionOf(stat: FileStat & { readonly links: number }): Version {
  const { kind, size, mode, uid, gid, mtimeNs, ctimeNs, inode, links } = stat
  const metadata = { mode, uid, gid, mtimeNs, ctimeNs, inode, links, xattrs: [] }
  switch (kind) {
    case 'file':
      return {
        kind,
        ...metadata,
        consistency: 'stable',
        size,
        digest: CONTENT,
        chunks: size === 0 ? [] : [{ digest: CONTENT, length: size }],
      }
    case 'symlink':
      return { kind, ...metadata, target: '' }
    case 'character-device':
    case 'block-device':
      return { kind, ...metadata, device: 0n }
    case 'directory':
    case 'fifo':
    case 'socket':
      return { kind, ...metadata }
  }
}
