/**
 * Where directories are, by their handle: asked of the kernel each time, never remembered as text.
 *
 * An O_PATH descriptor names a directory through all its renames, and `readlink` of it gives its present path: the kernel's
 * own directory cache is the model, so a rename is seen at once and costs nothing. Descriptors are kept for those used last.
 * Invariant: a path that is given was true at a moment after the event that asked for it. It prevents an event from being
 * led to a path that was renamed before the event was read.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync } from 'node:fs'
import type { ByteString } from '../../shared/bytes.ts'
import { errnoOf } from '../../shared/errors.ts'
import { type HandleKey, handleKey, openHandle, pathOf } from './fanotify-calls.ts'
import { HandleInodes } from './handle-inodes.ts'

const OPEN_MAX = 4000
const DELETED = ' (deleted)'
/** A rename shows for less than a microsecond, and the next one of the same directory cannot follow at once each time. */
const ASK_AGAIN_MAX = 8
const FSID_BYTES = 8

/** How handles of a filesystem are opened. */
export interface Mount {
  /** A directory of it, open for reading. */
  readonly fd: number
  /** It shows a part of the filesystem only (a bind mount): a path that the kernel gives may be one of the rest. */
  readonly isPartial: boolean
}

export class DirectoryPaths {
  /** By filesystem. */
  readonly #mounts: ReadonlyMap<ByteString, Mount>
  readonly #open = new Map<HandleKey, number>()
  /** For one batch of events: all of them happened before it was read. */
  readonly #asked = new Map<HandleKey, ByteString | undefined>()
  readonly #inodes = new HandleInodes()

  constructor(mounts: ReadonlyMap<ByteString, Mount>) {
    this.#mounts = mounts
  }

  /** What follows is told of events that were read after this call. */
  beginBatch(): void {
    this.#asked.clear()
  }

  /** Absolute; undefined where the directory is gone. */
  pathOf(directory: HandleKey): ByteString | undefined {
    if (this.#asked.has(directory)) return this.#asked.get(directory)
    const path = this.#ask(directory)
    this.#asked.set(directory, path)
    return path
  }

  #ask(key: HandleKey): ByteString | undefined {
    const fd = this.#descriptor(key)
    if (fd === undefined) return undefined
    let path = pathOfDeep(fd)
    // The kernel says this also of one that is being renamed at this moment (d_path looks whether it is hashed, without a lock).
    for (let again = 0; path.endsWith(DELETED) && again < ASK_AGAIN_MAX; again++) {
      if (fstatSync(fd).nlink === 0) {
        this.#open.delete(key)
        closeSync(fd)
        return undefined
      }
      path = pathOfDeep(fd)
    }
    // What ends so still has that name.
    return this.#isAt(key, path) ? path : undefined
  }

  #isAt(key: HandleKey, path: ByteString): boolean {
    const filesystem = key.slice(0, FSID_BYTES)
    return this.#mounts.get(filesystem)?.isPartial !== true || handleKey(filesystem, path) === key
  }

  #descriptor(key: HandleKey): number | undefined {
    const known = this.#open.get(key)
    if (known !== undefined) {
      this.#open.delete(key)
      this.#open.set(key, known)
      return known
    }
    const mount = this.#mounts.get(key.slice(0, FSID_BYTES))
    const fd = mount === undefined ? undefined : openHandle(mount.fd, key)
    if (fd === undefined) return undefined
    this.#open.set(key, fd)
    if (this.#open.size > OPEN_MAX) this.#closeOldest()
    return fd
  }

  #closeOldest(): void {
    for (const [key, fd] of this.#open) {
      this.#open.delete(key)
      closeSync(fd)
      return
    }
  }

  /** The inode behind a file's handle; undefined where it is known to be gone. */
  inodeOf(target: HandleKey): bigint | undefined {
    const told = this.#inodes.told(target)
    if (told !== undefined) return told
    const mount = this.#mounts.get(target.slice(0, FSID_BYTES))
    const fd = mount === undefined ? undefined : openHandle(mount.fd, target)
    if (fd === undefined) return undefined
    try {
      const { ino } = fstatSync(fd, { bigint: true })
      this.#inodes.learn(target, ino)
      return ino
    } finally {
      closeSync(fd)
    }
  }

  close(): void {
    for (const fd of this.#open.values()) closeSync(fd)
    this.#open.clear()
  }
}

/** The kernel names no path that is longer than a page: then the directory's name is looked for in the one above it. */
function pathOfDeep(fd: number): ByteString {
  try {
    return pathOf(fd)
  } catch (error) {
    if (errnoOf(error) !== 'ENAMETOOLONG') throw error
  }
  const above = openSync(`/proc/self/fd/${fd}/..`, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    const { ino } = fstatSync(fd, { bigint: true })
    for (const name of readdirSync(`/proc/self/fd/${above}`, { encoding: 'buffer' })) {
      const at = Buffer.concat([Buffer.from(`/proc/self/fd/${above}/`), name])
      if (lstatSync(at, { bigint: true, throwIfNoEntry: false })?.ino === ino) return `${pathOfDeep(above)}/${name.toString('latin1')}`
    }
    return DELETED
  } finally {
    closeSync(above)
  }
}
