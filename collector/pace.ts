/**
 * Holds work back to so many bytes a second: what was saved by waiting is not spent in a burst later, but for half a second of it.
 *
 * Invariant: from when it was made, no more is let through than the rate and that half second allow. It prevents a restore from taking the disk, or the
 * line, from those who work on it.
 */
import { setTimeout } from 'node:timers/promises'

const SAVED_MS = 500

export class Pace {
  readonly #bytesPerMs: number
  /** When all that was let through would be paid for. */
  #paidAtMs = Number.NEGATIVE_INFINITY

  /** Undefined: nothing is held back. */
  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerMs = bytesPerSecond === undefined ? Number.POSITIVE_INFINITY : bytesPerSecond / 1000
  }

  get isLimited(): boolean {
    return this.#bytesPerMs !== Number.POSITIVE_INFINITY
  }

  /** Does it when its turn has come; at once, and without a promise of its own, where it has. */
  take<Result>(bytes: number, act: () => Result | Promise<Result>): Result | Promise<Result> {
    if (!this.isLimited) return act()
    const nowMs = performance.now()
    this.#paidAtMs = Math.max(this.#paidAtMs, nowMs - SAVED_MS) + bytes / this.#bytesPerMs
    const waitMs = this.#paidAtMs - nowMs
    return waitMs <= 0 ? act() : setTimeout(waitMs).then(act)
  }
}
