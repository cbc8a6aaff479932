/**
 * A walk of a part of a volume by descriptors, merged with the captured side as it goes.
 *
 * Where the index by inode may be asked, the captured side is read in order only for directories that changed since they were
 * last seen to hold exactly what is recorded; the names of the others are compared one by one with their prints.
 * Invariant: names are looked at in the order of the captured side, and each directory's end is told before the walk leaves
 * it; a directory that could not be listed is told as `closed`, and nothing is concluded about what may be in it. It prevents
 * a permission error from looking like a deletion.
 */
import { constants } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { reasonOf } from '../shared/errors.ts'
import { PATH_BYTES_MAX } from '../shared/limits.ts'
import { type Label, pathFromKey } from '../shared/path.ts'
import type { Database } from './database.ts'
import type { InodeLookup } from './inode-lookup.ts'
import { keyAfter, LAST_KEY, Merge } from './scan.ts'
import type { ScanOutlet } from './scan-outlet.ts'
import { isAbsence, isForeign, nameOfKey, parentKey, type ScanRoot } from './scan-root.ts'
import { isType } from './stat-print.ts'
import type { Listed } from './state.ts'
import { StateWalk } from './state-walk.ts'
import { OPEN_DIRECTORY, STATX } from './system-calls.ts'

export interface WalkParts {
  readonly root: ScanRoot
  readonly database: Database
  readonly volume: Label
  readonly outlet: ScanOutlet
  /** PATHKEYs. */
  /** Of PATHKEYs: what is left out whatever it is. */
  readonly ignored: Pick<ReadonlySet<ByteString>, 'has' | 'size'>
  readonly isDeep: boolean
  /** Directories that hold what is recorded are told, where the filesystem's times prove it. */
  readonly index: InodeLookup | undefined
  /** Directories that were told before are believed. */
  readonly trustsListed: boolean
}

/** A directory that the walk is in. */
interface Frame {
  readonly key: ByteString
  readonly prefix: ByteString
  /** -1 while it is closed because the walk is far below it. */
  fd: number
  readonly inode: bigint
  readonly names: ByteString[]
  at: number
  /** Names from this one on are somebody else's. */
  until: ByteString | undefined
  /** Its names are those that are recorded. */
  readonly isTrusted: boolean
  /** Names in no order. */
  readonly isLeaf: boolean
  /** Nothing differs in it so far. */
  isClean: boolean
  listed: Listed | undefined
}

/** Directories that are held open above the one that the walk is in. */
const OPEN_FRAMES_MAX = 64
/** A directory is cut in two only while it has more names than these. */
const CUT_NAMES_MIN = 512
/** A directory that holds no other has this many links; btrfs does not count. */
const LEAF_LINKS = 2
/** Of a larger one more than a moment would pass before anything else is done. */
const LEAF_BYTES_MAX = 64n * 1024n
/** Names between two pauses. */
const PAUSE_NAMES = 128
/** Filesystems keep times by the tick: a directory that changed a moment ago may change again and look the same. */
const TICK_SECONDS = 2
const TIMES_BYTES = 24

export class TreeWalk {
  readonly #parts: WalkParts
  readonly #known: StateWalk
  readonly #merge: Merge<Buffer>
  readonly #frames: Frame[] = []
  #isShallow = false
  #sincePause = 0

  private constructor(parts: WalkParts, from: ByteString, until: ByteString) {
    this.#parts = parts
    this.#known = new StateWalk(parts.database, parts.volume, from, until)
    this.#merge = new Merge(this.#known, parts.outlet.found)
  }

  /** A path and all below it; a shallow one lists the path and its children only. */
  static async subtree(parts: WalkParts, key: ByteString, isShallow: boolean): Promise<void> {
    const walk = new TreeWalk(parts, key, keyAfter(key))
    walk.#isShallow = isShallow
    try {
      await walk.#begin(key)
      await walk.#run()
      await walk.#merge.passTo(LAST_KEY)
    } finally {
      walk.#close()
    }
  }

  /** A part of a directory's names. */
  static async names(parts: WalkParts, directory: ByteString, from: ByteString, until: ByteString | undefined): Promise<void> {
    const prefix = prefixOf(directory)
    const walk = new TreeWalk(parts, prefix + from, until === undefined ? keyAfter(directory) : prefix + until)
    try {
      walk.#beginNames(directory, from, until)
      await walk.#run()
    } finally {
      walk.#close()
    }
  }

  async #begin(key: ByteString): Promise<void> {
    const { root, ignored } = this.#parts
    if (ignored.has(key)) {
      this.#merge.leaveOut(LAST_KEY)
      return
    }
    await this.#merge.passTo(key)
    if (key === '') {
      this.#look(root.fd, '', '', undefined)
      return
    }
    let parent: number
    try {
      parent = root.openDirectory(parentKey(key), 'name')
    } catch (error) {
      // Without its directory it is not there: the end of the walk tells it as missing.
      if (!isAbsence(error)) this.#closed(key, error)
      return
    }
    try {
      this.#look(parent, nameOfKey(key), key, undefined)
    } finally {
      root.calls.close(parent)
    }
  }

  #beginNames(directory: ByteString, from: ByteString, until: ByteString | undefined): void {
    const { root } = this.#parts
    try {
      this.#push(directory, root.openDirectory(directory), undefined)
    } catch (error) {
      this.#unlistable(directory, error)
      return
    }
    const [frame] = this.#frames
    if (frame === undefined) return
    const first = frame.names.findIndex((name) => name >= from)
    const end = until === undefined ? -1 : frame.names.findIndex((name) => name >= until)
    if (end >= 0) frame.names.length = end
    frame.at = first < 0 ? frame.names.length : first
    frame.until = until
    frame.listed = undefined
  }

  async #run(): Promise<void> {
    const { ignored, outlet } = this.#parts
    for (let frame = this.#frames.at(-1); frame !== undefined; frame = this.#frames.at(-1)) {
      if (++this.#sincePause > PAUSE_NAMES) {
        this.#sincePause = 0
        if (outlet.isCancelled) return
        if (outlet.pause()) this.#handOver()
      }
      const name = frame.names[frame.at]
      if (name === undefined) {
        await this.#leave(frame)
        continue
      }
      frame.at += 1
      const key = frame.prefix + name
      if (!frame.isTrusted) {
        const before = this.#merge.differences
        const passing = this.#merge.passTo(key)
        if (passing !== undefined) await passing
        if (this.#merge.differences !== before) frame.isClean = false
      }
      if (ignored.size > 0 && ignored.has(key)) this.#merge.leaveOut(keyAfter(key))
      else if (key.length > PATH_BYTES_MAX) this.#tooLong(frame, key)
      else this.#lookIn(frame, name, key)
    }
  }

  #lookIn(frame: Frame, name: ByteString, key: ByteString): void {
    let fd: number
    try {
      fd = this.#fdOf(frame)
    } catch (error) {
      frame.names.length = frame.at
      frame.isClean = false
      this.#unlistable(frame.key, error)
      return
    }
    this.#look(fd, name, key, frame)
  }

  #look(dirfd: number, name: ByteString, key: ByteString, frame: Frame | undefined): void {
    const { root, outlet, isDeep } = this.#parts
    const before = this.#merge.differences
    try {
      const stat = root.calls.statBytesAt(dirfd, name)
      if (stat === undefined) return
      outlet.entries += 1
      if (!root.isOwn) {
        this.#merge.unknown({ kind: 'foreign', path: pathFromKey(key) }, key)
        return
      }
      const mode = stat.readUInt16LE(STATX.mode)
      const isDirectory = isType(mode, constants.S_IFDIR)
      const isEntered = isDirectory && (!this.#isShallow || frame === undefined)
      const isSame =
        frame?.isTrusted === true ? this.#isAsListed(frame.prefix, name) : this.#merge.present(key, stat, isDirectory, isEntered)
      if (isSame && isDeep && isType(mode, constants.S_IFREG)) outlet.found({ kind: 'unread', path: pathFromKey(key) })
      if (isEntered) this.#enter(dirfd, name, key, stat.readBigUInt64LE(STATX.ino))
    } catch (error) {
      this.#closed(key, error)
    } finally {
      if (frame !== undefined && this.#merge.differences !== before) frame.isClean = false
    }
  }

  /** In a directory whose names are those that are recorded. */
  #isAsListed(prefix: ByteString, name: ByteString): boolean {
    const { index, root } = this.#parts
    const { nameBytes, statWords } = root.calls
    const isSame = index?.isSame(prefix, nameBytes, 0, name.length, statWords) === true
    if (!isSame) this.#merge.differs(prefix + name)
    return isSame
  }

  #enter(dirfd: number, name: ByteString, key: ByteString, inode: bigint): void {
    const { root } = this.#parts
    this.#sincePause = PAUSE_NAMES
    try {
      this.#push(key, root.calls.openat(dirfd, name === '' ? '.' : name, OPEN_DIRECTORY), inode)
    } catch (error) {
      this.#unlistable(key, error)
    }
  }

  /** A directory, of which `fd` is taken over. */
  #push(key: ByteString, fd: number, expected: bigint | undefined): void {
    const { root, index, ignored, trustsListed } = this.#parts
    const { calls } = root
    const prefix = prefixOf(key)
    try {
      const stat = calls.statBytesAt(fd, '')
      const inode = stat?.readBigUInt64LE(STATX.ino)
      if (stat === undefined || inode === undefined || !root.isOwn || (expected !== undefined && expected !== inode))
        throw Object.assign(new Error('ENOENT: another directory took its place'), { code: 'ENOENT' })
      const isListed = index?.listedTimes(inode)?.equals(timesOf(stat)) === true
      const listed = index === undefined || isListed ? undefined : listedOf(stat, inode)
      const isTrusted = isListed && trustsListed
      // Without directories in it, nothing has to come in order, and nothing of it is worth handing over.
      const mayBeLeaf = isTrusted && stat.readUInt32LE(STATX.nlink) === LEAF_LINKS
      const isSmall = stat.readBigUInt64LE(STATX.size) <= LEAF_BYTES_MAX
      const names = mayBeLeaf && isSmall && ignored.size === 0 ? this.#namesToLookAt(fd, prefix) : calls.namesIn(fd)
      const isLeaf = mayBeLeaf && names.length < CUT_NAMES_MIN
      if (!isLeaf) names.sort()
      this.#frames.push({ key, prefix, fd, inode, names, at: 0, until: undefined, isTrusted, isLeaf, isClean: true, listed })
      // What was trusted before was not read on the captured side.
      if (!isTrusted) this.#merge.leaveOut(prefix)
    } catch (error) {
      calls.close(fd)
      throw error
    }
    const far = this.#frames.at(-1 - OPEN_FRAMES_MAX)
    if (far !== undefined && far.fd >= 0) {
      calls.close(far.fd)
      far.fd = -1
    }
  }

  /** Names of a directory that holds what is recorded, but for those that are seen at once to be as they are recorded: most. */
  #namesToLookAt(fd: number, prefix: ByteString): ByteString[] {
    const { root, index, outlet } = this.#parts
    const { calls } = root
    const { listing, statWords } = calls
    const names: ByteString[] = []
    calls.statNames(fd, (at, length, isThere) => {
      const isPlain = isThere && root.isOwn && prefix.length + length <= PATH_BYTES_MAX && !isDirectory(statWords)
      if (isPlain && index?.isSame(prefix, listing, at, length, statWords) === true) outlet.entries += 1
      else names.push(listing.toString('latin1', at, at + length))
    })
    return names
  }

  #fdOf(frame: Frame): number {
    if (frame.fd >= 0) return frame.fd
    const { root } = this.#parts
    const fd = root.openDirectory(frame.key)
    if (root.calls.statAt(fd, '')?.ino !== frame.inode) {
      root.calls.close(fd)
      throw Object.assign(new Error('ENOENT: the directory was moved'), { code: 'ENOENT' })
    }
    frame.fd = fd
    return fd
  }

  async #leave(frame: Frame): Promise<void> {
    const { root, outlet } = this.#parts
    const before = this.#merge.differences
    if (!frame.isTrusted) await this.#merge.passTo(frame.until === undefined ? keyAfter(frame.key) : frame.prefix + frame.until)
    this.#frames.pop()
    if (frame.fd >= 0) root.calls.close(frame.fd)
    // What was handed over is not this walk's to judge.
    this.#merge.leaveOut(keyAfter(frame.key))
    if (frame.until === undefined && frame.isClean && this.#merge.differences === before && frame.listed !== undefined)
      outlet.listed(frame.listed)
  }

  /** Gives away what is left of the highest directory that has something left: most lies below it. */
  #handOver(): void {
    if (this.#isShallow) return
    const last = this.#frames.length - 1
    for (const [i, frame] of this.#frames.entries()) {
      const left = frame.names.length - frame.at
      if (frame.isLeaf || left < (i === last ? CUT_NAMES_MIN : 1)) continue
      const cut = frame.at + Math.floor(left / 2)
      const from = frame.names[cut]
      if (from === undefined) continue
      const { until } = frame
      if (!this.#parts.outlet.handOver({ kind: 'names', directory: pathFromKey(frame.key), from, until })) return
      frame.names.length = cut
      frame.until = from
      frame.listed = undefined
      return
    }
  }

  /** It was a directory a moment ago. */
  #unlistable(key: ByteString, error: unknown): void {
    if (isAbsence(error)) this.#merge.unknown({ kind: 'changed', path: pathFromKey(key), isNewDirectory: false }, key)
    else this.#closed(key, error)
  }

  #closed(key: ByteString, error: unknown): void {
    const path = pathFromKey(key)
    this.#merge.unknown(isForeign(error) ? { kind: 'foreign', path } : { kind: 'closed', path, reason: reasonOf(error) }, key)
  }

  /** No record can name it: told of the directory, of which the rest is looked at all the same. */
  #tooLong(frame: Frame, key: ByteString): void {
    this.#merge.leaveOut(keyAfter(key))
    frame.isClean = false
    const reason = `a path below it is longer than ${PATH_BYTES_MAX} bytes`
    this.#parts.outlet.found({ kind: 'closed', path: pathFromKey(frame.key), reason })
  }

  #close(): void {
    for (const { fd } of this.#frames.splice(0)) if (fd >= 0) this.#parts.root.calls.close(fd)
  }
}

function isDirectory(statx: Uint32Array): boolean {
  return isType((statx[STATX.mode >> 2] ?? 0) & 0xffff, constants.S_IFDIR)
}

function prefixOf(key: ByteString): ByteString {
  return key === '' ? '' : `${key}\0`
}

/** Undefined where it changed so lately that its times do not prove anything. */
export function listedOf(stat: Buffer, inode: bigint): Listed | undefined {
  const changed = Number(stat.readBigInt64LE(STATX.ctime))
  if (changed > Date.now() / 1000 - TICK_SECONDS) return undefined
  return { inode, times: timesOf(stat) }
}

/** mtime and ctime, as the state keeps them of a directory. */
function timesOf(stat: Buffer): Buffer {
  const times = Buffer.allocUnsafe(TIMES_BYTES)
  stat.copy(times, 0, STATX.mtime, STATX.mtime + TIMES_BYTES / 2)
  stat.copy(times, TIMES_BYTES / 2, STATX.ctime, STATX.ctime + TIMES_BYTES / 2)
  return times
}
