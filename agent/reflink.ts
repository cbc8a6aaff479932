/**
 * Takes a file as it is at one moment by a reflink (FICLONE), where the filesystem has them (XFS, btrfs), or copies it
 * faster than it can be hashed.
 *
 * The clone or copy is a file without a name (O_TMPFILE) in the volume's filesystem: nobody sees it there, and it goes with its
 * descriptor, also when the agent is killed. Invariant: a filesystem that cannot do it is asked once. It prevents every
 * read of an open file from paying for two calls that fail.
 */
import { closeSync, constants, copyFileSync, openSync, statfsSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'
import { linuxCalls, pathOfSpot } from './beneath.ts'

const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
const CLONE_MODE = 0o600
/** A copy takes at most this share of the space that is free. */
const COPY_SHARE_MAX = 0.1
/** Errors that say that it will not be possible the next time either; others concern this one file. */
const NEVER = new Set(['EOPNOTSUPP', 'ENOTSUP', 'ENOTTY', 'EXDEV', 'EROFS', 'EPERM', 'EACCES', 'EISDIR', 'ENOSYS'])

export class Reflinks {
  readonly #calls = linuxCalls()
  readonly #unable = new Set<bigint>()

  /** A descriptor of the clone, to be closed; undefined where there is none. `root` is a directory of the file's filesystem. */
  clone(fd: number, root: number, device: bigint): number | undefined {
    if (this.#unable.has(device)) return undefined
    return this.#make(
      root,
      (clone) => this.#calls.ficlone(clone, fd),
      (errno) => {
        if (NEVER.has(errno)) this.#unable.add(device)
      },
    )
  }

  /** The same of a copy of the file, which is not of one moment; undefined where there is no room for it. */
  copy(fd: number, root: number, size: bigint): number | undefined {
    const { bavail, bsize } = statfsSync(pathOfSpot({ kind: 'spot', directory: root, name: '' }))
    if (Number(size) > bavail * bsize * COPY_SHARE_MAX) return undefined
    return this.#make(
      root,
      (copy) => copyFileSync(`/proc/self/fd/${fd}`, `/proc/self/fd/${copy}`),
      () => {},
    )
  }

  #make(root: number, fill: (fd: number) => void, onFailure: (errno: string) => void): number | undefined {
    let made: number | undefined
    try {
      made = openSync(pathOfSpot({ kind: 'spot', directory: root, name: '' }), O_TMPFILE | constants.O_RDWR, CLONE_MODE)
      fill(made)
      return made
    } catch (error) {
      if (made !== undefined) closeSync(made)
      const errno = errnoOf(error)
      if (errno === undefined) throw error
      onFailure(errno)
      return undefined
    }
  }
}
