/**
 * Where data and holes of a recorded file begin, as lseek(2) asks with SEEK_DATA and SEEK_HOLE.
 */
import type { FileVersion } from '../shared/version.ts'
import { holesOf } from '../shared/version-extensions.ts'

/** The first data at or behind an offset; undefined where there is none. */
export function dataFrom(version: FileVersion, offset: number): number | undefined {
  let at = offset
  for (const hole of holesOf(version)) if (at >= hole.offset && at < hole.offset + hole.length) at = hole.offset + hole.length
  return at < version.size ? at : undefined
}

/** The first hole at or behind an offset within the file; behind its end every file is one. */
export function holeFrom(version: FileVersion, offset: number): number | undefined {
  if (offset >= version.size) return undefined
  const hole = holesOf(version).find(({ offset: start, length }) => offset < start + length)
  return hole === undefined ? version.size : Math.max(offset, hole.offset)
}
