/**
 * A directory tree that is written to by descriptors, never by path strings.
 *
 * Invariant: no operation leaves the root or passes through a symlink, whatever the names and whoever changes the tree
 * meanwhile: each directory is opened below its parent's descriptor with O_NOFOLLOW, and names are used as
 * `/proc/self/fd/N/name`. It prevents a hostile repository, or a process that swaps a directory for a symlink, from
 * making a restore write elsewhere.
 */
import { closeSync, constants, mkdirSync, openSync, readdirSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { type Libc, libc } from '../shared/libc.ts'
import { nameOf, parentOf, pathBuffer, type RelativePath, ROOT, showPath } from '../shared/path.ts'

/** Directories kept open between operations. */
const OPEN_MAX = 256
/** Of the architectures that Node is made for (include/uapi/asm-generic/fcntl.h), but that O_DIRECTORY is another one on some. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

export class SafeDirectory {
  readonly root: string
  readonly #open = new Map<RelativePath, number>()
  /** The directory whose entry was asked for last: mostly it is that of the next one too. */
  #last: { readonly path: RelativePath; readonly fd: number } | undefined

  /** The root itself is opened as it is given: the caller vouches for it. */
  constructor(root: string) {
    this.root = root
    try {
      this.#open.set(ROOT, openSync(root, constants.O_RDONLY | constants.O_DIRECTORY))
    } catch (error) {
      throw asPacsimileError(error, `Opening ${root}`)
    }
  }

  /** The descriptor of a directory of the tree. @throws the system's error, ENOTDIR or ELOOP where a name is not a directory */
  descriptor(path: RelativePath): number {
    const known = this.#open.get(path)
    if (known !== undefined) {
      this.#open.delete(path)
      this.#open.set(path, known)
      return known
    }
    const fd = openSync(pathBuffer(this.at(path)), OPEN_DIRECTORY)
    this.#open.set(path, fd)
    return fd
  }

  /**
   * Closes what has not been used for longest. Called between operations, never in one: a name that `at` has given holds
   * a descriptor's number, which must not come to stand for another directory.
   */
  trim(): void {
    for (const [path, fd] of this.#open) {
      if (this.#open.size <= OPEN_MAX) return
      if (path === ROOT) continue
      this.#close(path, fd)
    }
  }

  #close(path: RelativePath, fd: number): void {
    this.#open.delete(path)
    if (this.#last?.fd === fd) this.#last = undefined
    closeSync(fd)
  }

  /** How to name a path in a system call that does not follow its last component. */
  at(path: RelativePath): ByteString {
    const parent = parentOf(path)
    if (parent === undefined) return `/proc/self/fd/${this.descriptor(ROOT)}/.`
    return `/proc/self/fd/${this.descriptor(parent)}/${nameOf(path)}`
  }

  /** Opens what has that name, which is not followed. @throws the system's error */
  open(path: RelativePath, flags: number, mode = 0): number {
    return calls().openAt(this.#above(path), nameOf(path), flags | constants.O_NOFOLLOW, mode)
  }

  /** A new file in the directory of a path, with no name. @throws the system's error, EOPNOTSUPP or EISDIR where there is no such thing */
  openUnnamed(path: RelativePath, mode: number): number {
    return calls().openAt(this.#above(path), '.', constants.O_WRONLY | O_TMPFILE, mode)
  }

  /** Names what is open, where nothing has that name. @throws the system's error, EEXIST where something has */
  linkOpen(fd: number, path: RelativePath): void {
    calls().linkOpen(fd, this.#above(path), nameOf(path))
  }

  /** rename(2) within the tree. @throws the system's error */
  rename(from: RelativePath, to: RelativePath): void {
    calls().renameAt(this.#above(from), nameOf(from), this.#above(to), nameOf(to))
  }

  /** Of the root's own name there is nothing above. */
  #above(path: RelativePath): number {
    const last = this.#last
    if (last !== undefined && isIn(path, last.path)) return last.fd
    const parent = parentOf(path)
    if (parent === undefined) throw new PacsimileError('format-invalid', 'The root of a volume can only be a directory')
    const fd = this.descriptor(parent)
    this.#last = { path: parent, fd }
    return fd
  }

  /** Makes the directories above a path that are missing. */
  makeAbove(path: RelativePath): void {
    const last = this.#last
    if (last !== undefined && isIn(path, last.path)) return
    const parent = parentOf(path)
    if (parent !== undefined) this.make(parent)
  }

  /** Makes a directory and those above it that are missing. */
  make(path: RelativePath, mode = 0o700): void {
    if (path === ROOT) return
    try {
      this.descriptor(path)
      return
    } catch (error) {
      const errno = errnoOf(error)
      if (errno !== 'ENOENT') {
        if (errno === 'ENOTDIR' || errno === 'ELOOP')
          throw new PacsimileError('io', `${showPath(path)} is in the way: it is not a directory`, { cause: error })
        throw error
      }
    }
    this.make(parentOf(path) ?? ROOT)
    mkdirSync(pathBuffer(this.at(path)), mode)
  }

  /** Forgets descriptors at and below a path that was removed, replaced or renamed. */
  forget(path: RelativePath): void {
    for (const [open, fd] of this.#open) {
      if (open !== ROOT && (open === path || open.startsWith(`${path}/`))) this.#close(open, fd)
    }
  }

  close(): void {
    for (const [path, fd] of this.#open) this.#close(path, fd)
  }
}

/** Whether the directory is the one right above the path; makes no string, for it is asked several times of every file. */
function isIn(path: RelativePath, directory: RelativePath): boolean {
  const slash = path.lastIndexOf('/')
  return directory === ROOT ? slash < 0 && path !== ROOT : slash === directory.length && path.startsWith(directory)
}

function calls(): Libc {
  if (libc === undefined)
    throw new PacsimileError('unsupported', 'Files are written through descriptors of their directories, which needs Linux')
  return libc
}

/** Names in a directory of the tree, in byte order. @throws the system's error */
export function namesIn(tree: SafeDirectory, directory: RelativePath): ByteString[] {
  tree.trim()
  return readdirSync(pathBuffer(`/proc/self/fd/${tree.descriptor(directory)}`), { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .sort()
}
