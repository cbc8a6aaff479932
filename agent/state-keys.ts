/**
 * The layout of the state database: keys and values (docs/format.md, "Agent state").
 *
 *     p VOLUME NUL PATHKEY                  -> crc32 u32, print (stat-print.ts), seq u64, lost u8, version
 *     i VOLUME NUL INODE/32(8, big-endian)  -> the paths and prints of 32 inodes (inode-group.ts)
 *     l VOLUME NUL INODE(8, big-endian)     -> mtime and ctime, 12 bytes each, of a directory that held exactly what is recorded
 *     b VOLUME NUL INODE/4096(8, b.-endian) -> what a scan has seen of these inodes (inode-block.ts)
 *     u VOLUME                              -> the rules under which scans see what `l` and `b` remember
 *     v VOLUME                              -> JSON of the volume's facts
 *     m                                     -> layout u64, epoch u64, applied u64
 *
 * Invariant: the keys of a volume's paths are in the order of a depth-first walk with sorted names. It prevents a scan
 * from having to hold either side in memory. A value whose checksum is wrong is no value: the path is captured again.
 */
import { crc32 } from 'node:zlib'
import { ByteReader, type ByteString, type ByteWriter } from '../shared/bytes.ts'
import { type Label, pathFromKey, pathKey, type RelativePath, ROOT } from '../shared/path.ts'
import { decodeVersion, encodeVersion } from '../shared/version.ts'
import type { KeyRange } from './database.ts'
import { identityOf } from './file-stat.ts'
import { GROUP_INODES_SHIFT } from './inode-group.ts'
import { PRINT_BYTES, writePrint } from './stat-print.ts'
import type { Known } from './state.ts'

/** Grows when keys or values get another meaning: what was written under another number is begun anew. */
export const LAYOUT = 3

export const MARK_KEY = 'm'
export const ALL_KEYS: KeyRange = { gte: '\0', lt: '\xff' }
export const FACTS_KEYS: KeyRange = { gte: 'v', lt: 'w' }

const INODE_BYTES = 8

export function keyOf(volume: Label, path: RelativePath): ByteString {
  return `p${volume}\0${pathKey(path)}`
}

export function pathOfKey(volume: Label, key: ByteString): RelativePath {
  return pathFromKey(key.slice(volume.length + 2))
}

/** The path and everything below it. */
export function rangeWithin(volume: Label, path: RelativePath): { readonly gte: ByteString; readonly lt: ByteString } {
  const key = keyOf(volume, path)
  // All keys of a volume begin with its root's; below another path they continue with NUL, and no name holds one.
  return { gte: key, lt: path === ROOT ? `p${volume}\x01` : `${key}\x01` }
}

/** All paths of a volume; what follows the prefix in a key is PATHKEY. */
export function pathPrefix(volume: Label): ByteString {
  return `p${volume}\0`
}

export function groupPrefix(volume: Label): ByteString {
  return `i${volume}\0`
}

/** The group that holds an inode. */
export function groupKey(volume: Label, inode: bigint): ByteString {
  return `${groupPrefix(volume)}${eightBytes(inode >> GROUP_INODES_SHIFT)}`
}

export function listedPrefix(volume: Label): ByteString {
  return `l${volume}\0`
}

export function listedKey(volume: Label, inode: bigint): ByteString {
  return `${listedPrefix(volume)}${eightBytes(inode)}`
}

export function blockPrefix(volume: Label): ByteString {
  return `b${volume}\0`
}

export function blockKey(volume: Label, block: bigint): ByteString {
  return `${blockPrefix(volume)}${eightBytes(block)}`
}

export function rulesKey(volume: Label): ByteString {
  return `u${volume}`
}

/** All keys that begin with a prefix of those above. */
export function rangeOfPrefix(prefix: ByteString): { readonly gte: ByteString; readonly lt: ByteString } {
  return { gte: prefix, lt: `${prefix.slice(0, -1)}\x01` }
}

function eightBytes(number: bigint): ByteString {
  const bytes = Buffer.allocUnsafe(INODE_BYTES)
  bytes.writeBigUInt64BE(number)
  return bytes.toString('latin1')
}

export function factsKey(volume: Label): ByteString {
  return `v${volume}`
}

export function volumeOfFactsKey(key: ByteString): Label {
  return key.slice(1) as Label
}

export function encodeKnown(known: Known, writer: ByteWriter): Buffer {
  const { seq, version, isLost } = known
  writer.reset()
  writer.u32(0)
  writePrint(identityOf(known), writer)
  writer.u64(seq).u8(Number(isLost))
  encodeVersion(version, writer)
  const value = writer.take()
  value.writeUInt32LE(crc32(value.subarray(4)), 0)
  return value
}

/** Where the print begins in the value of a path. */
export const PRINT_AT = 4

export function isWholeKnown(value: Buffer): boolean {
  return value.length >= PRINT_AT + PRINT_BYTES && crc32(value.subarray(PRINT_AT)) === value.readUInt32LE(0)
}

export function decodeKnown(value: Buffer): Known | undefined {
  if (!isWholeKnown(value)) return undefined
  const from = new ByteReader(value, 'State entry')
  from.raw(PRINT_AT + PRINT_BYTES)
  return { seq: from.u64(), isLost: from.u8() === 1, version: decodeVersion(from) }
}
