/**
 * What the agent does every second besides protecting: makes waiting content safe, trims the journal, and watches the spool's
 * room.
 *
 * Order of a trim: the state is durable up to the acknowledged record before the journal below it is removed. Invariant:
 * while the spool is full there is a gap in the journal, from the first content that was not copied until a full scan after
 * there was room again. It prevents a full disk from becoming a silent hole in the history.
 */
import type { HybridClock, HybridTime } from '../shared/clock.ts'
import type { Log } from '../shared/log.ts'
import type { Change } from '../shared/record.ts'
import type { Protection } from './protection.ts'
import type { OpenGap } from './rounds.ts'
import type { State } from './state.ts'
import { sleep } from './waiting.ts'

export interface UpkeepParts {
  readonly protection: Protection
  readonly state: State
  readonly clock: HybridClock
  readonly note: (changes: readonly Change[]) => Promise<unknown>
  /** A full scan of every volume is to close this gap. */
  readonly repair: (gap: OpenGap) => void
  readonly log: Log
}

const EVERY_MS = 1000
/** The journal is trimmed when this many of its records are acknowledged, or after a while. */
const TRIM_RECORDS = 10_000
const TRIM_MS = 10_000
const SPOOL_CAUSE = 'the spool had no room: content was not copied'

export class Upkeep {
  readonly #parts: UpkeepParts
  #trimmedMs = performance.now()
  #fullSince: HybridTime | undefined

  constructor(parts: UpkeepParts) {
    this.#parts = parts
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#parts.protection.held.spillOld(performance.now())
      await this.#watchRoom()
      await this.#trim()
      await sleep(EVERY_MS, signal)
    }
  }

  async #trim(): Promise<void> {
    const { protection, state } = this.#parts
    const { journal, terms, ackedSeq } = protection
    const trimmable = ackedSeq - journal.oldest
    const isDue = trimmable >= TRIM_RECORDS || (trimmable > 0 && performance.now() - this.#trimmedMs > TRIM_MS)
    if (!isDue || terms === undefined || state.applied < ackedSeq) return
    await state.sync()
    await journal.trim(terms.repository)
    this.#trimmedMs = performance.now()
  }

  async #watchRoom(): Promise<void> {
    const { protection, clock, note, repair, log } = this.#parts
    const { isFull } = protection.spool
    if (isFull && this.#fullSince === undefined) {
      const since = clock.tick()
      this.#fullSince = since
      log.error('the spool has no room; versions whose file changes before the collector is back will be lost', {
        spoolBytes: protection.spool.bytes,
      })
      // Told at once, because the agent may not live to tell the end of it.
      await note(
        [...protection.volumes.keys()].map((volume): Change => ({ kind: 'gap', volume, from: since, until: since, cause: SPOOL_CAUSE })),
      )
      for (const volume of protection.volumes.values()) volume.gaps += 1
    } else if (!isFull && this.#fullSince !== undefined) {
      repair({ from: this.#fullSince, cause: SPOOL_CAUSE })
      this.#fullSince = undefined
      log.info('the spool has room again')
    }
  }
}
