/**
 * Whether a volume's own directory is still the one that is watched.
 *
 * Invariant: "gone" is said of anything below only while it is. It prevents an unmounted disk from looking like a million
 * deletions.
 */
import type { BigIntStats } from 'node:fs'
import { reasonOf } from '../shared/errors.ts'
import { ROOT } from '../shared/path.ts'
import { absolutePath, statAt, type VolumeRoot } from './file-stat.ts'

/** Why the volume's directory is not the one that is watched; undefined when it is. */
export function rootProblem(root: VolumeRoot): string | undefined {
  let stats: BigIntStats | undefined
  try {
    stats = statAt(absolutePath(root.directory, ROOT))
  } catch (error) {
    return `the volume's directory cannot be read: ${reasonOf(error)}`
  }
  if (stats === undefined) return "the volume's directory does not exist"
  if (!stats.isDirectory()) return "the volume's directory is not a directory"
  if (stats.dev !== root.device || stats.ino !== root.inode)
    return `the volume's directory is another one (inode ${stats.ino}, not ${root.inode}); is its disk mounted?`
  return undefined
}
