/**
 * Chunks of which agents were told that they are there: they do not send them, and the records that name them are on their way.
 *
 * Invariant: what was told is remembered for an hour at least, and for two at most. It prevents prune from removing content between the
 * word to an agent and the agent's record; what takes longer is refused then, and sent again.
 */
import type { Digest } from '../shared/digest.ts'
import { DigestSet } from './digest-set.ts'

const HOUR_MS = 3_600_000

export class ChunkPromises {
  readonly #now: () => number
  #sinceMs: number
  #recent = new DigestSet()
  #older = new DigestSet()

  /** `now` in ms, by a clock that nobody sets. */
  constructor(now: () => number) {
    this.#now = now
    this.#sinceMs = now()
  }

  add(name: Digest): void {
    this.#turn()
    this.#recent.add(name)
  }

  has(name: Digest): boolean {
    this.#turn()
    return this.#recent.has(name) || this.#older.has(name)
  }

  #turn(): void {
    const ageMs = this.#now() - this.#sinceMs
    if (ageMs < HOUR_MS) return
    this.#older = ageMs < 2 * HOUR_MS ? this.#recent : new DigestSet()
    this.#recent = new DigestSet()
    this.#sinceMs = this.#now()
  }
}
