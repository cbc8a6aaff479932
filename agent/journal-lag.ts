/**
 * How long the latest changes took from the filesystem to the journal: what a crash of this host would have cost. Pure.
 *
 * A change has the time that the kernel gave its file (ctime), which may be a tick of the kernel's clock too early, never too
 * late. Invariant: the figures are of the last CHANGES_MAX changes that events told of, and say how many those are. It
 * prevents a good yesterday from hiding a bad today, and a figure of two changes from being taken for one of a thousand.
 */

export interface JournalLagSummary {
  /** How many the figures are of. */
  readonly changes: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const CHANGES_MAX = 1000

export class JournalLag {
  readonly #lags = new Float64Array(CHANGES_MAX)
  #noted = 0

  /** A version with this ctime has just become durable. */
  note(ctimeNs: bigint, nowMs: number): void {
    // A clock that was set back since makes it negative.
    this.#lags[this.#noted % CHANGES_MAX] = Math.max(0, nowMs - Number(ctimeNs / 1000n) / 1000)
    this.#noted += 1
  }

  /** Undefined before the first change. */
  get summary(): JournalLagSummary | undefined {
    const changes = Math.min(this.#noted, CHANGES_MAX)
    if (changes === 0) return undefined
    const sorted = this.#lags.slice(0, changes).sort()
    const at = (share: number): number => sorted[Math.min(changes - 1, Math.floor(changes * share))] ?? 0
    return { changes, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
  }
}
