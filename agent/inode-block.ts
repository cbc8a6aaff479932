/**
 * Blocks of 4096 inode numbers, and what a scan has seen of one: that everything in it is as it is recorded, while the filesystem said this of its inodes.
 *
 * The state has a row for each block in which something is or was recorded (docs/format.md): empty, or `ENTRIES DIGEST`. The digest is of what
 * the filesystem says of all inodes of the block, the volume's or not. Where it says the same again, and no record has touched the block since (state-fold.ts),
 * nothing in it can differ from what is recorded, and the index by inode need not be read.
 *
 * Invariant: everything is in the digest by which an inode, or the names in a directory, could be told to have changed. It prevents a change from being
 * passed over with four thousand others that are as they were.
 */
import { digestHex, digestOf } from '../shared/digest.ts'
import { BULKSTAT } from './system-calls.ts'

export const BLOCK_INODES_SHIFT = 12n
export const BLOCK_INODES = 2 ** Number(BLOCK_INODES_SHIFT)

/** What a scan has seen of a block, as it is kept. */
export interface SeenBlock {
  readonly block: number
  readonly row: string
}

export interface BlockRow {
  readonly block: number
  readonly seen: SeenBefore | undefined
}

/** How many paths were compared, and what the filesystem said of which inodes. */
interface SeenBefore {
  readonly entries: number
  readonly digest: string
}

/** Of a block of which nothing was seen since its last change. */
export const UNSEEN_ROW = ''

export function seenRow(entries: number, digest: string): string {
  return `${entries} ${digest}`
}

/** Undefined where nothing was seen, or the row is damaged. */
export function parseRow(text: string): SeenBefore | undefined {
  const [, entries, digest] = /^(\d+) ([0-9a-f]{64})$/.exec(text) ?? []
  return digest === undefined ? undefined : { entries: Number(entries), digest }
}

/** Words of a record of bulkstat; constants of their own, because they are asked for millions of times. */
const RECORD = BULKSTAT.bytes >> 2
const INO = BULKSTAT.ino >> 2
const MODE = BULKSTAT.mode >> 2
const NLINK = BULKSTAT.nlink >> 2
const UID = BULKSTAT.uid >> 2
const GID = BULKSTAT.gid >> 2
const SIZE = BULKSTAT.size >> 2
const MTIME = BULKSTAT.mtime >> 2
const MTIME_NS = BULKSTAT.mtimeNs >> 2
const CTIME = BULKSTAT.ctime >> 2
const CTIME_NS = BULKSTAT.ctimeNs >> 2

const SAID_WORDS = 14
const said = new Uint32Array(BLOCK_INODES * SAID_WORDS)

/** In hexadecimal digits, of the records from `first` on and before `until`, of one block. */
export function digestOfRecords(records: Uint32Array, first: number, until: number): string {
  let to = 0
  for (let at = first * RECORD; at < until * RECORD; at += RECORD) {
    // One that has no name any more is of no interest (inode-scan.ts).
    if (records[at + NLINK] === 0) continue
    said[to++] = records[at + INO] ?? 0
    said[to++] = records[at + INO + 1] ?? 0
    said[to++] = (records[at + MODE] ?? 0) & 0xffff
    said[to++] = records[at + NLINK] ?? 0
    said[to++] = records[at + UID] ?? 0
    said[to++] = records[at + GID] ?? 0
    said[to++] = records[at + SIZE] ?? 0
    said[to++] = records[at + SIZE + 1] ?? 0
    said[to++] = records[at + MTIME] ?? 0
    said[to++] = records[at + MTIME + 1] ?? 0
    said[to++] = records[at + MTIME_NS] ?? 0
    said[to++] = records[at + CTIME] ?? 0
    said[to++] = records[at + CTIME + 1] ?? 0
    said[to++] = records[at + CTIME_NS] ?? 0
  }
  return digestHex(digestOf(new Uint8Array(said.buffer, 0, to * said.BYTES_PER_ELEMENT)))
}
