/**
 * Takes a file as it is at one moment by a reflink (FICLONE), where the filesystem has them (XFS, btrfs).
 *
 * The clone is a file without a name (O_TMPFILE) in the volume's filesystem: nobody sees it there, and it goes with its
 * descriptor, also when the agent is killed. Invariant: a filesystem that cannot do it is asked once. It prevents every
 * read of an open file from paying for two calls that fail.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'
import { linuxCalls, pathOfSpot } from './beneath.ts'

const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
const CLONE_MODE = 0o600
/** Errors that say that it will not be possible the next time either; others concern this one file. */
const NEVER = new Set(['EOPNOTSUPP', 'ENOTSUP', 'ENOTTY', 'EXDEV', 'EROFS', 'EPERM', 'EACCES', 'EISDIR', 'ENOSYS'])

export class Reflinks {
  readonly #calls = linuxCalls()
  readonly #unable = new Set<bigint>()

  /** A descriptor of the clone, to be closed; undefined where there is none. `root` is a directory of the file's filesystem. */
  clone(fd: number, root: number, device: bigint): number | undefined {
    if (this.#unable.has(device)) return undefined
    let clone: number | undefined
    try {
      clone = openSync(pathOfSpot({ kind: 'spot', directory: root, name: '' }), O_TMPFILE | constants.O_RDWR, CLONE_MODE)
      this.#calls.ficlone(clone, fd)
      return clone
    } catch (error) {
      if (clone !== undefined) closeSync(clone)
      const errno = errnoOf(error)
      if (errno === undefined) throw error
      if (NEVER.has(errno)) this.#unable.add(device)
      return undefined
    }
  }
}
