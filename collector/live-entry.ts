/**
 * What stands at a path of a directory now, as far as a restore in place compares it, keeps it or puts it back.
 *
 * Looked at by descriptors (safe-directory.ts) and never through a symlink. Invariant: two looks at the same thing that nobody has written to in between
 * give the same print. It prevents an undo that takes a newer file for the one that was restored.
 */
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, readSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { type Digest, StreamingDigest } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { pathBuffer, type RelativePath } from '../shared/path.ts'
import type { FileKind, Xattr } from '../shared/version.ts'
import type { SafeDirectory } from './safe-directory.ts'

/** What can be given back to a path that kept its content. */
export interface LiveMetadata {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** ns since 1970 UTC. */
  readonly mtimeNs: bigint
  /** Sorted by name. */
  readonly xattrs: readonly Xattr[]
}

export interface LiveEntry extends LiveMetadata {
  readonly kind: FileKind
  readonly device: bigint
  readonly inode: bigint
  readonly links: number
  /** Bytes, of a file. */
  readonly size: number
  /** Of a symlink. */
  readonly target: ByteString | undefined
  /** Of a device node: st_rdev. */
  readonly node: bigint
}

/** What tells one entry, and one state of it, from another. */
export interface Print {
  readonly inode: bigint
  readonly size: number
  readonly mtimeNs: bigint
}

const PERMISSION_BITS = 0o7777n
const READ_BYTES = 1 << 20
const NANOSECONDS = 1_000_000_000n
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** Undefined where nothing is there. @throws the system's error */
export function liveEntry(tree: SafeDirectory, path: RelativePath): LiveEntry | undefined {
  tree.trim()
  const at = tree.at(path)
  const stat = lstatSync(pathBuffer(at), { bigint: true, throwIfNoEntry: false })
  if (stat === undefined) return undefined
  const kind = kindOf(stat)
  return {
    kind,
    mode: Number(stat.mode & PERMISSION_BITS),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeNs: stat.mtimeNs,
    xattrs: libc?.xattrs(at) ?? [],
    device: stat.dev,
    inode: stat.ino,
    links: Number(stat.nlink),
    size: kind === 'file' ? Number(stat.size) : 0,
    target: kind === 'symlink' ? readlinkSync(pathBuffer(at), { encoding: 'buffer' }).toString('latin1') : undefined,
    node: kind === 'character-device' || kind === 'block-device' ? stat.rdev : 0n,
  }
}

/** The same, of which only what identifies it is looked at; undefined where nothing is there, or nothing can be. */
export function printAt(tree: SafeDirectory, path: RelativePath): Print | undefined {
  tree.trim()
  try {
    const stat = lstatSync(pathBuffer(tree.at(path)), { bigint: true, throwIfNoEntry: false })
    return stat === undefined ? undefined : { inode: stat.ino, size: stat.isFile() ? Number(stat.size) : 0, mtimeNs: stat.mtimeNs }
  } catch (error) {
    const errno = errnoOf(error)
    // A directory above it is gone, or is none any more.
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'ELOOP') return undefined
    throw error
  }
}

/** Of a directory only the inode: its time changes with every name in it. */
export function isPrint(found: Print | undefined, expected: Print, isDirectory: boolean): boolean {
  if (found?.inode !== expected.inode) return false
  return isDirectory || (found.size === expected.size && isSameTime(found.mtimeNs, expected.mtimeNs))
}

/** Some filesystems keep seconds of what was set. */
export function isSameTime(found: bigint, set: bigint): boolean {
  return found === set || (found % NANOSECONDS === 0n && found / NANOSECONDS === set / NANOSECONDS)
}

/** Of a regular file's content, read now. `onRead` is told of each piece, in bytes. @throws the system's error */
export function digestAt(tree: SafeDirectory, path: RelativePath, onRead: (bytes: number) => void): Digest {
  tree.trim()
  const fd = openSync(pathBuffer(tree.at(path)), OPEN_FILE)
  try {
    const digest = new StreamingDigest()
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, fstatSync(fd).size + 1))
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) {
      digest.update(buffer.subarray(0, read))
      onRead(read)
    }
    return digest.finish()
  } finally {
    closeSync(fd)
  }
}

/** Whether some process has the file open for writing; false also where that cannot be asked. */
export function isOpenForWriting(tree: SafeDirectory, path: RelativePath): boolean {
  tree.trim()
  let fd: number
  try {
    fd = openSync(pathBuffer(tree.at(path)), OPEN_FILE)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return false
  }
  try {
    const lease = libc?.takeReadLease(fd)
    if (lease === 'granted') libc?.releaseLease(fd)
    return lease === 'busy'
  } finally {
    closeSync(fd)
  }
}

function kindOf(stat: BigIntStats): FileKind {
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isFIFO()) return 'fifo'
  if (stat.isSocket()) return 'socket'
  if (stat.isCharacterDevice()) return 'character-device'
  return stat.isBlockDevice() ? 'block-device' : 'file'
}
