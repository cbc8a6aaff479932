/**
 * The captured side of a volume in the order of inodes, page by page, with what is known of the listing of directories.
 *
 * Invariant: a group whose checksum is wrong ends the walk with an error. It prevents inodes that the index has lost from
 * being taken for unchanged.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import type { Database } from './database.ts'
import { BLOCK_INODES, type BlockRow, parseRow } from './inode-block.ts'
import { firstInodeOf, GROUP_INODES_SHIFT, GroupReader, isWholeGroup } from './inode-group.ts'
import { blockPrefix, groupPrefix, listedPrefix, rangeOfPrefix } from './state-keys.ts'

const PAGE_FIRST = 32
const PAGE_GROUPS = 256
const PAGE_ROWS = 1024
const KEY_BYTES = 8

/** The index by inode is not of use; the volume has to be walked. */
export class IndexDamaged extends Error {}

/** Pages of a range of numbered keys, the next one fetched ahead; larger ones as long as they are taken one after the other. */
abstract class NumberedPages<Entry> {
  readonly #prefix: ByteString
  readonly #max: number
  #limit = PAGE_FIRST
  #next: Promise<readonly Entry[]> | undefined
  #isLast = false

  constructor(prefix: ByteString, max: number) {
    this.#prefix = prefix
    this.#max = max
  }

  protected abstract fetch(range: { readonly gte: ByteString; readonly lt: ByteString }, limit: number): Promise<readonly Entry[]>
  protected abstract numberOf(entry: Entry): bigint

  begin(from: bigint): this {
    const page = this.fetch({ gte: `${this.#prefix}${numberKey(from)}`, lt: rangeOfPrefix(this.#prefix).lt }, this.#limit)
    this.#limit = Math.min(2 * this.#limit, this.#max)
    // Whoever takes it is told.
    page.catch(() => {})
    this.#next = page
    return this
  }

  async take(): Promise<readonly Entry[]> {
    if (this.#isLast || this.#next === undefined) return []
    const page = await this.#next
    const last = page.at(-1)
    this.#isLast = last === undefined
    if (last !== undefined) this.begin(this.numberOf(last) + 1n)
    return page
  }
}

class GroupPages extends NumberedPages<Buffer> {
  readonly #database: Database

  constructor(database: Database, volume: Label) {
    super(groupPrefix(volume), PAGE_GROUPS)
    this.#database = database
  }

  protected override fetch(range: { readonly gte: ByteString; readonly lt: ByteString }, limit: number): Promise<readonly Buffer[]> {
    return this.#database.scanValues(range, limit)
  }

  /** Of a damaged one it may be wrong: the walk ends there, before the page that follows is asked for anything. */
  protected override numberOf(group: Buffer): bigint {
    return firstInodeOf(group) >> GROUP_INODES_SHIFT
  }
}

/** Rows whose numbers are in their keys. */
class RowPages extends NumberedPages<readonly [Buffer, Buffer]> {
  readonly #database: Database

  constructor(database: Database, prefix: ByteString) {
    super(prefix, PAGE_ROWS)
    this.#database = database
  }

  protected override async fetch(
    range: { readonly gte: ByteString; readonly lt: ByteString },
    limit: number,
  ): Promise<readonly (readonly [Buffer, Buffer])[]> {
    return (await this.#database.scanPage(range, limit)).entries
  }

  protected override numberOf([key]: readonly [Buffer, Buffer]): bigint {
    return BigInt(numberAt(key))
  }
}

/** The blocks of inodes in which something is or was recorded, from one on, in their order. */
export async function* blockRows(database: Database, volume: Label, from: number): AsyncGenerator<BlockRow, void> {
  const pages = new RowPages(database, blockPrefix(volume)).begin(BigInt(from))
  for (let page = await pages.take(); page.length > 0; page = await pages.take())
    for (const [key, row] of page) yield { block: numberAt(key), seen: parseRow(row.toString('latin1')) }
}

export class GroupWalk {
  readonly #groups: GroupPages
  readonly #listed: RowPages
  #page: readonly Buffer[] = []
  #at = -1
  /** The entry that is next; undefined at the end. */
  reader: GroupReader | undefined
  /** Its inode; infinite at the end. */
  inode = 0
  #listedPage: readonly (readonly [Buffer, Buffer])[] = []
  #listedAt = 0
  #isListedAtEnd = false

  private constructor(database: Database, volume: Label, from: number) {
    this.#groups = new GroupPages(database, volume).begin(BigInt(from) >> GROUP_INODES_SHIFT)
    this.#listed = new RowPages(database, listedPrefix(volume)).begin(BigInt(from))
  }

  /** From the inode `from` on. */
  static async open(database: Database, volume: Label, from: number): Promise<GroupWalk> {
    const walk = new GroupWalk(database, volume, from)
    await walk.#nextGroup()
    while (walk.inode < from) await walk.next()
    return walk
  }

  /** Steps to the next entry; a promise where a page has to come first. */
  next(): Promise<void> | undefined {
    this.reader?.next()
    return this.#settle()
  }

  #settle(): Promise<void> | undefined {
    if (this.reader?.hasEntry === true) {
      this.inode = this.reader.inode
      return undefined
    }
    this.#at += 1
    const value = this.#page[this.#at]
    if (value === undefined) return this.#nextGroup()
    this.#open(value)
    return undefined
  }

  #open(value: Buffer): void {
    if (!isWholeGroup(value)) throw new IndexDamaged('the index by inode is damaged')
    this.reader = new GroupReader(value)
    this.inode = this.reader.inode
  }

  async #nextGroup(): Promise<void> {
    this.#page = await this.#groups.take()
    this.#at = 0
    const [value] = this.#page
    if (value !== undefined) {
      this.#open(value)
      return
    }
    this.reader = undefined
    this.inode = Number.POSITIVE_INFINITY
  }

  /** The times at which the directory was listed whole; ask in the order of inodes. */
  async listedTimes(inode: number): Promise<Buffer | undefined> {
    for (;;) {
      const entry = this.#listedPage[this.#listedAt]
      if (entry === undefined) {
        if (this.#isListedAtEnd) return undefined
        this.#listedPage = await this.#listed.take()
        this.#listedAt = 0
        this.#isListedAtEnd = this.#listedPage.length === 0
        continue
      }
      const at = numberAt(entry[0])
      if (at === inode) return entry[1]
      if (at > inode) return undefined
      this.#listedAt += 1
    }
  }
}

function numberKey(number: bigint): ByteString {
  const bytes = Buffer.allocUnsafe(KEY_BYTES)
  bytes.writeBigUInt64BE(number)
  return bytes.toString('latin1')
}

function numberAt(key: Buffer): number {
  const at = key.length - KEY_BYTES
  return key.readUInt32BE(at) * 0x1_0000_0000 + key.readUInt32BE(at + 4)
}

/** Behind the last block of which something is recorded, as an inode. */
export async function inodesEnd(database: Database, volume: Label): Promise<number> {
  const last = await database.last(rangeOfPrefix(blockPrefix(volume)))
  return last === undefined ? 0 : (numberAt(Buffer.from(last[0], 'latin1')) + 1) * BLOCK_INODES
}
