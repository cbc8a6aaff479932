/**
 * The index of the state by inode: which paths an inode has, and their prints (stat-print.ts), for 32 inodes in one value.
 *
 * Filesystems hand out inodes in runs, so a group is mostly full, and a scan in inode order reads few values instead of one
 * for each file. Value: u32 CRC of what follows, then for each path, in the order of inodes and then of paths:
 * print, u32 length, PATHKEY, and zeros up to a multiple of four bytes.
 *
 * Invariant: a group whose checksum is wrong is told apart from one that is empty. It prevents damage from looking like
 * inodes that nobody ever captured.
 */
import { crc32 } from 'node:zlib'
import { asBuffer, type ByteString, ByteWriter } from '../shared/bytes.ts'
import { exactInodeOfPrint, inodeOfPrint, PRINT_BYTES } from './stat-print.ts'

export const GROUP_INODES_SHIFT = 5n
const HEAD_BYTES = 4
const LENGTH_BYTES = 4

/** What a batch of records does to one group, by `changeKey`; no print: the inode is not at that path any more. */
export type GroupChanges = Map<ByteString, { readonly inode: bigint; readonly key: ByteString; readonly print: Buffer | undefined }>

const WORD = 4
/** Of an entry, without its key. */
const ENTRY_WORDS = (PRINT_BYTES + LENGTH_BYTES) / WORD

/** The entries of a whole group one after the other, without a value for each. */
export class GroupReader {
  readonly bytes: Buffer
  readonly words: Uint32Array
  /** The word at which the print of the entry begins; the number of words when there is none. */
  at = HEAD_BYTES / WORD

  constructor(value: Buffer) {
    this.bytes = value.byteOffset % WORD === 0 ? value : asBuffer(new Uint8Array(value))
    this.words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length / WORD)
  }

  get hasEntry(): boolean {
    return this.at < this.words.length
  }

  get inode(): number {
    return inodeOfPrint(this.words, this.at)
  }

  get #length(): number {
    return this.words[this.at + PRINT_BYTES / WORD] ?? 0
  }

  get key(): ByteString {
    const from = this.at * WORD + PRINT_BYTES + LENGTH_BYTES
    return this.bytes.toString('latin1', from, from + this.#length)
  }

  /** Whether the key is that of a name in a directory, of which `prefix` is the beginning of all keys; the name is `length` of the bytes, from `at` on. */
  isKey(prefix: ByteString, name: Buffer, at: number, length: number): boolean {
    if (this.#length !== prefix.length + length) return false
    const { bytes } = this
    const key = this.at * WORD + PRINT_BYTES + LENGTH_BYTES
    const end = key + prefix.length
    // The ends differ more often than the beginnings.
    for (let i = length - 1; i >= 0; i--) if (bytes[end + i] !== name[at + i]) return false
    for (let i = prefix.length - 1; i >= 0; i--) if (bytes[key + i] !== prefix.charCodeAt(i)) return false
    return true
  }

  rewind(): void {
    this.at = HEAD_BYTES / WORD
  }

  next(): void {
    this.at += ENTRY_WORDS + ((this.#length + WORD - 1) >> 2)
  }
}

export function isWholeGroup(value: Buffer): boolean {
  return value.length >= HEAD_BYTES && value.length % WORD === 0 && crc32(value.subarray(HEAD_BYTES)) === value.readUInt32LE(0)
}

/** Of a group with a path in it, as all have that are stored. */
export function firstInodeOf(value: Buffer): bigint {
  return value.length < HEAD_BYTES + PRINT_BYTES ? 0n : exactInodeOfPrint(value, HEAD_BYTES)
}

/** The paths of an inode in its group. */
export function keysOf(value: Buffer, inode: bigint): ByteString[] {
  const keys: ByteString[] = []
  if (!isWholeGroup(value)) return keys
  for (const reader = new GroupReader(value); reader.hasEntry; reader.next()) {
    if (exactInodeOfPrint(reader.bytes, reader.at * WORD) === inode) keys.push(reader.key)
  }
  return keys
}

const PADDING = '\0\0\0'
const writer = new ByteWriter()

/** The group after the changes; undefined when nothing is left in it. A damaged one stays: it tells scans not to rely on it. */
export function changedGroup(value: Buffer | undefined, changes: GroupChanges): Buffer | undefined {
  const entries: { readonly inode: bigint; readonly key: ByteString; readonly print: Buffer }[] = []
  if (value !== undefined) {
    if (!isWholeGroup(value)) return value
    for (const reader = new GroupReader(value); reader.hasEntry; reader.next()) {
      const print = reader.bytes.subarray(reader.at * WORD, reader.at * WORD + PRINT_BYTES)
      const inode = exactInodeOfPrint(print, 0)
      const { key } = reader
      if (!changes.has(changeKey(inode, key))) entries.push({ inode, key, print })
    }
  }
  for (const { inode, key, print } of changes.values()) if (print !== undefined) entries.push({ inode, key, print })
  if (entries.length === 0) return undefined
  entries.sort((a, b) => (a.inode === b.inode ? (a.key < b.key ? -1 : 1) : a.inode < b.inode ? -1 : 1))
  writer.reset()
  writer.u32(0)
  for (const { key, print } of entries)
    writer
      .raw(print)
      .u32(key.length)
      .rawString(key)
      .rawString(PADDING.slice(0, -key.length & 3))
  const group = writer.take()
  group.writeUInt32LE(crc32(group.subarray(HEAD_BYTES)), 0)
  return group
}

export function changeKey(inode: bigint, key: ByteString): ByteString {
  return `${inode}\0${key}`
}
