/**
 * Where a version that is held open is, or was last.
 *
 * Invariant: the path is below the volume's directory as it is named now. It prevents a version from being recorded under
 * the old name of a directory that was renamed since.
 */
import { closeSync, constants, openSync } from 'node:fs'
import type { ByteString } from '../../shared/bytes.ts'
import { errnoOf } from '../../shared/errors.ts'
import { pathBuffer, type RelativePath, ROOT, relativePath } from '../../shared/path.ts'
import { absolutePath, type VolumeRoot } from '../file-stat.ts'
import { pathOf } from './fanotify-calls.ts'

const DELETED = ' (deleted)'

/** What the kernel calls an open file; undefined where its path is longer than the kernel can tell. */
export function nameOfOpen(fd: number): ByteString | undefined {
  try {
    return pathOf(fd)
  } catch (error) {
    if (errnoOf(error) !== 'ENAMETOOLONG') throw error
    return undefined
  }
}

/** Undefined where it is not below the volume, or so deep that the kernel cannot tell. */
export function resolvePin(fd: number, root: VolumeRoot): RelativePath | undefined {
  let directory: number
  try {
    directory = openSync(pathBuffer(absolutePath(root.directory, ROOT)), constants.O_RDONLY | constants.O_DIRECTORY)
  } catch {
    // The volume is being lost, which whoever watches its root says.
    return undefined
  }
  try {
    const above = `${pathOf(directory)}/`
    const shown = nameOfOpen(fd)
    if (shown === undefined) return undefined
    const absolute = shown.endsWith(DELETED) ? shown.slice(0, -DELETED.length) : shown
    return absolute.startsWith(above) ? relativePath(absolute.slice(above.length)) : undefined
  } finally {
    closeSync(directory)
  }
}
