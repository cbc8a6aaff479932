/**
 * A lock that a file is: whoever made it holds it, and removes it in the end.
 *
 * Invariant: it is taken from its holder only where that one is dead, which flock(2) tells on the same running system, or, from
 * anywhere, when it has aged. It prevents two from holding it where a directory is mounted by several hosts, and a minute's
 * wait after a crash where it is not.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, open, readFile, rm, stat, unlink } from 'node:fs/promises'
import { errnoOf, PacsimileError } from '../../shared/errors.ts'

/** One that is older was left by a crash, wherever that was. */
export const LOCK_MS_MAX = 60_000
/** Another name for each start of a kernel (random(4)): a lock of flock(2) is known to all of one, and perhaps to no other. */
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id'

/** Calls `act` while `path` is there by us. `draft` begins the name beside it under which it is made. @throws locked, and what `act` throws */
export async function withLockFile(path: string, draft: string, of: string, act: () => Promise<void>): Promise<void> {
  const system = await runningSystem()
  const name = `${draft}${randomBytes(3).toString('hex')}`
  const file = await open(name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    // Both before anybody can see it.
    await file.writeFile(system)
    await lockFile(file.fd)
    await take(path, name, system, of)
    try {
      await act()
    } finally {
      await removeWhere(path, (await file.stat()).ino)
    }
  } finally {
    await rm(name, { force: true })
    await file.close()
  }
}

async function take(path: string, name: string, system: string, of: string): Promise<void> {
  if ((await isLinked(name, path)) || ((await removeDead(path, system)) && (await isLinked(name, path)))) return
  const why = `another process writes it, or was killed on another host while it did, less than ${LOCK_MS_MAX / 1000} s ago`
  throw new PacsimileError('locked', `${of} cannot be written: ${why}`)
}

async function isLinked(name: string, path: string): Promise<boolean> {
  try {
    await link(name, path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

/** @returns whether the lock that was there is gone */
async function removeDead(path: string, system: string): Promise<boolean> {
  let file: FileHandle
  try {
    file = await open(path, constants.O_RDONLY)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return true
    throw error
  }
  try {
    const { ino, mtimeMs } = await file.stat()
    const isOfThisSystem = system !== '' && (await file.readFile('utf8')) === system
    // Held from here on, so that of several that find it dead one removes it.
    const isFree = await lockFile(file.fd)
    if (!(isFree && isOfThisSystem) && Date.now() - mtimeMs <= LOCK_MS_MAX) return false
    await removeWhere(path, ino)
    return true
  } finally {
    await file.close()
  }
}

/** Of an open file; by now the path may be another one's, which has another number then. */
async function removeWhere(path: string, inode: number): Promise<void> {
  try {
    if ((await stat(path)).ino === inode) await unlink(path)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

/**
 * flock(2), where there is such a thing. Loaded only now: a process that has koffi waits for itself for ever at its end where what it has said on
 * stderr cannot be brought to a disk.
 */
async function lockFile(fd: number): Promise<boolean> {
  const { libc } = await import('../../shared/libc.ts')
  return (await libc?.lockFile(fd)) === true
}

/** Empty where it has no name. */
async function runningSystem(): Promise<string> {
  try {
    return await readFile(BOOT_ID_FILE, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}
