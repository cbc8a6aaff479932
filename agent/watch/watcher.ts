/**
 * The port behind which changes are noticed. `fanotify` and `chokidar` are implementations; test/suites holds what each owes.
 *
 * An event is a hint to go and look; it may repeat and may be late. Invariant: what a watcher may have missed it says, as
 * a `rescan` in the stream, or by not being `complete`. It prevents a lost event from being taken for no change.
 */
import type { RelativePath } from '../../shared/path.ts'
import type { WatchMode } from '../../shared/record.ts'
import type { Writer } from '../../shared/version-extensions.ts'

export type WatchEvent =
  /** Something may have happened to this path. */
  | {
      readonly kind: 'dirty'
      readonly path: RelativePath
      /** It was written and not closed: whoever writes is probably not done. */
      readonly isOpen?: boolean
      /** It came, went or was renamed: the directory that holds it changed too. */
      readonly isEntry?: boolean
      /** A directory of this name was deleted: if there is one, it may be another. */
      readonly isDirectoryGone?: boolean
      readonly writer?: Writer | undefined
    }
  /** A directory with everything below it has another name. */
  | { readonly kind: 'renamed'; readonly path: RelativePath; readonly to: RelativePath }
  /** Something happened to files of which the names were not told. */
  | { readonly kind: 'inodes'; readonly inodes: BigUint64Array }
  /** A version that was closed after writing, held open until `release` is called. The path may name another file by now. At a stop an abandoned one is the next process's to account for. */
  | {
      readonly kind: 'pin'
      readonly path: RelativePath
      readonly fd: number
      readonly writer: Writer | undefined
      readonly release: (fate?: 'abandoned') => void
    }
  /** Versions may have come and gone unseen since `sinceMs` (ms since 1970; undefined: since the last proof), but no event was missed. */
  | { readonly kind: 'loss'; readonly sinceMs: number | undefined; readonly cause: string }
  /** Something at or below this path may have been missed; a shallow one concerns the directory's own entries only. */
  | {
      readonly kind: 'rescan'
      readonly path: RelativePath
      readonly isShallow: boolean
      readonly cause: string
      /** Versions may have come and gone unseen: a gap is to be recorded. */
      readonly isGap?: boolean
    }

/** What a watcher says when everything that happened before the question has been told. */
export interface Fence {
  /** Versions closed before it wait in the kernel still: there were more than may be open at once. */
  readonly isBehind: boolean
  /** All versions that were closed before then have been told of, ns since 1970; 0 where that is not known. */
  readonly closedBeforeNs: bigint
  /** Something was told that nobody has asked for yet. */
  readonly isUnheard?: true
}

/** Versions may have come and gone unseen since then, ms since 1970. */
export interface Loss {
  readonly sinceMs: number
  readonly cause: string
}

export interface Watcher extends AsyncDisposable {
  readonly mode: WatchMode
  /** Why the mode is not complete; empty where it is. */
  readonly reason: string
  /** Watching has not been interrupted since what the journal says was verified: no scan is needed. */
  readonly isContinuous: boolean
  /** Events in batches, in the order in which they came; ends when the watcher is closed. @throws when watching failed */
  events(): AsyncIterable<readonly WatchEvent[]>
  /** Resolves when all that happened before the call has been handed to `events`; it is behind where nobody has asked for them yet. Only of a complete watcher; else at once. */
  fence(): Promise<Fence>
  /** Until when watching is proven to have worked, ms since 1970. Undefined where nothing proves it. */
  readonly provenMs: number | undefined
  /** For how long a proof has been waited for in vain, in ms; 0 where none is to be expected. */
  readonly silentMs: number
  /**
   * The journal says that all was verified, but for losses that it does not tell of yet: from here on watching is continuous,
   * also over a restart, which is told of those losses again.
   */
  verified(losses: readonly Loss[]): void
  /** Events may be missing until `verified` is said again: a restart must scan. */
  doubted(): void
  /** Stands for everything told so far. */
  mark(): number
  /** Everything told before the mark is journalled: a restart need not be told of it again. */
  settled(mark: number): void
  close(): Promise<void>
}

export interface WatchRequest {
  readonly volume: string
  /** Absolute, as text. */
  readonly directory: string
  /** Not watched, with everything below. */
  readonly ignored: readonly RelativePath[]
  /** In gitignore syntax: what they name need not be watched either; its events are left out later. */
  readonly ignorePatterns?: readonly string[]
}

/** Resolves when every change from now on is noticed, so far as the mode promises. */
export type OpenWatcher = (request: WatchRequest, signal: AbortSignal) => Promise<Watcher>
