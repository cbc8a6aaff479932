/**
 * What a run of records touched, each path once, so that a follower writes the last state and not every step to it.
 *
 * Invariant: whatever differs between the tree before the records and the tree after them lies at a touched path, below
 * a renamed one, or below one that ended on the way. It prevents a replica that keeps what was in a directory before
 * it was deleted and made again.
 */
import { type Label, pathKey, type RelativePath } from '../shared/path.ts'
import type { Position, RecordSummary } from '../shared/record.ts'

export interface VolumeTouched {
  /** A sweep may have ended any path. */
  readonly whole: boolean
  /** In the order of a walk: parents before what is in them. */
  readonly paths: Iterable<RelativePath>
  /** Paths that another tree was renamed to. */
  readonly subtrees: Iterable<RelativePath>
  /** Paths that were removed, or became something else than a directory, at some moment of the round. */
  readonly ended: Iterable<RelativePath>
}

/** What the records of a round touched, each path once. */
export class TouchedPaths {
  readonly #volumes = new Map<Label, { whole: boolean; paths: Set<RelativePath>; subtrees: Set<RelativePath>; ended: Set<RelativePath> }>()
  readonly #isDirectory: (volume: Label, path: RelativePath, position: Position) => boolean

  constructor(isDirectory: (volume: Label, path: RelativePath, position: Position) => boolean) {
    this.#isDirectory = isDirectory
  }

  add(record: RecordSummary): void {
    if (record.kind === 'epoch') return
    let touched = this.#volumes.get(record.volume)
    if (touched === undefined) {
      touched = { whole: false, paths: new Set(), subtrees: new Set(), ended: new Set() }
      this.#volumes.set(record.volume, touched)
    }
    switch (record.kind) {
      case 'put':
        touched.paths.add(record.path)
        if (!this.#isDirectory(record.volume, record.path, record)) touched.ended.add(record.path)
        return
      case 'remove':
        touched.paths.add(record.path)
        touched.ended.add(record.path)
        return
      case 'rename':
        touched.paths.add(record.path)
        touched.subtrees.add(record.to)
        touched.ended.add(record.path)
        touched.ended.add(record.to)
        return
      case 'sweep':
        touched.whole = true
        return
      default:
        return
    }
  }

  get byVolume(): Map<Label, VolumeTouched> {
    const sorted = new Map<Label, VolumeTouched>()
    for (const [volume, { whole, paths, subtrees, ended }] of this.#volumes) {
      const order = [...paths].map((path) => ({ path, key: pathKey(path) })).sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
      sorted.set(volume, { whole, paths: order.map(({ path }) => path), subtrees, ended })
    }
    return sorted
  }
}
