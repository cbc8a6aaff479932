/**
 * What a run of a volume's records touched, each path once, so that a follower writes the last state and not every step
 * to it.
 *
 * Invariant: what the tree after the records holds and the files do not lies at a touched path or within a touched
 * subtree; what only the files hold lies at a touched path or below one that ended. Renames of directories that were made
 * in the files too carry along what was touched before them. It prevents a replica that keeps what was in a directory
 * before it was deleted and made again.
 */
import { isWithin, pathKey, type RelativePath, rebase } from '../shared/path.ts'
import type { Position, RecordSummary } from '../shared/record.ts'

export class TouchedPaths {
  readonly #paths = new Set<RelativePath>()
  readonly #subtrees = new Set<RelativePath>()
  readonly #ended = new Set<RelativePath>()
  readonly #isDirectory: (path: RelativePath, position: Position) => boolean
  #whole = false

  /** `isDirectory`: whether the record at the position made the path a directory. */
  constructor(isDirectory: (path: RelativePath, position: Position) => boolean) {
    this.#isDirectory = isDirectory
  }

  /** `isMoved`: of a rename, whether the files were renamed as well. */
  add(record: RecordSummary, isMoved = false): void {
    switch (record.kind) {
      case 'put':
        this.#paths.add(record.path)
        if (!this.#isDirectory(record.path, record)) this.#ended.add(record.path)
        return
      case 'remove':
        this.#paths.add(record.path)
        this.#ended.add(record.path)
        return
      case 'rename':
        this.#addRename(record.path, record.to, isMoved)
        return
      case 'sweep':
        this.#whole = true
        return
      default:
        return
    }
  }

  addPath(path: RelativePath): void {
    this.#paths.add(path)
  }

  #addRename(from: RelativePath, to: RelativePath, isMoved: boolean): void {
    // Such a record changes nothing, but it does name paths.
    if (isWithin(to, from) || isWithin(from, to)) return
    const isWithinSubtree = holdsAbove(this.#subtrees, from)
    const isBelowEnded = holdsAbove(this.#ended, from)
    for (const touched of [this.#paths, this.#subtrees, this.#ended]) {
      // What was at `to` is gone, and is told of by `to` itself.
      for (const path of touched) if (isWithin(path, to)) touched.delete(path)
      for (const path of touched) {
        if (!isWithin(path, from)) continue
        touched.delete(path)
        touched.add(rebase(path, from, to))
      }
    }
    this.#paths.add(from).add(to)
    this.#ended.add(from)
    if (!isMoved || isWithinSubtree) this.#subtrees.add(to)
    if (!isMoved || isBelowEnded) this.#ended.add(to)
  }

  /** A sweep may have ended any path. */
  get whole(): boolean {
    return this.#whole
  }

  /** In the order of a walk: parents before what is in them. */
  get paths(): RelativePath[] {
    const order = [...this.#paths].map((path) => ({ path, key: pathKey(path) }))
    return order.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)).map(({ path }) => path)
  }

  /** Paths to which another tree came that the files do not hold as a whole. */
  get subtrees(): Iterable<RelativePath> {
    return this.#subtrees
  }

  /** Paths below which the files may hold what the tree does not: removed, renamed or no directory at some moment. */
  get ended(): Iterable<RelativePath> {
    return this.#ended
  }

  /** Whether the files may still lack what the tree holds at the path itself. */
  covers(path: RelativePath): boolean {
    return this.#paths.has(path) || holdsAbove(this.#subtrees, path)
  }
}

/** Whether the set holds the path or one above it. */
function holdsAbove(paths: Iterable<RelativePath>, path: RelativePath): boolean {
  for (const above of paths) if (isWithin(path, above)) return true
  return false
}
