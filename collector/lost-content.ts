/**
 * Whether the content of an entry is among what its agent declared lost, also where renames have brought it elsewhere.
 *
 * Invariant: a lost record marks what the put that it names made, under whatever path that is now. It prevents content
 * that was never kept from passing for damage of the repository because its directory was renamed.
 */
import { type Label, type RelativePath, rebase } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'

export async function isContentLost(
  catalog: Catalog,
  agent: Label,
  volume: Label,
  entry: { readonly path: RelativePath; readonly position: Position },
): Promise<boolean> {
  let { path, position } = entry
  for (;;) {
    if (catalog.isLost(agent, position)) return true
    const record = catalog.summary(agent, position)
    if (record?.kind !== 'rename') return false
    path = rebase(path, record.to, record.path)
    const source = await catalog.entryAt(agent, volume, path, { epoch: position.epoch, seq: position.seq - 1 })
    if (source === undefined) return false
    position = source.position
  }
}
