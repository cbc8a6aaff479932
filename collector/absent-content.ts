/**
 * Why the content of an entry is not there, also where renames have brought the entry elsewhere: its agent declared it lost, or
 * it has expired.
 *
 * Invariant: what is said of a put is said of what it made, under whatever path that is now. It prevents content that was never
 * kept, or went as the retention says, from passing for damage of the repository because its directory was renamed.
 */
import { type Label, type RelativePath, rebase } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'

export type Absence = 'lost' | 'expired'

interface Entry {
  readonly path: RelativePath
  readonly position: Position
}

export async function absenceOfContent(catalog: Catalog, agent: Label, volume: Label, entry: Entry): Promise<Absence | undefined> {
  for await (const position of origins(catalog, agent, volume, entry)) {
    if (catalog.isLost(agent, position)) return 'lost'
    if (catalog.isExpired(agent, position)) return 'expired'
  }
  return undefined
}

/** The record that put what the entry is; undefined where damage has taken it. */
export async function putOf(catalog: Catalog, agent: Label, volume: Label, entry: Entry): Promise<Position | undefined> {
  let last: Position | undefined
  for await (const position of origins(catalog, agent, volume, entry)) last = position
  return last !== undefined && catalog.summary(agent, last)?.kind === 'put' ? last : undefined
}

/** The record that made the entry; where that is a rename, the one that made what it moved, and so on. */
async function* origins(catalog: Catalog, agent: Label, volume: Label, entry: Entry): AsyncGenerator<Position> {
  let { path, position } = entry
  for (;;) {
    yield position
    const record = catalog.summary(agent, position)
    if (record?.kind !== 'rename') return
    path = rebase(path, record.to, record.path)
    const source = await catalog.entryAt(agent, volume, path, { epoch: position.epoch, seq: position.seq - 1 })
    if (source === undefined) return
    position = source.position
  }
}
