/**
 * Files that a thread is to write, on their way to it as bytes: to clone as many objects costs three times as much.
 *
 * Both halves stand here side by side. Nothing else reads the bytes, which live as long as the message. Pure.
 */
import { ByteReader, ByteWriter } from '../shared/bytes.ts'
import { PacsimileError } from '../shared/errors.ts'
import { PATH_BYTES_MAX } from '../shared/limits.ts'
import { relativePath } from '../shared/path.ts'
import { decodeVersion, encodeVersion } from '../shared/version.ts'
import type { FileTask } from './restore-files.ts'

const [SAME, OTHER] = [0, 1]

/** In memory of its own, which may be given away. */
export function encodeTasks(tasks: readonly FileTask[]): Uint8Array<ArrayBuffer> {
  const to = new ByteWriter()
  for (const { path, at, version } of tasks) {
    to.string(path)
    if (at === path) to.u8(SAME)
    else to.u8(OTHER).string(at)
    encodeVersion(version, to)
  }
  return new Uint8Array(to.view())
}

export function decodeTasks(bytes: Uint8Array): FileTask[] {
  const from = new ByteReader(bytes, 'A batch of files')
  const tasks: FileTask[] = []
  while (from.remaining > 0) {
    const path = relativePath(from.string(PATH_BYTES_MAX))
    const at = from.u8() === SAME ? path : relativePath(from.string(PATH_BYTES_MAX))
    const version = decodeVersion(from)
    if (version.kind !== 'file') throw new PacsimileError('internal', 'What a thread is to write is no file')
    tasks.push({ path, at, version })
  }
  return tasks
}
