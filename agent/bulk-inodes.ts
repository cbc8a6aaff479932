/**
 * The inodes of an XFS in the order of their numbers, many at a time, as XFS_IOC_BULKSTAT gives them.
 *
 * Invariant: what is given for a range is all that the filesystem holds in it: where a call brings fewer than it was asked for, only one that brings none is
 * the end. It prevents a call that was cut short from making the rest of the inodes missing.
 */
import { BLOCK_INODES } from './inode-block.ts'
import type { ScanRoot } from './scan-root.ts'
import { BULKSTAT, type BulkstatAnswer } from './system-calls.ts'

/** More than there can be in a block, so that one call brings at least one. */
const BATCH_INODES = 2 * BLOCK_INODES
const RECORD = BULKSTAT.bytes >> 2

/** Records from `first` on and before `until`; valid until the next range is asked for. */
export interface InodeRange {
  readonly records: Uint32Array
  readonly first: number
  readonly until: number
}

export class BulkInodes {
  readonly #root: ScanRoot
  #records: Uint32Array = new Uint32Array(0)
  #count = 0
  /** The numbers of which all inodes are in the records. */
  #from = 0
  #until = 0
  /** The first record that was not given yet. */
  #at = 0

  constructor(root: ScanRoot) {
    this.#root = root
  }

  /** Of numbers from `from` on and before `until`, no more than a block of them, and none of which came before in another range. */
  within(from: number, until: number): InodeRange {
    // The last call may have brought more than it was asked for.
    if (from < this.#from || until > this.#until) this.#read(from)
    while (this.#at < this.#count && this.#inodeAt(this.#at) < from) this.#at += 1
    const first = this.#at
    while (this.#at < this.#count && this.#inodeAt(this.#at) < until) this.#at += 1
    return { records: this.#records, first, until: this.#at }
  }

  #read(from: number): void {
    let { records, count }: BulkstatAnswer = this.#ask(from, BATCH_INODES)
    let isEnd = count === 0
    while (!isEnd && count < BATCH_INODES) {
      // The next answer comes to the same place.
      const before = records.slice(0, count * RECORD)
      const more = this.#ask(inodeIn(before, count - 1) + 1, BATCH_INODES - count)
      isEnd = more.count === 0
      records = new Uint32Array(before.length + more.count * RECORD)
      records.set(before)
      records.set(more.records.subarray(0, more.count * RECORD), before.length)
      count += more.count
    }
    this.#records = records
    this.#count = count
    this.#at = 0
    this.#from = from
    this.#until = isEnd ? Number.POSITIVE_INFINITY : inodeIn(records, count - 1) + 1
  }

  #ask(from: number, max: number): BulkstatAnswer {
    return this.#root.calls.bulkstat(this.#root.fd, BigInt(from), max)
  }

  #inodeAt(record: number): number {
    return inodeIn(this.#records, record)
  }
}

export function inodeIn(records: Uint32Array, record: number): number {
  const at = record * RECORD
  return (records[at] ?? 0) + (records[at + 1] ?? 0) * 0x1_0000_0000
}
