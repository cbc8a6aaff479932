/**
 * The port behind which changes are noticed. `fanotify` and `chokidar` are implementations; test/suites holds what each owes.
 *
 * An event is a hint to go and look; it may repeat and may be late. Invariant: what a watcher may have missed it says, as
 * a `rescan` in the stream, or by not being `complete`. It prevents a lost event from being taken for no change.
 */
import type { RelativePath } from '../../shared/path.ts'
import type { WatchMode } from '../../shared/record.ts'

export type WatchEvent =
  /** Something may have happened to this path, and with it to the directory that holds it. */
  | { readonly kind: 'dirty'; readonly path: RelativePath }
  /** Something at or below this path may have been missed; a shallow one concerns the directory's own entries only. */
  | { readonly kind: 'rescan'; readonly path: RelativePath; readonly isShallow: boolean; readonly cause: string }

export interface Watcher extends AsyncDisposable {
  readonly mode: WatchMode
  /** Why the mode is not complete. */
  readonly reason: string
  /** Events in batches, in the order in which they came; ends when the watcher is closed. @throws when watching failed */
  events(): AsyncIterable<readonly WatchEvent[]>
  close(): Promise<void>
}

export interface WatchRequest {
  /** Absolute, as text. */
  readonly directory: string
  /** Not watched, with everything below. */
  readonly ignored: readonly RelativePath[]
  /** In gitignore syntax: what they name need not be watched either; its events are left out later. */
  readonly ignorePatterns?: readonly string[]
}

/** Resolves when every change from now on is noticed, so far as the mode promises. */
export type OpenWatcher = (request: WatchRequest, signal: AbortSignal) => Promise<Watcher>
