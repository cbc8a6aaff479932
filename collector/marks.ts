/**
 * Marks: moments that somebody gave a name, such as "before-upgrade".
 *
 * A mark is a record of the agent's journal, behind everything that had changed when it was asked for. Invariant: its
 * name stands for that very position. It prevents a script that notes the time of a clock from naming a moment in which the last
 * changes were still on their way.
 */
import type { HybridTime } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { ranges, readMarkKey } from './catalog-keys.ts'

export interface Mark {
  readonly name: string
  readonly time: HybridTime
  /** Of its record: the state there holds everything before it. */
  readonly position: Position
}

/** Oldest first. A name may have been given several times. */
export async function marksOf(catalog: Catalog, agent: Label, volume: Label): Promise<Mark[]> {
  const found: Mark[] = []
  for await (const [key, value] of catalog.entries(ranges.marks(agent, volume)))
    found.push({ name: value.toString('utf8'), ...readMarkKey(key) })
  return found
}

/** Of each name the newest: the others name nothing any more. */
export async function standingMarks(catalog: Catalog, agent: Label, volume: Label): Promise<Mark[]> {
  const newest = new Map((await marksOf(catalog, agent, volume)).map((mark) => [mark.name, mark]))
  return [...newest.values()]
}

/** The newest of that name. @throws not-found */
export async function markNamed(catalog: Catalog, agent: Label, volume: Label, name: string): Promise<Mark> {
  const marks = await marksOf(catalog, agent, volume)
  const found = marks.findLast((mark) => mark.name === name)
  if (found !== undefined) return found
  const known = [...new Set(marks.map((mark) => mark.name))]
  throw new PacsimileError(
    'not-found',
    `${agent}:${volume} has no mark ${JSON.stringify(name)}; ${known.length === 0 ? 'none was ever set' : `there are ${known.join(', ')}`}`,
  )
}
