/**
 * How long the collector has run in all its life: the measure of age for everything that may be removed.
 *
 * It goes on from what the ledger says, by the monotonic clock (clock_gettime(2), CLOCK_MONOTONIC). Time in which the collector did not
 * run, or the machine slept, does not count. Invariant: it never advances faster than time, whatever clock is set, here or at an agent.
 * It prevents a clock that jumps years ahead from making everything old enough to go.
 */
export class RunningTime {
  #baseMs: number
  readonly #now: () => number
  readonly #startedMs: number

  constructor(baseMs: number, now = (): number => performance.now()) {
    this.#baseMs = baseMs
    this.#now = now
    this.#startedMs = now()
  }

  /** Whole milliseconds. */
  get ms(): number {
    return this.#baseMs + Math.max(0, Math.floor(this.#now() - this.#startedMs))
  }

  /** What the ledger says turned out to be more than was known at the start. */
  goOnFrom(baseMs: number): void {
    this.#baseMs = Math.max(this.#baseMs, baseMs)
  }
}
