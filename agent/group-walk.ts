/**
 * The captured side of a volume in the order of inodes, page by page, with what is known of the listing of directories.
 *
 * Invariant: a group whose checksum is wrong ends the walk with an error. It prevents inodes that the index has lost from
 * being taken for unchanged.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import type { Database, ScanPage } from './database.ts'
import { GROUP_INODES_SHIFT, GroupReader, isWholeGroup } from './inode-group.ts'
import { groupPrefix, listedPrefix, rangeOfPrefix } from './state-keys.ts'

const PAGE_GROUPS = 256
const PAGE_LISTED = 1024
const KEY_BYTES = 8

/** The index by inode is not of use; the volume has to be walked. */
export class IndexDamaged extends Error {}

/** Pages of a range of numbered keys, the next one fetched ahead. */
class NumberedPages {
  readonly #database: Database
  readonly #prefix: ByteString
  readonly #limit: number
  #next: Promise<ScanPage>
  #isLast = false

  constructor(database: Database, prefix: ByteString, from: bigint, limit: number) {
    this.#database = database
    this.#prefix = prefix
    this.#limit = limit
    this.#next = this.#page(`${prefix}${numberKey(from)}`)
  }

  async take(): Promise<ScanPage['entries']> {
    if (this.#isLast) return []
    const page = await this.#next
    const last = page.entries.at(-1)
    this.#isLast = last === undefined
    if (last !== undefined) this.#next = this.#page(`${last[0].toString('latin1')}\0`)
    return page.entries
  }

  #page(gte: ByteString): Promise<ScanPage> {
    const page = this.#database.scanPage({ gte, lt: rangeOfPrefix(this.#prefix).lt }, this.#limit)
    // Whoever takes it is told.
    page.catch(() => {})
    return page
  }
}

export class GroupWalk {
  readonly #groups: NumberedPages
  readonly #listed: NumberedPages
  #page: ScanPage['entries'] = []
  #at = -1
  /** The entry that is next; undefined at the end. */
  reader: GroupReader | undefined
  /** Its inode; infinite at the end. */
  inode = 0
  #listedPage: ScanPage['entries'] = []
  #listedAt = 0
  #isListedAtEnd = false

  private constructor(database: Database, volume: Label, from: number) {
    this.#groups = new NumberedPages(database, groupPrefix(volume), BigInt(from) >> GROUP_INODES_SHIFT, PAGE_GROUPS)
    this.#listed = new NumberedPages(database, listedPrefix(volume), BigInt(from), PAGE_LISTED)
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
    const [, value] = this.#page[this.#at] ?? []
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
    const [, value] = this.#page[0] ?? []
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

/** The greatest inode of the index, and one more. */
export async function inodesEnd(database: Database, volume: Label): Promise<number> {
  const last = await database.last(rangeOfPrefix(groupPrefix(volume)))
  const group = last === undefined ? 0 : numberAt(Buffer.from(last[0], 'latin1')) + 1
  return group * 2 ** Number(GROUP_INODES_SHIFT)
}
