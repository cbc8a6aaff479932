/**
 * The index of the state by inode: which paths an inode has, and their prints (stat-print.ts), for 16 inodes in one value.
 *
 * Filesystems hand out inodes in runs, so a group is mostly full, and a scan in inode order reads few values instead of one
 * for each file. Value: u32 CRC of what follows, then for each path, in the order of inodes and then of paths:
 * print, u16 length, PATHKEY.
 *
 * Invariant: a group whose checksum is wrong is told apart from one that is empty. It prevents damage from looking like
 * inodes that nobody ever captured.
 */
import { crc32 } from 'node:zlib'
import { type ByteString, ByteWriter } from '../shared/bytes.ts'
import { exactInodeOfPrint, inodeOfPrint, PRINT_BYTES } from './stat-print.ts'

export const GROUP_INODES_SHIFT = 4n
const HEAD_BYTES = 4
const LENGTH_BYTES = 2

/** What a batch of records does to one group, by `changeKey`; no print: the inode is not at that path any more. */
export type GroupChanges = Map<ByteString, { readonly inode: bigint; readonly key: ByteString; readonly print: Buffer | undefined }>

/** The entries of a group one after the other, without a value for each. */
export class GroupReader {
  readonly bytes: Buffer
  /** Where the print of the entry begins; the length of the value when there is none. */
  at = HEAD_BYTES

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  get hasEntry(): boolean {
    return this.at < this.bytes.length
  }

  get inode(): number {
    return inodeOfPrint(this.bytes, this.at)
  }

  get key(): ByteString {
    const from = this.at + PRINT_BYTES + LENGTH_BYTES
    return this.bytes.toString('latin1', from, from + this.bytes.readUInt16LE(from - LENGTH_BYTES))
  }

  rewind(): void {
    this.at = HEAD_BYTES
  }

  next(): void {
    this.at += PRINT_BYTES + LENGTH_BYTES + this.bytes.readUInt16LE(this.at + PRINT_BYTES)
  }
}

export function isWholeGroup(value: Buffer): boolean {
  return value.length >= HEAD_BYTES && crc32(value.subarray(HEAD_BYTES)) === value.readUInt32LE(0)
}

/** The paths of an inode in its group. */
export function keysOf(value: Buffer, inode: bigint): ByteString[] {
  const keys: ByteString[] = []
  if (!isWholeGroup(value)) return keys
  for (const reader = new GroupReader(value); reader.hasEntry; reader.next()) {
    if (exactInodeOfPrint(value, reader.at) === inode) keys.push(reader.key)
  }
  return keys
}

const writer = new ByteWriter()

/** The group after the changes; undefined when nothing is left in it. A damaged one stays: it tells scans not to rely on it. */
export function changedGroup(value: Buffer | undefined, changes: GroupChanges): Buffer | undefined {
  const entries: { readonly inode: bigint; readonly key: ByteString; readonly print: Buffer }[] = []
  if (value !== undefined) {
    if (!isWholeGroup(value)) return value
    for (const reader = new GroupReader(value); reader.hasEntry; reader.next()) {
      const print = value.subarray(reader.at, reader.at + PRINT_BYTES)
      const inode = exactInodeOfPrint(value, reader.at)
      const { key } = reader
      if (!changes.has(changeKey(inode, key))) entries.push({ inode, key, print })
    }
  }
  for (const { inode, key, print } of changes.values()) if (print !== undefined) entries.push({ inode, key, print })
  if (entries.length === 0) return undefined
  entries.sort((a, b) => (a.inode === b.inode ? (a.key < b.key ? -1 : 1) : a.inode < b.inode ? -1 : 1))
  writer.reset()
  writer.u32(0)
  for (const { key, print } of entries) writer.raw(print).u16(key.length).rawString(key)
  const group = writer.take()
  group.writeUInt32LE(crc32(group.subarray(HEAD_BYTES)), 0)
  return group
}

export function changeKey(inode: bigint, key: ByteString): ByteString {
  return `${inode}\0${key}`
}
