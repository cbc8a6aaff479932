/**
 * Single questions to the index by inode, for a walk that need not read the captured side in order: whether a path is as it was
 * captured, and whether a directory still has the times at which it was last seen to hold exactly what is recorded.
 *
 * A directory with these times has the same names as then, and no other names were recorded since (state-fold.ts), so nothing in
 * it can be missing; each of its names need only be
 * compared with its print, and files of one directory mostly have neighbouring inodes.
 * Invariant: what the index does not know, or what is damaged in it, is "not as captured". It prevents damage from hiding a
 * change; it costs a look.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import type { Database } from './database.ts'
import { GROUP_INODES_SHIFT, GroupReader, isWholeGroup } from './inode-group.ts'
import { isPrintOfWords } from './stat-print.ts'
import { groupKey, listedKey } from './state-keys.ts'
import { STATX } from './system-calls.ts'

const GROUPS_MAX = 128
const GROUP_INODES = 2 ** Number(GROUP_INODES_SHIFT)

export class InodeLookup {
  readonly #database: Database
  readonly #volume: Label
  /** Oldest first. */
  readonly #groups = new Map<number, GroupReader | undefined>()

  constructor(database: Database, volume: Label) {
    this.#database = database
    this.#volume = volume
  }

  /**
   * Whether the struct statx, of a name in a directory, says what was captured. `prefix` begins the directory's keys; the name is `length` of the
   * bytes, from `at` on.
   */
  isSame(prefix: ByteString, name: Buffer, at: number, length: number, statx: Uint32Array): boolean {
    const inode = (statx[STATX.ino >> 2] ?? 0) + (statx[(STATX.ino >> 2) + 1] ?? 0) * 0x1_0000_0000
    const reader = this.#groupOf(inode)
    if (reader === undefined) return false
    // The one after the last that was asked for is the likely one.
    const from = reader.at
    for (; reader.hasEntry; reader.next()) {
      if (reader.inode === inode && reader.isKey(prefix, name, at, length)) return isPrintOfWords(reader.words, reader.at, statx)
    }
    for (reader.rewind(); reader.at < from; reader.next()) {
      if (reader.inode === inode && reader.isKey(prefix, name, at, length)) return isPrintOfWords(reader.words, reader.at, statx)
    }
    return false
  }

  listedTimes(inode: bigint): Buffer | undefined {
    return this.#database.getNow(listedKey(this.#volume, inode))
  }

  #groupOf(inode: number): GroupReader | undefined {
    const group = Math.floor(inode / GROUP_INODES)
    if (this.#groups.has(group)) return this.#groups.get(group)
    const value = this.#database.getNow(groupKey(this.#volume, BigInt(inode)))
    const reader = value !== undefined && isWholeGroup(value) ? new GroupReader(value) : undefined
    this.#groups.set(group, reader)
    if (this.#groups.size > GROUPS_MAX) {
      const [oldest] = this.#groups.keys()
      if (oldest !== undefined) this.#groups.delete(oldest)
    }
    return reader
  }
}
