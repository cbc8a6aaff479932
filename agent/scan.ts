/**
 * A scan: what is on disk against what the journal says, as a stream of differences.
 *
 * Both sides come in the order of a depth-first walk with sorted names and are merged; neither is ever held as a whole.
 * Invariant: a difference is only a reason to look. Nothing is recorded, and above all nothing removed, because a scan did
 * not see it: the capture thread looks again, and it knows whether the disk is there at all.
 */
import { pathKey, type RelativePath } from '../shared/path.ts'
import { type Identity, isUnchanged } from './file-stat.ts'
import type { ScanEntry } from './scan-entry.ts'

export type Difference =
  /** On disk otherwise than captured, or not captured. */
  | { readonly kind: 'changed'; readonly path: RelativePath; readonly isNewDirectory: boolean }
  /** Captured, and not on disk; of a directory, only itself is told. */
  | { readonly kind: 'missing'; readonly path: RelativePath }
  | { readonly kind: 'closed'; readonly path: RelativePath; readonly reason: string }
  | { readonly kind: 'foreign'; readonly path: RelativePath }

export interface KnownEntry {
  readonly path: RelativePath
  readonly identity: Identity
}

/** The captured side, in order, with the means to leave out a subtree. */
export interface KnownWalk {
  /** The next entry, without taking it. */
  peek(): KnownEntry | undefined | Promise<KnownEntry | undefined>
  /** Leaves out the path, if it is next, and everything below it. */
  skipWithin(path: RelativePath): void
  /** Leaves out the path that is next, but nothing below it. */
  skip(): void
}

/** Entries of the walk of `top`; a shallow one lists `top` and its children only. */
export async function* differences(
  disk: AsyncIterable<Iterable<ScanEntry>>,
  known: KnownWalk,
  top: RelativePath,
  isShallow: boolean,
): AsyncGenerator<Difference[], void> {
  for await (const batch of disk) {
    const found: Difference[] = []
    for (const entry of batch) {
      await collectMissing(known, entry.path, found)
      if (entry.kind !== 'present') {
        // Unknown is not missing: whatever was captured there stays as it is.
        known.skipWithin(entry.path)
        found.push(entry)
        continue
      }
      const next = await known.peek()
      const at = next?.path === entry.path ? next : undefined
      const isDirectory = entry.stat.kind === 'directory'
      const isDifferent = at === undefined || at.identity.doubt !== 'none' || !isUnchanged(at.identity, entry.stat)
      if (isDifferent) found.push({ kind: 'changed', path: entry.path, isNewDirectory: isDirectory && at === undefined })
      if (!isDirectory || (isShallow && entry.path !== top)) known.skipWithin(entry.path)
      else if (at !== undefined) known.skip()
    }
    if (found.length > 0) yield found
  }
  const rest: Difference[] = []
  await collectMissing(known, undefined, rest)
  if (rest.length > 0) yield rest
}

/** What was captured and comes, in the order of the walk, before what is there. */
async function collectMissing(known: KnownWalk, before: RelativePath | undefined, found: Difference[]): Promise<void> {
  const bound = before === undefined ? undefined : pathKey(before)
  for (let at = await known.peek(); at !== undefined; at = await known.peek()) {
    if (bound !== undefined && pathKey(at.path) >= bound) return
    found.push({ kind: 'missing', path: at.path })
    known.skipWithin(at.path)
  }
}
