/**
 * What a directory held at a position: its entries, not what is below them.
 *
 * The catalog's keys are a depth-first walk, so what is below an entry lies between it and the next one, and is jumped over. It
 * prevents the listing of a volume's root from costing a walk over the volume.
 */
import type { Label, RelativePath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import type { Catalog } from './catalog.ts'
import { type KeyRange, ranges, readVersionKey } from './catalog-keys.ts'
import { readVersion } from './catalog-values.ts'

/** So many keys below an entry are passed over before the rest is jumped over: to begin anew costs about as much. */
const PASSED_MAX = 32
/** Keys read ahead. */
const BATCH = 256

export async function* directoryAt(
  catalog: Catalog,
  { agent, volume, path }: { readonly agent: Label; readonly volume: Label; readonly path: RelativePath },
  at: Position,
): AsyncGenerator<TreeEntry> {
  const all = ranges.versionsBelow(agent, volume, path)
  const start = path === '' ? 0 : path.length + 1
  let candidate: { path: RelativePath; position: Position; value: Buffer } | undefined
  for (let range: KeyRange | undefined = all; range !== undefined; ) {
    let passed = 0
    let next: KeyRange | undefined
    for await (const [key, value] of catalog.entries(range, { batch: BATCH })) {
      const found = readVersionKey(key, agent, volume)
      const slash = found.path.indexOf('/', start)
      if (slash >= 0) {
        passed += 1
        if (passed < PASSED_MAX) continue
        const child = found.path.slice(0, slash) as RelativePath
        next = { gte: ranges.versionsBelow(agent, volume, child).lt, lt: all.lt }
        break
      }
      passed = 0
      if (candidate !== undefined && candidate.path !== found.path) {
        yield* entryOf(candidate)
        candidate = undefined
      }
      if (comparePositions(found.position, at) <= 0) candidate = { ...found, value }
    }
    range = next
  }
  yield* entryOf(candidate)
}

function* entryOf(candidate: { path: RelativePath; position: Position; value: Buffer } | undefined): Generator<TreeEntry> {
  const version = candidate === undefined ? undefined : readVersion(candidate.value)
  if (candidate !== undefined && version !== undefined) yield { path: candidate.path, position: candidate.position, version }
}
