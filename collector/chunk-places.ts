/**
 * Where many chunks are.
 *
 * Invariant: they are asked for in the order of their names, in which the catalog's tables have them. It prevents each of them from being
 * looked for in another table, which a large catalog opens anew each time.
 */
import type { Digest } from '../shared/digest.ts'
import type { Catalog, ChunkPlace } from './catalog.ts'

/** As many as are worth gathering. */
export const CHUNKS_AT_ONCE = 4096

/** Those that are known. */
export function chunkPlaces(catalog: Catalog, names: Iterable<Digest>): ReadonlyMap<Digest, ChunkPlace> {
  const found = new Map<Digest, ChunkPlace>()
  for (const name of [...new Set(names)].sort()) {
    const place = catalog.chunk(name)
    if (place !== undefined) found.set(name, place)
  }
  return found
}
