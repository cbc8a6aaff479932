/**
 * The directories that one round has renamed in the files, in order, and so where what is at a path now was before.
 *
 * It prevents a follower that renames a directory of 100,000 files from taking what it finds there for what was there.
 */
import { isWithin, type RelativePath, rebase } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'

export class MovedDirectories {
  readonly #moves: { readonly from: RelativePath; readonly to: RelativePath }[] = []
  readonly #records = new Set<string>()

  add({ from, to, record }: { from: RelativePath; to: RelativePath; record: Position }): void {
    this.#moves.push({ from, to })
    this.#records.add(nameOf(record))
  }

  /** Where the file at a path was before all of the moves; undefined where nothing can have come to that path. */
  sourceOf(path: RelativePath): RelativePath | undefined {
    let at = path
    for (const { from, to } of this.#moves.toReversed()) {
      if (isWithin(at, to)) at = rebase(at, to, from)
      else if (isWithin(at, from)) return undefined
    }
    return at
  }

  /** Whether the record is one of these renames. */
  isOf(record: Position): boolean {
    return this.#records.has(nameOf(record))
  }
}

function nameOf({ epoch, seq }: Position): string {
  return `${epoch}:${seq}`
}
