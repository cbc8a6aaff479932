/**
 * A set of digests in some seven bytes each, for as many chunks as a repository has.
 *
 * It keeps 44 bits of each: 12 choose a shard, 32 stand in it, with open addressing. Invariant: `has` is true of everything that was added; of
 * something else it is true once in 2^44 / size. Whoever asks what is needed errs to the safe side: a chunk is kept that could go. Each shard
 * grows by itself, which prevents one addition among ten millions from moving them all, for a second, while a commit waits.
 */
import type { Digest } from '../shared/digest.ts'

const SHARDS = 1 << 12
const PLACES_MIN = 16
/** Of the places, so many are taken before they become more. */
const LOAD_MAX = 0.75
const GROWTH = 1.5

export class DigestSet {
  readonly #shards: (Shard | undefined)[] = Array.from({ length: SHARDS }, () => undefined)
  #size = 0

  get size(): number {
    return this.#size
  }

  add(name: Digest): void {
    const shard = (this.#shards[shardOf(name)] ??= new Shard())
    if (shard.add(wordOf(name))) this.#size += 1
  }

  has(name: Digest): boolean {
    return this.#shards[shardOf(name)]?.has(wordOf(name)) ?? false
  }
}

/** A set of 32-bit words that are not 0. */
class Shard {
  #places = new Uint32Array(PLACES_MIN)
  #size = 0

  /** @returns whether it is new */
  add(word: number): boolean {
    if (this.#size >= this.#places.length * LOAD_MAX) this.#grow()
    const at = this.#find(word)
    if (this.#places[at] === word) return false
    this.#places[at] = word
    this.#size += 1
    return true
  }

  has(word: number): boolean {
    return this.#places[this.#find(word)] === word
  }

  /** Where it is, or would be. */
  #find(word: number): number {
    const count = this.#places.length
    for (let place = word % count; ; place = place + 1 === count ? 0 : place + 1) {
      const found = this.#places[place]
      if (found === 0 || found === word) return place
    }
  }

  #grow(): void {
    const before = this.#places
    this.#places = new Uint32Array(Math.ceil(before.length * GROWTH))
    for (const word of before) if (word !== 0) this.#places[this.#find(word)] = word
  }
}

/** By bits that decide nothing else. */
function shardOf(name: Digest): number {
  return (name.charCodeAt(4) | (name.charCodeAt(5) << 8)) % SHARDS
}

/** Zero means that a place is free. */
function wordOf(name: Digest): number {
  const word = name.charCodeAt(0) | (name.charCodeAt(1) << 8) | (name.charCodeAt(2) << 16) | (name.charCodeAt(3) << 24)
  return word === 0 ? 1 : word >>> 0
}
