/**
 * What was put last, by its place: whether something came into a directory since a look found that directory gone.
 *
 * Invariant: what it no longer knows of counts as come. It prevents a look from ending, with a directory that has been there again since, what
 * was recorded in it meanwhile.
 */
import { isWithin, type Label, type RelativePath } from '../shared/path.ts'
import type { JournalRecord } from '../shared/record.ts'
import type { Place } from './place.ts'

/** More than are recorded between a look and its record, unless there is far more to do than can be done. */
const PUTS_MAX = 10_000

interface Put {
  readonly seq: number
  readonly volume: Label
  readonly path: RelativePath
}

export class RecentPuts {
  /** By rising seq. */
  #puts: Put[] = []
  /** Of the newest put that is forgotten. */
  #forgotten = 0

  note(records: readonly JournalRecord[]): void {
    for (const record of records) if (record.kind === 'put') this.#puts.push({ seq: record.seq, volume: record.volume, path: record.path })
    if (this.#puts.length <= 2 * PUTS_MAX) return
    this.#forgotten = this.#puts.at(-PUTS_MAX - 1)?.seq ?? this.#forgotten
    this.#puts = this.#puts.slice(-PUTS_MAX)
  }

  /** Whether something within the directory was put after the record `seq`. */
  hasWithin({ volume, path }: Place, seq: number): boolean {
    if (seq < this.#forgotten) return true
    for (let at = this.#puts.length - 1; at >= 0; at--) {
      const put = this.#puts[at]
      if (put === undefined || put.seq <= seq) return false
      if (put.volume === volume && isWithin(put.path, path)) return true
    }
    return false
  }
}
