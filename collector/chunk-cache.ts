/**
 * The newest plain chunks, so that the replica writes what has just arrived without reading it back from disk.
 *
 * Bounded by bytes; the oldest go first. Only an economy: whatever is not here is read from the repository.
 */
import type { Digest } from '../shared/digest.ts'

export class ChunkCache {
  readonly #chunks = new Map<Digest, Buffer>()
  readonly #bytesMax: number
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get(name: Digest): Buffer | undefined {
    return this.#chunks.get(name)
  }

  set(name: Digest, plain: Buffer): void {
    if (this.#chunks.has(name)) return
    this.#chunks.set(name, plain)
    this.#bytes += plain.length
    for (const [oldest, bytes] of this.#chunks) {
      if (this.#bytes <= this.#bytesMax) break
      this.#chunks.delete(oldest)
      this.#bytes -= bytes.length
    }
  }
}
