/**
 * Finds the paths of a volume by descriptors: the directory of each is opened beneath the volume's own (openat2(2)), and
 * what is in it is then named by that descriptor and one name.
 *
 * Invariant: what a spot names lies in the volume, on its mount, below directories that are directories, whatever happens
 * to their names meanwhile. It prevents a directory that is swapped for a symlink from leading the agent out of its volume,
 * and paths longer than PATH_MAX from being out of reach.
 */
import { constants } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { nameOf, parentOf, type RelativePath, ROOT, relativePath } from '../shared/path.ts'
import { rootProblem } from './ancestry.ts'
import type { Outcome } from './capture-job.ts'
import { absolutePath, kindOf, type VolumeRoot } from './file-stat.ts'
import {
  OPEN_PATH,
  RESOLVE_SAME_MOUNT,
  RESOLVE_WITHIN,
  type Stat,
  type SystemCalls,
  systemCalls,
  WORKING_DIRECTORY,
} from './system-calls.ts'

export type Obstacle = Extract<Outcome, { kind: 'gone' | 'foreign' | 'root-lost' }>

/** A name in an open directory; the name '' is that directory itself. */
export interface Spot {
  readonly kind: 'spot'
  readonly directory: number
  readonly name: ByteString
}

const OPEN_DIRECTORY_PATH = OPEN_PATH | constants.O_DIRECTORY
const O_CLOEXEC = 0o2000000
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | O_CLOEXEC
/** What openat2(2) says where something above is missing, no directory, or a symlink. */
const BROKEN_WAY = new Set(['ENOENT', 'ENOTDIR', 'ELOOP'])

/** @throws unsupported: this system cannot do it */
export function linuxCalls(): SystemCalls {
  if (systemCalls === undefined) throw new PacsimileError('unsupported', 'Capturing files takes the system calls of Linux')
  return systemCalls
}

/** @throws unsupported: the kernel is older than 5.6, or a sandbox forbids the call */
export function assertBeneath(): void {
  const calls = linuxCalls()
  try {
    calls.close(calls.openat2(WORKING_DIRECTORY, '.', OPEN_DIRECTORY_PATH, RESOLVE_WITHIN))
  } catch (error) {
    throw new PacsimileError('unsupported', `Capturing files takes openat2(2), which Linux has since 5.6: ${reasonOf(error)}`, {
      cause: error,
    })
  }
}

/** A directory that was opened this long ago may have another name by now. */
const RENEW_MS = 100

/** For one batch of looks: directories that were opened a few milliseconds ago are not looked for again. */
export class Beneath {
  readonly #calls = linuxCalls()
  readonly #root: VolumeRoot
  readonly #directories = new Map<RelativePath, number>()
  #sinceMs = 0

  constructor(root: VolumeRoot) {
    this.#root = root
  }

  /** Before a look, and after what took long: forgets what was opened too long ago, with all spots that it gave. */
  renew(): void {
    if (performance.now() - this.#sinceMs > RENEW_MS) this.close()
  }

  /** Where a path is, or what stands between the volume's root and it. @throws what open(2) says otherwise */
  spot(path: RelativePath): Spot | Obstacle {
    const root = this.root()
    if (typeof root !== 'number') return root
    const parent = parentOf(path)
    if (parent === undefined) return { kind: 'spot', directory: root, name: '' }
    const directory = this.#directories.get(parent) ?? this.#open(root, parent, path)
    return typeof directory === 'number' ? { kind: 'spot', directory, name: nameOf(path) } : directory
  }

  /** The volume's own directory, if it is the one that is watched. */
  root(): number | Obstacle {
    const opened = this.#directories.get(ROOT)
    if (opened !== undefined) return opened
    const problem = rootProblem(this.#root)
    if (problem !== undefined) return { kind: 'root-lost', reason: problem }
    const fd = this.#calls.openat(WORKING_DIRECTORY, absolutePath(this.#root.directory, ROOT), OPEN_DIRECTORY_PATH)
    this.#directories.set(ROOT, fd)
    this.#sinceMs = performance.now()
    const stat = this.#calls.statAt(fd, '')
    if (stat?.ino === this.#root.inode && stat.dev === this.#root.device) return fd
    this.close()
    return { kind: 'root-lost', reason: "the volume's directory is being replaced" }
  }

  #open(root: number, directory: RelativePath, path: RelativePath): number | Obstacle {
    try {
      const fd = this.#calls.openat2(root, directory, OPEN_DIRECTORY_PATH, RESOLVE_WITHIN | RESOLVE_SAME_MOUNT)
      this.#directories.set(directory, fd)
      return fd
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'EXDEV') return { kind: 'foreign' }
      if (errno === undefined || !BROKEN_WAY.has(errno)) throw error
      const obstacle = this.#obstacle(root, path)
      // It is all there by now.
      if (obstacle === undefined) throw error
      return obstacle
    }
  }

  /** Goes down step by step to what is missing. */
  #obstacle(root: number, path: RelativePath): Obstacle | undefined {
    let directory = root
    try {
      for (let start = 0, end = path.indexOf('/'); end >= 0; start = end + 1, end = path.indexOf('/', start)) {
        const name = path.slice(start, end)
        const stat = this.#calls.statAt(directory, name)
        if (stat === undefined) return { kind: 'gone', topmost: relativePath(path.slice(0, end)) }
        if (kindOf(stat) !== 'directory') return { kind: 'gone', topmost: nextBelow(path, end) }
        if (stat.dev !== this.#root.device) return { kind: 'foreign' }
        const next = this.#calls.openat(directory, name, OPEN_DIRECTORY_PATH)
        if (directory !== root) this.#calls.close(directory)
        directory = next
      }
      return undefined
    } finally {
      if (directory !== root) this.#calls.close(directory)
    }
  }

  close(): void {
    for (const fd of this.#directories.values()) this.#calls.close(fd)
    this.#directories.clear()
  }
}

export function statSpot({ directory, name }: Spot): Stat | undefined {
  return linuxCalls().statAt(directory, name)
}

/** For reading; the access time stays where that is allowed. @throws what open(2) says */
export function openSpot({ directory, name }: Spot): number {
  const calls = linuxCalls()
  try {
    return calls.openat(directory, name, OPEN_FILE | constants.O_NOATIME)
  } catch (error) {
    // Only the owner of a file and root may leave its access time alone.
    if (errnoOf(error) !== 'EPERM') throw error
    return calls.openat(directory, name, OPEN_FILE)
  }
}

/** The spot for calls that take only paths; they must not follow what it names. */
export function pathOfSpot({ directory, name }: Spot): ByteString {
  return `/proc/self/fd/${directory}/${name === '' ? '.' : name}`
}

/** The path down to the component that begins behind the '/' at `slash`. */
function nextBelow(path: RelativePath, slash: number): RelativePath {
  const end = path.indexOf('/', slash + 1)
  return end < 0 ? path : relativePath(path.slice(0, end))
}
