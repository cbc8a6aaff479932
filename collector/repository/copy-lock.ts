/**
 * A lock that a file is: whoever made it holds it, and removes it in the end.
 *
 * Invariant: it is taken from its holder only where that one is dead, which flock(2) tells on the same running system, or, from
 * anywhere, when it has aged. It prevents two from holding it where a directory is mounted by several hosts, and a minute's
 * wait after a crash where it is not.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, open, readFile, rm, stat } from 'node:fs/promises'
import { errnoOf, PacsimileError } from '../../shared/errors.ts'

/** One that is older was left by a crash, wherever that was. */
export const LOCK_MS_MAX = 60_000
/** Another name for each start of a kernel (random(4)): a lock of flock(2) is known to all of one, and perhaps to no other. */
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id'

/** Calls `act` while `path` is there by us. `draft` begins the name beside it under which it is made. @throws locked, and what `act` throws */
export async function withLockFile(path: string, draft: string, of: string, act: () => Promise<void>): Promise<void> {
  const name = `${draft}${randomBytes(3).toString('hex')}`
  const file = await open(name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    // Both before anybody can see it.
    if (await lockFile(file.fd)) await file.writeFile(await runningSystem())
    if (!(await isLinked(name, path)) && !((await removeDead(path)) && (await isLinked(name, path)))) {
      const why = `another process writes it, or was killed on another host while it did, less than ${LOCK_MS_MAX / 1000} s ago`
      throw new PacsimileError('locked', `${of} cannot be written: ${why}`)
    }
    const inode = await inodeOf(path)
    // Where two names of a file are not one, what is locked by one is not by the other: it is as if it were another host's.
    if (inode !== (await file.stat()).ino) await file.truncate()
    try {
      await act()
    } finally {
      if (inode !== undefined) await removeWhere(path, inode)
    }
  } finally {
    await rm(name, { force: true })
    await file.close()
  }
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
async function removeDead(path: string): Promise<boolean> {
  let file: FileHandle
  try {
    // An exclusive lock on a server needs a file that is open for writing (flock(2), "NFS details").
    file = await open(path, constants.O_RDWR)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return true
    if (errnoOf(error) === 'EACCES') return false
    throw error
  }
  try {
    const { ino, mtimeMs } = await file.stat()
    const system = await runningSystem()
    // Held from here on: of several that find it dead one removes it.
    const isDead = (await lockFile(file.fd)) && system !== '' && (await file.readFile('utf8')) === system
    if (isDead) await removeWhere(path, ino)
    else if (Date.now() - mtimeMs > LOCK_MS_MAX) await rm(path, { force: true })
    else return false
    return true
  } finally {
    await file.close()
  }
}

/** By now the path may be another one's, which has another number as long as this one is open. */
async function removeWhere(path: string, inode: number): Promise<void> {
  if ((await inodeOf(path)) === inode) await rm(path, { force: true })
}

async function inodeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).ino
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    return undefined
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
