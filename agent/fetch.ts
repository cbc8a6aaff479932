/**
 * Reads a chunk again from the file that held it when it was captured, in a capture thread.
 *
 * Invariant: the bytes have the digest that was asked for, or there are none. It prevents a file that changed meanwhile
 * from lending its new content to an old version.
 */
import { DEFAULT_CHUNK_SIZES } from '../shared/chunker.ts'
import type { Label } from '../shared/path.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { Capture } from './capture.ts'
import type { StoredChunk } from './capture-thread.ts'
import type { ChunkSource, ChunkSpot } from './delivery.ts'
import type { VolumeRoot } from './file-stat.ts'
import type { Volume } from './volume.ts'

/** Undefined where no file holds it any more, or their volumes are not there. */
export async function fetchChunk(
  capture: Capture,
  volumes: ReadonlyMap<Label, Volume>,
  { chunk, spots }: ChunkSource,
): Promise<StoredChunk | undefined> {
  // The last one named is the likeliest to be as it was.
  for (const spot of spots.toReversed()) {
    const root = volumes.get(spot.place.volume)?.root
    const stored = root === undefined ? undefined : await fetchFrom(capture, root, chunk, spot)
    if (stored !== undefined) return stored
  }
  return undefined
}

function fetchFrom(capture: Capture, root: VolumeRoot, chunk: ChunkRef, { place, offset }: ChunkSpot): Promise<StoredChunk | undefined> {
  return new Promise((resolve) => {
    let fetched: StoredChunk | undefined
    const client = {
      taken: (_: unknown, stored: StoredChunk): undefined => {
        fetched = stored
      },
      ended: (): void => resolve(fetched),
    }
    // Nothing is cut here: the sizes do not matter.
    capture.dispatch(root, DEFAULT_CHUNK_SIZES, [[{ kind: 'fetch', path: place.path, offset, chunk }, client]])
  })
}
