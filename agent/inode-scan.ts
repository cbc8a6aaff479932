/**
 * A scan of a volume on XFS by XFS_IOC_BULKSTAT: all inodes of the filesystem, without their names, against the index by inode.
 *
 * What an inode says is compared with the print of each of its paths. New names are found in directories: a directory whose
 * times are not those at which it was last seen to hold exactly what is recorded is listed, and directories that are new in it
 * are walked. A block of inodes of which the filesystem says what it said when all was as recorded is passed as a whole (inode-block.ts). Inodes that the index does not know are of no interest in themselves: they lie elsewhere in the filesystem, or
 * in a directory that is listed. Mounts below the volume do not change a directory; they come from the kernel's list.
 * Invariant: what a walk tells as different is told here too, by the same path. It prevents the faster scan from being the
 * blinder one.
 */
import { constants, readFileSync, readlinkSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { reasonOf } from '../shared/errors.ts'
import { pathFromKey, pathKey, type RelativePath } from '../shared/path.ts'
import { BulkInodes, type InodeRange, inodeIn } from './bulk-inodes.ts'
import { blockRows, GroupWalk } from './group-walk.ts'
import { BLOCK_INODES, type BlockRow, digestOfRecords, seenRow } from './inode-block.ts'
import { isAbsence, isForeign, nameOfKey, parentKey } from './scan-root.ts'
import { isPrintOf, isPrintOfRecord, isPrintOfWords, isType } from './stat-print.ts'
import { isWholeKnown, PRINT_AT, pathPrefix } from './state-keys.ts'
import { BULKSTAT, STATX } from './system-calls.ts'
import { listedOf, TreeWalk, type WalkParts } from './tree-walk.ts'

/** A range is cut in two only while it has more than these. */
const CUT_BLOCKS_MIN = 2
/** Names of a directory looked up at once. */
const NAMES_MAX = 512

export class InodeScan {
  readonly #parts: WalkParts
  readonly #inodes: BulkInodes
  #at: number
  #until: number
  /** The index, where it was read last. */
  #known: GroupWalk | undefined
  /** Whether all of the block is as it is recorded, so far. */
  #isClean = true
  /** Of the last path that was told: its directory, and whether that is there. */
  #parent: { readonly key: ByteString; readonly isThere: boolean } | undefined

  /** Of whole blocks of inodes, from the inode `from` on, below `until`. */
  constructor(parts: WalkParts, from: number, until: number) {
    this.#parts = parts
    this.#inodes = new BulkInodes(parts.root)
    this.#at = from
    this.#until = until
  }

  /** @throws IndexDamaged */
  async run(): Promise<void> {
    const { database, volume, outlet } = this.#parts
    for await (const row of blockRows(database, volume, this.#at / BLOCK_INODES)) {
      if (outlet.pause()) this.#handOver()
      // What is between the blocks is not asked for.
      this.#at = row.block * BLOCK_INODES
      if (this.#at >= this.#until || outlet.isCancelled) return
      await this.#block(row)
      this.#at += BLOCK_INODES
    }
  }

  async #block({ block, seen }: BlockRow): Promise<void> {
    const { outlet } = this.#parts
    const range = this.#inodes.within(this.#at, this.#at + BLOCK_INODES)
    const digest = digestOfRecords(range.records, range.first, range.until)
    if (digest === seen?.digest) {
      outlet.entries += seen.entries
      return
    }
    const before = outlet.entries
    this.#isClean = true
    await this.#join(await this.#knownFrom(this.#at), range, this.#at + BLOCK_INODES)
    if (this.#isClean) outlet.seen({ block, row: seenRow(outlet.entries - before, digest) })
  }

  async #knownFrom(inode: number): Promise<GroupWalk> {
    const { database, volume } = this.#parts
    // Blocks may have been passed since.
    if (this.#known === undefined || this.#known.inode < inode) this.#known = await GroupWalk.open(database, volume, inode)
    return this.#known
  }

  /** Merges the inodes of a block, as the filesystem has them, with the index, which goes on behind them. */
  async #join(known: GroupWalk, { records, first, until }: InodeRange, end: number): Promise<void> {
    for (let i = first; i < until; i++) {
      const record = (i * BULKSTAT.bytes) >> 2
      const inode = inodeIn(records, i)
      // One that has no name any more is held open by somebody.
      if (records[record + (BULKSTAT.nlink >> 2)] === 0) continue
      while (known.inode < inode) await this.#gone(known)
      while (known.inode === inode) {
        const isSame = this.#isSame(known, records, record)
        this.#parts.outlet.entries += 1
        if (isSame && !isDirectory(records, record)) {
          const stepping = known.next()
          if (stepping !== undefined) await stepping
          continue
        }
        await this.#differs(known, isSame, records, record)
        await known.next()
      }
    }
    while (known.inode < end) await this.#gone(known)
  }

  #isSame(known: GroupWalk, records: Uint32Array, record: number): boolean {
    const { reader } = known
    if (reader === undefined) return false
    const isSame = isPrintOfRecord(reader.words, reader.at, records, record)
    // What is not on the disk yet may never come to it, and then the filesystem says the same once more.
    if (isSame === 'size') this.#isClean = false
    return isSame === 'size' ? this.#isSameBySystem(reader.key, reader.words, reader.at) : isSame
  }

  #isSameBySystem(key: ByteString, print: Uint32Array, at: number): boolean {
    const { root } = this.#parts
    try {
      const fd = root.openDirectory(parentKey(key), 'name')
      try {
        const stat = root.calls.statBytesAt(fd, nameOfKey(key))
        return stat !== undefined && isPrintOfWords(print, at, root.calls.statWords)
      } finally {
        root.calls.close(fd)
      }
    } catch {
      // Whatever stands in the way, the capture thread will come upon it.
      return false
    }
  }

  async #differs(known: GroupWalk, isSame: boolean, records: Uint32Array, record: number): Promise<void> {
    const { reader, inode } = known
    if (reader === undefined) return
    const { key } = reader
    if (!isSame) this.#tell('changed', key)
    if (!isDirectory(records, record)) return
    const times = await known.listedTimes(inode)
    if (times === undefined || !isListedAt(times, records, record)) await this.#list(key, BigInt(inode))
  }

  async #gone(known: GroupWalk): Promise<void> {
    if (known.reader !== undefined) this.#tell('missing', known.reader.key)
    await known.next()
  }

  #tell(kind: 'changed' | 'missing', key: ByteString): void {
    this.#isClean = false
    // Below what is gone or was moved nothing more is told; that is told on its own account.
    if (key !== '' && !this.#hasParent(parentKey(key))) return
    const path = pathFromKey(key)
    this.#parts.outlet.found(kind === 'missing' ? { kind, path } : { kind, path, isNewDirectory: false })
  }

  #hasParent(key: ByteString): boolean {
    if (this.#parent?.key === key) return this.#parent.isThere
    let isThere = true
    const { root } = this.#parts
    try {
      root.calls.close(root.openDirectory(key, 'name'))
    } catch (error) {
      isThere = !isAbsence(error)
    }
    this.#parent = { key, isThere }
    return isThere
  }

  /** Finds the names in a directory that are not recorded. */
  async #list(key: ByteString, inode: bigint): Promise<void> {
    const { root, outlet, ignored } = this.#parts
    if (ignored.has(key)) return
    this.#isClean = false
    let fd: number | undefined
    try {
      fd = root.openDirectory(key)
      const stat = root.calls.statBytesAt(fd, '')
      // Another directory is there now: that one is found where its own directory is listed.
      if (stat?.readBigUInt64LE(STATX.ino) !== inode) return
      const listed = listedOf(stat, inode)
      const names = root.calls.namesIn(fd)
      let isClean = true
      for (let at = 0; at < names.length; at += NAMES_MAX) {
        if (!(await this.#compare(fd, key, names.slice(at, at + NAMES_MAX)))) isClean = false
      }
      if (isClean && listed !== undefined) outlet.listed(listed)
    } catch (error) {
      // A directory that is gone is missing from the inodes, or has changed where it was moved from; mounts are told by themselves.
      if (!isAbsence(error) && !isForeign(error)) outlet.found({ kind: 'closed', path: pathFromKey(key), reason: reasonOf(error) })
    } finally {
      if (fd !== undefined) root.calls.close(fd)
    }
  }

  /** @returns whether all of the names are recorded as they are */
  async #compare(fd: number, directory: ByteString, names: readonly ByteString[]): Promise<boolean> {
    const { root, database, volume, outlet, ignored } = this.#parts
    const prefix = directory === '' ? '' : `${directory}\0`
    const own = names.map((name) => prefix + name).filter((key) => !ignored.has(key))
    const values = await database.getMany(own.map((key) => pathPrefix(volume) + key))
    let isClean = true
    for (const [i, key] of own.entries()) {
      const value = values[i]
      const stat = root.calls.statBytesAt(fd, nameOfKey(key))
      if (stat === undefined) continue
      const { isOwn } = root
      // What is recorded of it is compared where its inode comes up.
      const isKnown = value !== undefined && isWholeKnown(value)
      if (isOwn && isKnown && isPrintOf(value, PRINT_AT, stat)) continue
      isClean = false
      if (isOwn && isKnown) continue
      if (!isOwn) continue
      if (isType(stat.readUInt16LE(STATX.mode), constants.S_IFDIR) && value === undefined) {
        await TreeWalk.subtree(this.#parts, key, false)
        continue
      }
      outlet.found({ kind: 'changed', path: pathFromKey(key), isNewDirectory: false })
    }
    return isClean
  }

  #handOver(): void {
    const left = (this.#until - this.#at) / BLOCK_INODES
    if (left < CUT_BLOCKS_MIN) return
    const cut = this.#at + Math.floor(left / 2) * BLOCK_INODES
    if (this.#parts.outlet.handOver({ kind: 'inodes', from: cut, until: this.#until })) this.#until = cut
  }
}

function isDirectory(records: Uint32Array, record: number): boolean {
  return isType((records[record + (BULKSTAT.mode >> 2)] ?? 0) & 0xffff, constants.S_IFDIR)
}

/** Whether the times at which a directory was listed are those that a record of bulkstat says. */
function isListedAt(times: Buffer, records: Uint32Array, record: number): boolean {
  return (
    times.length === 24 &&
    times.readUInt32LE(0) === records[record + (BULKSTAT.mtime >> 2)] &&
    times.readUInt32LE(4) === records[record + (BULKSTAT.mtime >> 2) + 1] &&
    times.readUInt32LE(8) === records[record + (BULKSTAT.mtimeNs >> 2)] &&
    times.readUInt32LE(12) === records[record + (BULKSTAT.ctime >> 2)] &&
    times.readUInt32LE(16) === records[record + (BULKSTAT.ctime >> 2) + 1] &&
    times.readUInt32LE(20) === records[record + (BULKSTAT.ctimeNs >> 2)]
  )
}

/** The places below the volume where other mounts begin, so far as they are reached through the volume itself. */
export function mountsBelow({ root, ignored }: WalkParts): RelativePath[] {
  const top = readlinkSync(`/proc/self/fd/${root.fd}`, { encoding: 'buffer' }).toString('latin1')
  const prefix = top === '/' ? top : `${top}/`
  const keys = new Set<ByteString>()
  for (const line of readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    const place = (line.split(' ')[4] ?? '').replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    if (place.startsWith(prefix) && place.length > prefix.length) keys.add(pathKey(place.slice(prefix.length) as RelativePath))
  }
  return [...keys].filter((key) => isMount(key, root) && !isIgnored(key, ignored)).map((key) => pathFromKey(key))
}

function isMount(key: ByteString, root: WalkParts['root']): boolean {
  try {
    const fd = root.openDirectory(parentKey(key), 'name')
    try {
      const stat = root.calls.statBytesAt(fd, nameOfKey(key))
      return stat !== undefined && !root.isOwn
    } finally {
      root.calls.close(fd)
    }
  } catch {
    // It lies in another mount, or is gone.
    return false
  }
}

function isIgnored(key: ByteString, ignored: WalkParts['ignored']): boolean {
  for (let at = key; at !== ''; at = parentKey(at)) if (ignored.has(at)) return true
  return false
}
