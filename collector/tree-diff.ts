/**
 * What differs between two trees: of two moments, or of a moment and a directory as it is now.
 *
 * Both are walked side by side in the order of their keys, so that the memory needed is that of one entry of each. Invariant: two
 * files are only called equal when their digests are. It prevents an overwritten image of the same size and time from passing for the old one.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import { pathKey, type RelativePath } from '../shared/path.ts'
import type { FileKind, Xattr } from '../shared/version.ts'
import type { ListedEntry } from './history-source.ts'

/** An entry of either tree, as far as it is compared. */
export interface Side {
  readonly path: RelativePath
  readonly kind: FileKind
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeNs: bigint
  readonly xattrs: readonly Xattr[]
  /** Bytes, of a file. */
  readonly size: number | undefined
  /** Of a symlink. */
  readonly target: ByteString | undefined
  /** Of a device. */
  readonly device: bigint | undefined
  /** Of a file's content, read when it is asked for; undefined where it cannot be read, of which the tree tells in its own way. */
  digest(): Digest | undefined
}

const ASPECTS = ['kind', 'content', 'target', 'device', 'mode', 'owner', 'mtime', 'xattrs'] as const
type Aspect = (typeof ASPECTS)[number]

export interface TreeChange {
  readonly path: RelativePath
  /** Undefined: it was added. */
  readonly before: Side | undefined
  /** Undefined: it was removed. */
  readonly after: Side | undefined
  /** In what both differ; empty where one is missing. */
  readonly aspects: readonly Aspect[]
}

export interface DiffOptions {
  /** Whether a directory of another modification time is a change: it has one whenever a name in it came or went. */
  readonly isWithDirectoryTimes: boolean
}

export function sideOf({ path, version }: ListedEntry): Side {
  const { kind, mode, uid, gid, mtimeNs, xattrs } = version
  return {
    path,
    kind,
    mode,
    uid,
    gid,
    mtimeNs,
    xattrs,
    size: version.kind === 'file' ? version.size : undefined,
    target: version.kind === 'symlink' ? version.target : undefined,
    device: 'device' in version ? version.device : undefined,
    digest: () => (version.kind === 'file' ? version.digest : undefined),
  }
}

/** Both in depth-first order with names in byte order. */
export async function* treeDiff(before: AsyncIterable<Side>, after: AsyncIterable<Side>, options: DiffOptions): AsyncGenerator<TreeChange> {
  const [olds, news] = [before[Symbol.asyncIterator](), after[Symbol.asyncIterator]()]
  try {
    let [old, now] = await Promise.all([nextOf(olds), nextOf(news)])
    while (old !== undefined || now !== undefined) {
      const order = old === undefined ? 1 : now === undefined ? -1 : compareKeys(old, now)
      if (order < 0) {
        yield { path: (old as Side).path, before: old, after: undefined, aspects: [] }
        old = await nextOf(olds)
      } else if (order > 0) {
        yield { path: (now as Side).path, before: undefined, after: now, aspects: [] }
        now = await nextOf(news)
      } else {
        const aspects = differences(old as Side, now as Side, options)
        if (aspects.length > 0) yield { path: (old as Side).path, before: old, after: now, aspects }
        ;[old, now] = await Promise.all([nextOf(olds), nextOf(news)])
      }
    }
  } finally {
    await olds.return?.()
    await news.return?.()
  }
}

async function nextOf(sides: AsyncIterator<Side>): Promise<Side | undefined> {
  const { done, value } = await sides.next()
  return done === true ? undefined : value
}

function compareKeys(a: Side, b: Side): number {
  if (a.path === b.path) return 0
  const [keyA, keyB] = [pathKey(a.path), pathKey(b.path)]
  return keyA < keyB ? -1 : keyA > keyB ? 1 : 0
}

function differences(before: Side, after: Side, { isWithDirectoryTimes }: DiffOptions): Aspect[] {
  return ASPECTS.filter((aspect) => {
    switch (aspect) {
      case 'kind':
        return before.kind !== after.kind
      case 'content':
        return before.kind === 'file' && after.kind === 'file' && differInContent(before, after)
      case 'target':
        return before.kind === after.kind && before.target !== after.target
      case 'device':
        return before.kind === after.kind && before.device !== after.device
      case 'mode':
        // A symlink has none of its own.
        return before.kind !== 'symlink' && before.mode !== after.mode
      case 'owner':
        return before.uid !== after.uid || before.gid !== after.gid
      case 'mtime':
        return before.mtimeNs !== after.mtimeNs && (isWithDirectoryTimes || before.kind !== 'directory' || after.kind !== 'directory')
      case 'xattrs':
        return !sameXattrs(before.xattrs, after.xattrs)
    }
  })
}

function differInContent(before: Side, after: Side): boolean {
  if (before.size !== after.size) return true
  const [old, now] = [before.digest(), after.digest()]
  return old !== undefined && now !== undefined && old !== now
}

/** Both sorted by name. */
function sameXattrs(a: readonly Xattr[], b: readonly Xattr[]): boolean {
  return a.length === b.length && a.every(({ name, value }, i) => name === b[i]?.name && value === b[i]?.value)
}
