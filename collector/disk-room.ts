/** Whether a filesystem has room, for what must not fail in its middle. */
import { statfsSync } from 'node:fs'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'

/** Why there are not so many bytes free where a directory is; undefined where there are. */
export function shortageOf(directory: string, bytes: number): PacsimileError | undefined {
  try {
    const { bavail, bsize } = statfsSync(directory)
    return bavail * bsize >= bytes ? undefined : new PacsimileError('space', `Less than ${bytes} bytes are free for ${directory}`)
  } catch (error) {
    return asPacsimileError(error, `Looking for room in ${directory}`)
  }
}
