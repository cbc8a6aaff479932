/**
 * Durable small files: written whole or not at all.
 *
 * Order: temporary name in the same directory, write, fsync, rename, fsync of the directory. A crash leaves the old file
 * or the new one, and perhaps a temporary one, never half of either. A failed fsync is never retried: after EIO the
 * kernel may drop the pages and report success (docs/format.md, "Durability").
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fchmodSync,
  fdatasyncSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from './errors.ts'

/** Marks names that a crash may leave behind and that nobody else may use. */
export const TEMPORARY_PREFIX = '.pacsimile-tmp-'

export function syncDirectory(directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Writes all of `bytes`: a single write(2) may write less. */
export function writeFully(fd: number, bytes: Uint8Array, position: number | null = null): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, position === null ? null : position + done)
  }
}

function writeTemporary(file: string, bytes: Uint8Array | string, mode: number): string {
  const temporary = join(dirname(file), `${TEMPORARY_PREFIX}${basename(file)}-${randomBytes(6).toString('hex')}`)
  const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, mode)
  try {
    fchmodSync(fd, mode)
    writeFully(fd, typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bytes)
    fdatasyncSync(fd)
  } catch (error) {
    closeSync(fd)
    unlinkSync(temporary)
    throw error
  }
  closeSync(fd)
  return temporary
}

/** Creates or replaces `file`. @throws io, space */
export function writeFileDurably(file: string, bytes: Uint8Array | string, mode = 0o600): void {
  try {
    const temporary = writeTemporary(file, bytes, mode)
    renameSync(temporary, file)
    syncDirectory(dirname(file))
  } catch (error) {
    throw asPacsimileError(error, `Writing ${file}`)
  }
}

/** Creates `file`, which must not exist. @throws already-exists, io, space */
export function createFileDurably(file: string, bytes: Uint8Array | string, mode = 0o600): void {
  try {
    const temporary = writeTemporary(file, bytes, mode)
    try {
      // link(2) fails where the name exists; rename(2) would replace it.
      linkSync(temporary, file)
    } finally {
      unlinkSync(temporary)
    }
    syncDirectory(dirname(file))
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw new PacsimileError('already-exists', `${file} exists already`, { cause: error })
    throw asPacsimileError(error, `Writing ${file}`)
  }
}

/**
 * Removes what a crash has left of files that were being written: of one, or of all in a directory. Whoever is writing one of them now
 * is told that it cannot. @throws io
 */
export function removeTemporaries(directory: string, of?: string): void {
  const prefix = of === undefined ? TEMPORARY_PREFIX : `${TEMPORARY_PREFIX}${of}-`
  try {
    const left = readdirSync(directory).filter((name) => name.startsWith(prefix))
    for (const name of left) unlinkSync(join(directory, name))
    if (left.length > 0) syncDirectory(directory)
  } catch (error) {
    throw asPacsimileError(error, `Removing what a crash has left in ${directory}`)
  }
}

/** Removes a directory with all that is in it; it need not be there. @throws io */
export function removeTree(directory: string): void {
  try {
    rmSync(directory, { recursive: true, force: true })
  } catch (error) {
    // Of what the system refuses here Node tells the words, but not the number.
    throw new PacsimileError('io', `Removing ${directory}: ${reasonOf(error).replace(/^[,\s]+/, '')}`, { cause: error })
  }
}

/** Removes `file`; false when it was not there. */
export function removeFileDurably(file: string): boolean {
  try {
    unlinkSync(file)
    syncDirectory(dirname(file))
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw asPacsimileError(error, `Removing ${file}`)
  }
}

/** Makes a directory, durably. Its parents, where they are missing, may be passed by everybody: their mode is not its own. @throws io, space */
export function makeDirectory(directory: string, mode = 0o700): void {
  try {
    const above = makeDirectories(dirname(directory), 0o755)
    const made = makeDirectories(directory, mode)
    const first = above ?? made
    if (first !== undefined) syncDirectory(dirname(first))
  } catch (error) {
    throw asPacsimileError(error, `Making the directory ${directory}`)
  }
}

/**
 * A directory with those above it, where they are missing. Node's own recursive mkdir never returns where the system answers ENOENT in a directory
 * that is there, as in /proc, and says of a disk that is read-only that a directory is missing.
 * @returns the first that was made @throws the system's error
 */
export function makeDirectories(directory: string, mode = 0o777): string | undefined {
  if (isDirectory(directory)) return undefined
  const parent = dirname(directory)
  const first = parent === directory || isThere(parent) ? undefined : makeDirectories(parent, mode)
  try {
    mkdirSync(directory, { mode })
  } catch (error) {
    // Somebody else may have made it meanwhile.
    if (!isDirectory(directory)) throw error
  }
  return first ?? directory
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}

/** Whether anything has this name. existsSync asks with access(2), which leaves out the capabilities of a process. @throws io */
export function isPresent(path: string): boolean {
  try {
    return isThere(path)
  } catch (error) {
    throw asPacsimileError(error, `Looking for ${path}`)
  }
}

/** The bytes of a file, or undefined where it does not exist. */
export function readIfPresent(file: string): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw asPacsimileError(error, `Reading ${file}`)
  }
}
