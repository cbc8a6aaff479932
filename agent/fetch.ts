/**
 * Reads a chunk again from the file that held it when it was captured, in a capture thread.
 *
 * Invariant: the bytes have the digest that was asked for, or there are none. It prevents a file that changed meanwhile
 * from lending its new content to an old version.
 */
import { DEFAULT_CHUNK_SIZES } from '../shared/chunker.ts'
import type { Capture } from './capture.ts'
import type { StoredChunk } from './capture-thread.ts'
import type { ChunkSource } from './delivery.ts'
import type { VolumeRoot } from './file-stat.ts'

/** Undefined where the file does not hold it any more, or its volume is not there. */
export function fetchChunk(
  capture: Capture,
  root: VolumeRoot | undefined,
  { chunk, place, offset }: ChunkSource,
): Promise<StoredChunk | undefined> {
  if (root === undefined) return Promise.resolve(undefined)
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
