/**
 * What the agent does every second besides protecting: makes waiting content safe, trims the journal, watches the room on
 * its disk, the clocks of the machine, and the agent's own memory.
 *
 * Order of a trim: the state is durable up to the acknowledged record before the journal below it is removed. Invariant:
 * while the spool is full there is a gap in the journal, from the first content that was not copied until a full scan after
 * there was room again; and so there is for a time in which the journal could not be written. It prevents a full disk from
 * becoming a silent hole in the history. It waits for nothing but the disk: what needs the journal is begun, not awaited.
 */
import type { HybridClock, HybridTime } from '../shared/clock.ts'
import { ERRORS, PacsimileError, reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { Change } from '../shared/record.ts'
import type { Ballast } from './ballast.ts'
import { ClockWatch } from './clock-watch.ts'
import type { Forecast } from './forecast.ts'
import type { Protection } from './protection.ts'
import type { OpenGap } from './rounds.ts'
import type { State } from './state.ts'
import type { Thrift } from './thrift.ts'
import { sleep } from './waiting.ts'

export interface UpkeepParts {
  readonly protection: Protection
  readonly state: State
  readonly clock: HybridClock
  readonly ballast: Ballast
  readonly forecast: Forecast
  readonly thrift: Thrift
  readonly note: (changes: readonly Change[]) => Promise<unknown>
  /** A full scan of every volume is to close this gap. */
  readonly repair: (gap: OpenGap) => void
  /** Every volume is to be scanned, because something may have changed unseen; no version was lost by it. */
  readonly rescan: () => void
  readonly onFailure: (error: unknown) => void
  readonly log: Log
}

const EVERY_MS = 1000
/** The journal is trimmed when this many of its records are acknowledged, or after a while. */
const TRIM_RECORDS = 10_000
const TRIM_MS = 10_000
/** The ballast is looked after this often, and not at the start, when there is enough to do. */
const BALLAST_MS = 10_000
/** How often memory is given back that nobody needs. */
const TIDY_MS = 10_000
const SPOOL_CAUSE = 'the spool had no room: content was not copied'

export class Upkeep {
  readonly #parts: UpkeepParts
  readonly #clockWatch: ClockWatch
  #trimmedMs = performance.now()
  #fullSince: HybridTime | undefined
  #ballastMs = performance.now()
  #tidiedMs = performance.now()

  constructor(parts: UpkeepParts) {
    this.#parts = parts
    this.#clockWatch = new ClockWatch((cause) => this.#leapt(cause))
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#requireState()
      this.#parts.protection.held.spillOld(performance.now())
      this.#clockWatch.look()
      this.#watchRoom()
      this.#repairOutage()
      await this.#measure()
      await this.#trim()
      this.#tidy()
      await sleep(EVERY_MS, signal)
    }
  }

  /**
   * Not every write of it has somebody who ends for it: what a scan leaves does not, and without it no scan comes to its end. While the journal
   * cannot be written either, what it holds is delivered, which may make room.
   */
  #requireState(): void {
    const { protection, state } = this.#parts
    if (state.failure !== undefined && protection.journal.failure === undefined) throw state.failure
  }

  #leapt(cause: string): void {
    this.#parts.log.warn('every volume is scanned, because changes may not have been seen', { cause })
    this.#parts.rescan()
  }

  async #trim(): Promise<void> {
    const { protection, state } = this.#parts
    const { journal, terms, ackedSeq } = protection
    const trimmable = ackedSeq - journal.oldest
    const isDue = trimmable >= TRIM_RECORDS || (trimmable > 0 && performance.now() - this.#trimmedMs > TRIM_MS)
    if (!isDue || terms === undefined || state.applied < ackedSeq) return
    this.#trimmedMs = performance.now()
    await state.sync()
    try {
      await journal.trim(terms.repository)
    } catch (error) {
      // The journal has itself reopened before it is written again; until then it is only longer than it needs to be.
      if (!(error instanceof PacsimileError) || !ERRORS[error.code].retryable) throw error
      this.#parts.log.warn('the journal cannot be trimmed now', { code: error.code, reason: error.message })
    }
  }

  #tidy(): void {
    const { protection, thrift } = this.#parts
    const isIdle = protection.settle.size === 0 && protection.pins.size === 0
    if (!isIdle || performance.now() - this.#tidiedMs < TIDY_MS) return
    this.#tidiedMs = performance.now()
    thrift.tidy()
  }

  #watchRoom(): void {
    const { protection, clock, repair, log } = this.#parts
    const { isFull } = protection.spool
    if (isFull && this.#fullSince === undefined) {
      const since = clock.tick()
      this.#fullSince = since
      log.error('the spool has no room; versions whose file changes before the collector is back will be lost', {
        spoolBytes: protection.spool.bytes,
      })
      // Told at once, because the agent may not live to tell the end of it.
      this.#note(
        [...protection.volumes.keys()].map((volume): Change => ({ kind: 'gap', volume, from: since, until: since, cause: SPOOL_CAUSE })),
      )
      for (const volume of protection.volumes.values()) volume.gaps += 1
    } else if (!isFull && this.#fullSince !== undefined) {
      repair({ from: this.#fullSince, cause: SPOOL_CAUSE })
      this.#fullSince = undefined
      log.info('the spool has room again')
    }
  }

  #note(changes: readonly Change[]): void {
    this.#parts.note(changes).catch(this.#parts.onFailure)
  }

  #repairOutage(): void {
    const outage = this.#parts.protection.journal.takeOutage()
    if (outage !== undefined) this.#parts.repair(outage)
  }

  async #measure(): Promise<void> {
    const { protection, ballast, forecast, log } = this.#parts
    if (!forecast.isDue(performance.now())) return
    try {
      forecast.note(performance.now(), protection.spool.bytes, await protection.spool.room())
      if (performance.now() - this.#ballastMs < BALLAST_MS || protection.journal.failure !== undefined) return
      this.#ballastMs = performance.now()
      await ballast.make()
    } catch (error) {
      log.warn('the room on the disk cannot be measured', { reason: reasonOf(error) })
    }
  }
}
