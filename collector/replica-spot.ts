/** A piece of a file of the replica, as it is there now: whoever asks looks whether it is what was put there. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf } from '../shared/errors.ts'
import { pathBuffer, type RelativePath } from '../shared/path.ts'

/** Undefined where there is no such file, or it is shorter. */
export function readReplicaSpot(root: ByteString, path: RelativePath, offset: number, length: number): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(pathBuffer(`${root}/${path}`), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    // Whatever is there, it is not what was put there.
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
  try {
    const plain = Buffer.alloc(length)
    return fstatSync(fd).isFile() && readSync(fd, plain, 0, length, offset) === length ? plain : undefined
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  } finally {
    closeSync(fd)
  }
}
