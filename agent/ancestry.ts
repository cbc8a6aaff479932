/**
 * Whether a path of a volume really lies in that volume: every directory above it is one, and of the same filesystem.
 *
 * Invariant: "gone" is said only while the volume's own directory is the one that was watched from the start. It prevents
 * an unmounted disk from looking like a million deletions, and a directory that was replaced by a symlink from leading the
 * agent out of its volume.
 */
import type { BigIntStats } from 'node:fs'
import { reasonOf } from '../shared/errors.ts'
import { parentOf, type RelativePath, ROOT } from '../shared/path.ts'
import type { Outcome } from './capture-job.ts'
import { absolutePath, statAt, type VolumeRoot } from './file-stat.ts'

export type Obstacle = Extract<Outcome, { kind: 'gone' | 'foreign' | 'root-lost' }>

export class Ancestry {
  readonly #root: VolumeRoot
  /** Directories seen to be there, for the few milliseconds of a batch. */
  readonly #seen = new Set<RelativePath>()

  constructor(root: VolumeRoot) {
    this.#root = root
  }

  /** What stands between the volume's root and the path, if anything. @throws what lstat(2) says */
  obstacleAbove(path: RelativePath): Obstacle | undefined {
    const parent = parentOf(path)
    if (parent === undefined) return this.obstacleAtRoot()
    if (this.#seen.has(parent)) return undefined
    const above = this.obstacleAbove(parent)
    if (above !== undefined) return above
    if (parent !== ROOT) {
      const stats = statAt(absolutePath(this.#root.directory, parent))
      if (stats === undefined) return { kind: 'gone', topmost: parent }
      if (!stats.isDirectory()) return { kind: 'gone', topmost: path }
      if (stats.dev !== this.#root.device) return { kind: 'foreign' }
    }
    this.#seen.add(parent)
    return undefined
  }

  obstacleAtRoot(): Obstacle | undefined {
    const reason = rootProblem(this.#root)
    return reason === undefined ? undefined : { kind: 'root-lost', reason }
  }
}

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
