/**
 * What is known of an agent's records, a bit of each: which put something, which are renames, and of which the content was lost or expired.
 *
 * Who asks of every version would have the catalog look in another place for each answer. Invariant: it says what the catalog said when
 * it was read; what came since is not in it. It prevents a question about all of a long history from costing a table of the catalog,
 * opened and mapped, per version.
 */
import type { Label } from '../shared/path.ts'
import { BEFORE_ALL, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { POSITION_BYTES, ranges, readPosition } from './catalog-keys.ts'
import { PositionSet } from './position-set.ts'

export class RecordMarks {
  readonly #puts = new PositionSet()
  readonly #renames = new PositionSet()
  readonly #lost = new PositionSet()
  readonly #expired = new PositionSet()

  private constructor() {}

  static async read(catalog: Catalog, agent: Label): Promise<RecordMarks> {
    const marks = new RecordMarks()
    const end = catalog.chainEnd(agent) ?? BEFORE_ALL
    for await (const { kind, epoch, seq } of catalog.summaries(agent, BEFORE_ALL, end)) {
      if (kind === 'put') marks.#puts.add({ epoch, seq })
      if (kind === 'rename') marks.#renames.add({ epoch, seq })
    }
    for (const [set, range] of [
      [marks.#lost, ranges.lost(agent)],
      [marks.#expired, ranges.expired(agent)],
    ] as const)
      for await (const [key] of catalog.entries(range)) set.add(readPosition(key, key.length - POSITION_BYTES))
    return marks
  }

  isPut(position: Position): boolean {
    return this.#puts.has(position)
  }

  isRename(position: Position): boolean {
    return this.#renames.has(position)
  }

  isLost(position: Position): boolean {
    return this.#lost.has(position)
  }

  isExpired(position: Position): boolean {
    return this.#expired.has(position)
  }
}
