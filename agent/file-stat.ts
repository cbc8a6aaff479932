/**
 * What lstat(2) says of a path: enough to tell whether it changed since a version of it was captured.
 *
 * Invariant: names go in as bytes and times come out in nanoseconds. It prevents a change from hiding in the digits that
 * a double drops, or behind a name that is not UTF-8.
 */
import { type BigIntStats, constants, lstatSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { pathBuffer, type RelativePath } from '../shared/path.ts'
import type { FileKind, Version } from '../shared/version.ts'
import type { Stat } from './system-calls.ts'

/** What lstat(2) of Node, or statx(2), has of it. */
type SystemStat = Pick<Stat, 'ino' | 'size' | 'mtimeNs' | 'ctimeNs'> & Readonly<Record<'mode' | 'uid' | 'gid', number | bigint>>

export interface FileStat {
  readonly kind: FileKind
  /** The lower 12 bits of st_mode. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly inode: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}

/** The part of a version by which a change is noticed. */
export interface Identity extends FileStat {
  /** Why it is worth another look though nothing changed: its content was not read in a stable state, or was lost. */
  readonly doubt: 'none' | 'unstable' | 'lost'
}

/** Where a volume's directory is, and which directory it was when watching began. */
export interface VolumeRoot {
  /** Absolute, without a '/' at its end. */
  readonly directory: ByteString
  readonly device: bigint
  readonly inode: bigint
}

const MODE_MASK = 0o7777

const KINDS = new Map<number, FileKind>([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'directory'],
  [constants.S_IFLNK, 'symlink'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFSOCK, 'socket'],
  [constants.S_IFCHR, 'character-device'],
  [constants.S_IFBLK, 'block-device'],
])

/** The bytes that name `path` of a volume to the system. The root ends in '/', so that a root that is a symlink is followed. */
export function absolutePath(directory: ByteString, path: RelativePath): ByteString {
  return `${directory}/${path}`
}

/** Undefined where there is nothing. @throws what lstat(2) says otherwise */
export function statAt(absolute: ByteString): BigIntStats | undefined {
  return lstatSync(pathBuffer(absolute), { bigint: true, throwIfNoEntry: false })
}

export function fileStat(stats: SystemStat): FileStat {
  const mode = Number(stats.mode)
  return {
    kind: kindOf({ mode }),
    mode: mode & MODE_MASK,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: Number(stats.size),
    inode: stats.ino,
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
  }
}

export function kindOf({ mode }: Pick<Stat, 'mode'>): FileKind {
  return KINDS.get(mode & constants.S_IFMT) ?? 'socket'
}

export function identityOf({ version, isLost }: { readonly version: Version; readonly isLost: boolean }): Identity {
  const { kind, mode, uid, gid, inode, mtimeNs, ctimeNs } = version
  const size = version.kind === 'file' ? version.size : 0
  const isUnstable = version.kind === 'file' && version.consistency !== 'stable' && version.consistency !== 'crash-consistent'
  return { kind, mode, uid, gid, size, inode, mtimeNs, ctimeNs, doubt: isLost ? 'lost' : isUnstable ? 'unstable' : 'none' }
}

/** Whether the path is still what was captured, so far as the system tells. */
export function isUnchanged(known: FileStat, now: FileStat): boolean {
  return (
    known.kind === now.kind &&
    known.inode === now.inode &&
    known.ctimeNs === now.ctimeNs &&
    known.mtimeNs === now.mtimeNs &&
    (known.kind !== 'file' || known.size === now.size) &&
    known.mode === now.mode &&
    known.uid === now.uid &&
    known.gid === now.gid
  )
}

/** Whether nothing that changes with content or metadata has changed between two looks. */
export function isSameState(a: Stat, b: Stat): boolean {
  return isSameFile(a, b) && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs
}

export function isSameFile(a: Stat, b: Stat): boolean {
  return a.ino === b.ino && a.dev === b.dev
}
