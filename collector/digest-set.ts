/**
 * A set of digests in eight bytes each, for as many chunks as a repository has.
 *
 * It keeps the first 64 bits, with open addressing. Invariant: `has` is true of everything that was added; of something else it is true
 * once in 2^64 / size. Whoever asks what is needed errs to the safe side: a chunk is kept that could go.
 */
import type { Digest } from '../shared/digest.ts'

/** Of the places, so many are taken before they become twice as many. */
const LOAD_MAX = 0.6

export class DigestSet {
  #places = new Uint32Array(2 * 4096)
  #size = 0

  get size(): number {
    return this.#size
  }

  add(name: Digest): void {
    if (this.#size >= (this.#places.length / 2) * LOAD_MAX) this.#grow()
    const [high, low] = wordsOf(name)
    this.#insert(high, low)
  }

  has(name: Digest): boolean {
    const [high, low] = wordsOf(name)
    return this.#isThere(this.#find(high, low))
  }

  #insert(high: number, low: number): void {
    const at = this.#find(high, low)
    if (this.#isThere(at)) return
    this.#places[at] = high
    this.#places[at + 1] = low
    this.#size += 1
  }

  /** Where it is, or would be. */
  #find(high: number, low: number): number {
    const count = this.#places.length / 2
    for (let place = low % count; ; place = (place + 1) % count) {
      const at = 2 * place
      if (!this.#isThere(at) || (this.#places[at] === high && this.#places[at + 1] === low)) return at
    }
  }

  #isThere(at: number): boolean {
    return this.#places[at] !== 0 || this.#places[at + 1] !== 0
  }

  #grow(): void {
    const before = this.#places
    this.#places = new Uint32Array(2 * before.length)
    this.#size = 0
    for (let at = 0; at < before.length; at += 2) {
      const [high = 0, low = 0] = before.subarray(at, at + 2)
      if (high !== 0 || low !== 0) this.#insert(high, low)
    }
  }
}

/** Two zero words mean that a place is free. */
function wordsOf(name: Digest): [number, number] {
  const word = (at: number): number =>
    (name.charCodeAt(at) | (name.charCodeAt(at + 1) << 8) | (name.charCodeAt(at + 2) << 16) | (name.charCodeAt(at + 3) << 24)) >>> 0
  const [high, low] = [word(0), word(4)]
  return high === 0 && low === 0 ? [0, 1] : [high, low]
}
