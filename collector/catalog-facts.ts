/**
 * Everything in a catalog that follows from the repository, for who compares two of them.
 *
 * Invariant: two folds of the same files have the same facts. How far a catalog reflects the repository and what damage was met at which start are none,
 * and of a chunk only its length is one: where it stands twice, either place is right. It prevents a rebuild that calls a sound catalog another.
 */
import { NO_DIGEST } from '../shared/digest.ts'
import type { Catalog } from './catalog.ts'
import { keys, ranges } from './catalog-keys.ts'
import { readChunkPlace } from './catalog-values.ts'

export interface CatalogFact {
  readonly key: Buffer
  readonly value: Buffer
}

/** In the order of keys. */
export async function* factsOf(catalog: Catalog): AsyncGenerator<CatalogFact> {
  const [chunkKind, damageKind] = [keys.chunk(NO_DIGEST)[0], ranges.damage.gte[0]]
  for await (const [key, value] of catalog.entries({ gte: Buffer.alloc(0), lt: Buffer.alloc(1, 0xff) })) {
    if (key[0] === damageKind || key.equals(keys.reflected)) continue
    yield { key, value: key[0] === chunkKind ? Buffer.from(`${readChunkPlace(value).plainLength}`) : value }
  }
}
