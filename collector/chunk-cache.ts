/**
 * The newest plain chunks, so that the replica writes what has just arrived without reading it back from disk.
 *
 * Bounded by bytes; the oldest go first. Only an economy: whatever is not here is read from the repository.
 */
import type { Digest } from '../shared/digest.ts'

/** Forgotten places at the front of the order, before it is copied to be short again. */
const FORGOTTEN_MAX = 4096

export class ChunkCache {
  readonly #chunks = new Map<Digest, Buffer>()
  readonly #bytesMax: number
  /** Oldest first, from `#first` on. A Map's own order is slow to read from its front once much was deleted there. */
  #order: Digest[] = []
  #first = 0
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
    this.#order.push(name)
    this.#bytes += plain.length
    while (this.#bytes > this.#bytesMax) this.#forgetOldest()
    if (this.#first > FORGOTTEN_MAX) {
      this.#order = this.#order.slice(this.#first)
      this.#first = 0
    }
  }

  #forgetOldest(): void {
    const oldest = this.#order[this.#first]
    this.#first += 1
    if (oldest === undefined) return
    this.#bytes -= this.#chunks.get(oldest)?.length ?? 0
    this.#chunks.delete(oldest)
  }
}
