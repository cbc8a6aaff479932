/**
 * The print of a path: the bytes of an identity (file-stat.ts), laid out so that a scan compares them with what the system
 * says without making a value of either (docs/format.md, "The agent's state directory").
 *
 *     0 u16 st_mode, 2 u8 doubt, 3 u8 0, 4 u32 uid, 8 u32 gid, 12 u64 inode, 20 u64 size (of a file, else 0),
 *     28 i64 mtime seconds, 36 u32 nanoseconds, 40 i64 ctime seconds, 48 u32 nanoseconds
 *
 * Invariant: `isPrintOf` and `isPrintOfRecord` say "unchanged" exactly where `isUnchanged` says so of an identity without
 * doubt. It prevents a scan from passing over a change that a look would have found.
 */
import { constants } from 'node:fs'
import type { ByteWriter } from '../shared/bytes.ts'
import type { FileKind } from '../shared/version.ts'
import type { Identity } from './file-stat.ts'
import { BULKSTAT, STATX } from './system-calls.ts'

export const PRINT_BYTES = 52

const MODE = 0
const DOUBT = 2
const UID = 4
const GID = 8
const INODE = 12
const SIZE = 20
const MTIME = 28
const MTIME_NS = 36
const CTIME = 40
const CTIME_NS = 48
const NS = 1_000_000_000n

/** Words of struct statx, and of a record of bulkstat; constants of their own, because they are asked for millions of times. */
const S_MODE = STATX.mode >> 2
const S_UID = STATX.uid >> 2
const S_GID = STATX.gid >> 2
const S_INODE = STATX.ino >> 2
const S_SIZE = STATX.size >> 2
const S_MTIME = STATX.mtime >> 2
const S_CTIME = STATX.ctime >> 2
const B_MODE = BULKSTAT.mode >> 2
const B_UID = BULKSTAT.uid >> 2
const B_GID = BULKSTAT.gid >> 2
const B_SIZE = BULKSTAT.size >> 2
const B_MTIME = BULKSTAT.mtime >> 2
const B_MTIME_NS = BULKSTAT.mtimeNs >> 2
const B_CTIME = BULKSTAT.ctime >> 2
const B_CTIME_NS = BULKSTAT.ctimeNs >> 2

const DOUBTS = ['none', 'unstable', 'lost'] as const
const TYPES: Record<FileKind, number> = {
  'file': constants.S_IFREG,
  'directory': constants.S_IFDIR,
  'symlink': constants.S_IFLNK,
  'fifo': constants.S_IFIFO,
  'socket': constants.S_IFSOCK,
  'character-device': constants.S_IFCHR,
  'block-device': constants.S_IFBLK,
}

export function writePrint(identity: Identity, to: ByteWriter): void {
  const { kind, mode, uid, gid, size, inode, mtimeNs, ctimeNs, doubt } = identity
  to.u16(TYPES[kind] | mode)
    .u8(DOUBTS.indexOf(doubt))
    .u8(0)
  to.u32(uid).u32(gid).big64(inode)
  to.u64(kind === 'file' ? size : 0)
  for (const time of [mtimeNs, ctimeNs]) {
    const nanoseconds = ((time % NS) + NS) % NS
    to.signed64((time - nanoseconds) / NS).u32(Number(nanoseconds))
  }
}

/** Whether the struct statx says what the print says, and the print is not in doubt. */
export function isPrintOf(print: Buffer, at: number, statx: Buffer): boolean {
  const mode = print.readUInt16LE(at + MODE)
  return (
    print[at + DOUBT] === 0 &&
    mode === statx.readUInt16LE(STATX.mode) &&
    isSame64(print, at + INODE, statx, STATX.ino) &&
    isSame64(print, at + CTIME, statx, STATX.ctime) &&
    isSame32(print, at + CTIME_NS, statx, STATX.ctime + 8) &&
    isSame64(print, at + MTIME, statx, STATX.mtime) &&
    isSame32(print, at + MTIME_NS, statx, STATX.mtime + 8) &&
    (!isType(mode, constants.S_IFREG) || isSame64(print, at + SIZE, statx, STATX.size)) &&
    isSame32(print, at + UID, statx, STATX.uid) &&
    isSame32(print, at + GID, statx, STATX.gid)
  )
}

/** The same of 32-bit words, for what lies aligned in memory: words are read several times faster than bytes are put together. */
export function isPrintOfWords(print: Uint32Array, at: number, statx: Uint32Array): boolean {
  const mode = (statx[S_MODE] ?? 0) & 0xffff
  return (
    // The doubt is in the upper half.
    print[at] === mode &&
    print[at + 3] === statx[S_INODE] &&
    print[at + 4] === statx[S_INODE + 1] &&
    print[at + 10] === statx[S_CTIME] &&
    print[at + 11] === statx[S_CTIME + 1] &&
    print[at + 12] === statx[S_CTIME + 2] &&
    print[at + 7] === statx[S_MTIME] &&
    print[at + 8] === statx[S_MTIME + 1] &&
    print[at + 9] === statx[S_MTIME + 2] &&
    (!isType(mode, constants.S_IFREG) || (print[at + 5] === statx[S_SIZE] && print[at + 6] === statx[S_SIZE + 1])) &&
    print[at + 1] === statx[S_UID] &&
    print[at + 2] === statx[S_GID]
  )
}

/**
 * The same of a record of bulkstat, at the word `record`. The size is that on disk, which lags behind for what is not written
 * back yet: where nothing but the size differs, 'size' asks for another look.
 */
export function isPrintOfRecord(print: Uint32Array, at: number, records: Uint32Array, record: number): boolean | 'size' {
  const mode = (records[record + B_MODE] ?? 0) & 0xffff
  const isSame =
    print[at] === mode &&
    print[at + 10] === records[record + B_CTIME] &&
    print[at + 11] === records[record + B_CTIME + 1] &&
    print[at + 12] === records[record + B_CTIME_NS] &&
    print[at + 7] === records[record + B_MTIME] &&
    print[at + 8] === records[record + B_MTIME + 1] &&
    print[at + 9] === records[record + B_MTIME_NS] &&
    print[at + 1] === records[record + B_UID] &&
    print[at + 2] === records[record + B_GID]
  if (!isSame || !isType(mode, constants.S_IFREG)) return isSame
  const size = record + B_SIZE
  return print[at + 5] === records[size] && print[at + 6] === records[size + 1] ? true : 'size'
}

/** The inode, for filesystems whose numbers are exact in a double. */
export function inodeOfPrint(print: Uint32Array, at: number): number {
  return (print[at + 3] ?? 0) + (print[at + 4] ?? 0) * 0x1_0000_0000
}

export function exactInodeOfPrint(print: Buffer, at: number): bigint {
  return print.readBigUInt64LE(at + INODE)
}

export function isType(mode: number, type: number): boolean {
  return (mode & constants.S_IFMT) === type
}

function isSame32(a: Buffer, atA: number, b: Buffer, atB: number): boolean {
  return a.readUInt32LE(atA) === b.readUInt32LE(atB)
}

function isSame64(a: Buffer, atA: number, b: Buffer, atB: number): boolean {
  return a.readUInt32LE(atA) === b.readUInt32LE(atB) && a.readUInt32LE(atA + 4) === b.readUInt32LE(atB + 4)
}
