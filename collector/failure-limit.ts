/**
 * How often something may fail from one address before the address is turned away for a while.
 *
 * Invariant: an address gets at most `failuresMax` failures within any window, and what is remembered is bounded: of too many
 * addresses the one that failed first is forgotten. It prevents guessing at tokens, and a log that guesses fill.
 */
import type { WallClock } from '../shared/clock.ts'

const ADDRESSES_MAX = 4096

export class FailureLimit {
  readonly #clock: WallClock
  readonly #failuresMax: number
  readonly #windowMs: number
  readonly #failures = new Map<string, number[]>()

  constructor(clock: WallClock, failuresMax: number, windowMs: number) {
    this.#clock = clock
    this.#failuresMax = failuresMax
    this.#windowMs = windowMs
  }

  isExceeded(address: string): boolean {
    return this.#recent(address).length >= this.#failuresMax
  }

  count(address: string): void {
    const recent = this.#recent(address)
    this.#failures.delete(address)
    this.#failures.set(address, [...recent, this.#clock.now()].slice(-this.#failuresMax))
    if (this.#failures.size <= ADDRESSES_MAX) return
    const [oldest] = this.#failures.keys()
    if (oldest !== undefined) this.#failures.delete(oldest)
  }

  #recent(address: string): number[] {
    const since = this.#clock.now() - this.#windowMs
    return (this.#failures.get(address) ?? []).filter((at) => at > since)
  }
}
