/** Whether a file has a chunk's content at a place, as it is there now. */
import { readSync } from 'node:fs'
import { type Digest, digestOf } from '../shared/digest.ts'

export function holdsChunk(fd: number, offset: number, length: number, digest: Digest): boolean {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const read = readSync(fd, bytes, done, length - done, offset + done)
    if (read === 0) return false
    done += read
  }
  return digestOf(bytes) === digest
}
