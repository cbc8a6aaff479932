/**
 * A volume's root directory, held open by a scan thread, and the places below it that are reached from there.
 *
 * Invariant: whatever is opened is below the root by its own names, in the same mount and of the same filesystem; a symlink or
 * another mount on the way is an error. It prevents a scan from being led out of its volume.
 */

import { closeSync, constants, openSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf } from '../shared/errors.ts'
import { pathBuffer, ROOT } from '../shared/path.ts'
import { absolutePath, type VolumeRoot } from './file-stat.ts'
import { OPEN_DIRECTORY, OPEN_PATH, STATX, type SystemCalls, systemCalls } from './system-calls.ts'

/** Names on the way to a place are gone, or are not directories any more. */
const ABSENT = new Set(['ENOENT', 'ENOTDIR', 'ELOOP'])
const WORD = 4

export function isAbsence(error: unknown): boolean {
  return ABSENT.has(errnoOf(error) ?? '')
}

/** Whether another mount is on the way. */
export function isForeign(error: unknown): boolean {
  return errnoOf(error) === 'EXDEV'
}

export class ScanRoot implements Disposable {
  readonly calls: SystemCalls
  readonly fd: number
  /** Device and mount of the root, as words of struct statx. */
  readonly #device: readonly number[]
  readonly #mount: readonly number[]

  private constructor(calls: SystemCalls, fd: number, stat: Buffer) {
    this.calls = calls
    this.fd = fd
    this.#device = [stat.readUInt32LE(STATX.dev), stat.readUInt32LE(STATX.dev + WORD)]
    this.#mount = [stat.readUInt32LE(STATX.mountId), stat.readUInt32LE(STATX.mountId + WORD)]
  }

  /** @throws what stands in the way, or Error when another directory is there */
  static open({ directory, device, inode }: VolumeRoot): ScanRoot {
    if (systemCalls === undefined) throw new Error('scans need Linux')
    // The root itself may be reached through symlinks: the administrator named it.
    const fd = openSync(pathBuffer(absolutePath(directory, ROOT)), constants.O_RDONLY | constants.O_DIRECTORY)
    const stat = systemCalls.statAt(fd, '')
    const bytes = systemCalls.statBytesAt(fd, '')
    if (stat?.ino !== inode || stat.dev !== device || bytes === undefined) {
      closeSync(fd)
      throw new Error("the volume's directory is another one")
    }
    return new ScanRoot(systemCalls, fd, bytes)
  }

  /** Whether what was looked at last (`statBytesAt`) lies in the volume's own filesystem and mount. */
  get isOwn(): boolean {
    const words = this.calls.statWords
    return (
      words[STATX.mountId >> 2] === this.#mount[0] &&
      words[(STATX.mountId >> 2) + 1] === this.#mount[1] &&
      words[STATX.dev >> 2] === this.#device[0] &&
      words[(STATX.dev >> 2) + 1] === this.#device[1]
    )
  }

  /** Opens the directory at a PATHKEY, to be listed or only to name places in it. @throws as `isAbsence` tells apart */
  openDirectory(key: ByteString, purpose: 'list' | 'name' = 'list'): number {
    const { calls } = this
    const names = key === '' ? ['.'] : key.split('\0')
    let fd = this.fd
    try {
      for (const [i, name] of names.entries()) {
        const isLast = i === names.length - 1 && purpose === 'list'
        const next = calls.openat(fd, name, isLast ? OPEN_DIRECTORY : OPEN_PATH | constants.O_DIRECTORY)
        if (fd !== this.fd) calls.close(fd)
        fd = next
      }
      const stat = calls.statBytesAt(fd, '')
      if (stat === undefined || !this.isOwn) throw Object.assign(new Error('EXDEV: another mount is on the way'), { code: 'EXDEV' })
      return fd
    } catch (error) {
      if (fd !== this.fd) calls.close(fd)
      throw error
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd)
  }
}

export function parentKey(key: ByteString): ByteString {
  return key.slice(0, Math.max(key.lastIndexOf('\0'), 0))
}

export function nameOfKey(key: ByteString): ByteString {
  return key.slice(key.lastIndexOf('\0') + 1)
}
