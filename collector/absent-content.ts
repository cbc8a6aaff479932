/**
 * Why the content of an entry is not there, also where renames have brought the entry elsewhere: its agent declared it lost, or
 * it has expired.
 *
 * Invariant: what is said of a put is said of what it made, under whatever path that is now. It prevents content that was never
 * kept, or went as the retention says, from passing for damage of the repository because its directory was renamed.
 */
import { type Label, type RelativePath, rebase } from '../shared/path.ts'
import { comparePositions, decodeSummary, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { keys } from './catalog-keys.ts'
import type { RecordMarks } from './record-marks.ts'

export type Absence = 'lost' | 'expired'

interface Entry {
  readonly path: RelativePath
  readonly position: Position
}

/** `marks` of the agent spare who asks of many versions most of the looking up. */
export async function absenceOfContent(
  catalog: Catalog,
  agent: Label,
  volume: Label,
  entry: Entry,
  marks?: RecordMarks,
): Promise<Absence | undefined> {
  for await (const position of origins(catalog, agent, volume, entry, marks)) {
    if (marks?.isLost(position) ?? catalog.isLost(agent, position)) return 'lost'
    if (marks?.isExpired(position) ?? catalog.isExpired(agent, position)) return 'expired'
  }
  return undefined
}

/** Of each entry; what most of them need is asked of the catalog at once. */
export async function absencesOf(
  catalog: Catalog,
  agent: Label,
  volume: Label,
  entries: readonly Entry[],
): Promise<(Absence | undefined)[]> {
  // In the order of the records, so that of each of the catalog's tables all is read while it is open.
  const places = [...entries].map(({ position }, place) => ({ position, place })).sort((a, b) => comparePositions(a.position, b.position))
  const [lost, expired, summaries] = await Promise.all(
    [keys.lost, keys.expired, keys.summary].map((keyOf) => catalog.values(places.map(({ position }) => keyOf(agent, position)))),
  )
  const found: (Absence | undefined)[] = []
  for (const [i, { place }] of places.entries()) {
    const [entry, summary] = [entries[place], summaries?.[i]]
    if (lost?.[i] !== undefined) found[place] = 'lost'
    else if (expired?.[i] !== undefined) found[place] = 'expired'
    else if (entry === undefined || summary === undefined || decodeSummary(summary).kind !== 'rename') found[place] = undefined
    else found[place] = await absenceOfContent(catalog, agent, volume, entry)
  }
  return found
}

/** The record that put what the entry is; undefined where damage has taken it, or it is younger than the marks. */
export async function putOf(
  catalog: Catalog,
  agent: Label,
  volume: Label,
  entry: Entry,
  marks: RecordMarks,
): Promise<Position | undefined> {
  let last: Position | undefined
  for await (const position of origins(catalog, agent, volume, entry, marks)) last = position
  return last !== undefined && marks.isPut(last) ? last : undefined
}

/** The record that made the entry; where that is a rename, the one that made what it moved, and so on. */
async function* origins(
  catalog: Catalog,
  agent: Label,
  volume: Label,
  entry: Entry,
  marks: RecordMarks | undefined,
): AsyncGenerator<Position> {
  let { path, position } = entry
  for (;;) {
    yield position
    if (marks !== undefined && !marks.isRename(position)) return
    const record = catalog.summary(agent, position)
    if (record?.kind !== 'rename') return
    path = rebase(path, record.to, record.path)
    const source = await catalog.entryAt(agent, volume, path, { epoch: position.epoch, seq: position.seq - 1 })
    if (source === undefined) return
    position = source.position
  }
}
