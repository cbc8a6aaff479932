/**
 * A protected directory tree, as the agent sees it at the moment: where it is, how it is watched, what could not be read.
 *
 * Invariant: `root` is set only while the directory is there and is the one that was protected before; without it nothing
 * is captured and nothing is called gone. It prevents a missing disk from being replicated as an empty one.
 */
import { type ByteString } from '../shared/bytes.ts'
import { PATHS_LISTED_MAX } from '../shared/limits.ts'
import { type Label, type RelativePath, showPath } from '../shared/path.ts'
import type { WatchMode } from '../shared/record.ts'
import type { VolumeRoot } from './file-stat.ts'
import type { RottenFile, RottenFiles } from './rotten-files.ts'
import type { IgnoreRules } from './watch/ignore.ts'
import type { Watcher } from './watch/watcher.ts'

export type VolumePhase = 'scanning' | 'watching' | 'paused'

export interface LastScan {
  /** ms since 1970. */
  readonly endedMs: number
  readonly durationMs: number
  readonly differences: number
  /** Differences that turned out to be changes of which no event had told. */
  readonly unannounced: number
}

export class Volume {
  readonly name: Label
  /** Absolute, without a '/' at its end. */
  readonly directory: ByteString
  /** What is not protected. */
  readonly ignore: IgnoreRules
  mode: WatchMode = 'best-effort'
  phase: VolumePhase = 'paused'
  /** Why the mode is not complete, or why it is paused. */
  reason = 'starting'
  /** Gaps recorded since the agent started. */
  gaps = 0
  /** Set while it is watched. */
  watcher: Watcher | undefined
  /** Until when everything that changed is journalled, as far as is proven; ms since 1970. */
  coveredMs: number | undefined
  #lastScan: LastScan | undefined
  #unannounced = 0
  #root: VolumeRoot | undefined
  #lost: ((reason: string) => void) | undefined
  readonly #unreadable = new Map<RelativePath, { readonly reason: string; readonly scan: number }>()
  #scan = 0
  #foreign: readonly RelativePath[] = []

  readonly #rotten: RottenFiles

  constructor(name: Label, directory: ByteString, ignore: IgnoreRules, rotten: RottenFiles) {
    this.name = name
    this.#rotten = rotten
    this.directory = directory
    this.ignore = ignore
  }

  get root(): VolumeRoot | undefined {
    return this.#root
  }

  /** The directory is there. `onLost` is called once, by whoever finds that it is not any more. */
  begin(root: VolumeRoot, onLost: (reason: string) => void): void {
    this.#root = root
    this.#lost = onLost
    this.phase = 'scanning'
  }

  lose(reason: string): void {
    this.#root = undefined
    this.watcher = undefined
    this.phase = 'paused'
    this.reason = reason
    const lost = this.#lost
    this.#lost = undefined
    lost?.(reason)
  }

  /** `isDirectory` undefined: only what is ignored whatever it is. */
  isIgnored(path: RelativePath, isDirectory?: boolean): boolean {
    return this.ignore.isIgnored(path, isDirectory)
  }

  noteReadable(path: RelativePath): void {
    if (this.#unreadable.size > 0) this.#unreadable.delete(path)
  }

  noteUnreadable(path: RelativePath, reason: string): void {
    if (this.#unreadable.size < PATHS_LISTED_MAX || this.#unreadable.has(path)) this.#unreadable.set(path, { reason, scan: this.#scan })
  }

  /** @returns whether that is news */
  noteRotten(path: RelativePath): boolean {
    return this.#rotten.note(this.name, path, Date.now())
  }

  /** It was changed, is gone, or was read as it was captured. */
  noteSound(path: RelativePath): void {
    this.#rotten.forget(this.name, path)
  }

  /** Files whose content decayed. */
  get rotten(): readonly RottenFile[] {
    return this.#rotten.of(this.name)
  }

  /** A full scan begins: it will come upon every unreadable path again. */
  beginScan(): void {
    this.#scan += 1
  }

  endScan(closed: ReadonlyMap<RelativePath, string>, foreign: readonly RelativePath[]): void {
    for (const [path, reason] of closed) this.noteUnreadable(path, reason)
    for (const [path, { scan }] of this.#unreadable) if (scan < this.#scan) this.#unreadable.delete(path)
    this.#foreign = foreign.slice(0, PATHS_LISTED_MAX)
  }

  get lastScan(): LastScan | undefined {
    return this.#lastScan
  }

  /** Changes since the agent started that only a scan found. */
  get unannounced(): number {
    return this.#unannounced
  }

  noteScan(scan: LastScan): void {
    // What the first scan finds is what happened before anybody watched.
    if (this.#lastScan !== undefined) this.#unannounced += scan.unannounced
    this.#lastScan = scan
  }

  /** What could not be read, with the reason. */
  get unreadable(): readonly { readonly path: RelativePath; readonly reason: string }[] {
    return [...this.#unreadable].map(([path, { reason }]) => ({ path, reason }))
  }

  /** The first of them, and how many there are, for whoever wanted all. */
  get unreadableText(): string {
    const [first] = this.unreadable
    if (first === undefined) return ''
    return `Volume ${this.name}: ${this.#unreadable.size} paths cannot be read, the first is ${showPath(first.path)}: ${first.reason}`
  }

  /** Mount points of other filesystems, which are not entered. */
  get foreign(): readonly RelativePath[] {
    return this.#foreign
  }
}
