/**
 * SQLite databases in WAL mode that somebody keeps open, and the order between them and the files beside them.
 *
 * A PACS writes a file and then commits its row; it commits a removal and then deletes the file. The file is captured when it is
 * closed and its removal when it is seen, but an open database up to a second later. So a pair is recorded after every version that
 * was closed before it was read, and a removal after the next pair, if the log was written before. Neither waits for the other twice over:
 * of a file that is gone there is no version to come, and what others need to be looked at is looked at again meanwhile. Invariant: at every moment of the history each
 * file that a database had committed by its version there is there too, unless that waits longer than `ORDER_MS_MAX`, or the
 * volume is not watched completely. It prevents a PACS that is started on a restored moment from naming images that it has not.
 */
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { walOf } from './looks.ts'
import type { Pins } from './pins.ts'
import { type Place, placeKey } from './place.ts'
import type { Settle } from './settle.ts'
import type { Volume } from './volume.ts'
import { ended, Waiters } from './waiting.ts'

/** A database is as late as the files beside it at most by this much, and a removal as late as the database. */
const ORDER_MS_MAX = 30_000
/** Between two warnings. */
const WARN_MS = 60_000
/** Databases whose removals are kept in order; what is removed beside more than these is recorded when it is seen. */
const DATABASES_MAX = 64
/** Files that were closed, and are looked at by their path; more than these are not waited for. */
const CLOSED_MAX = 1000
/** Removals that wait for a database; more than these are recorded when they are seen. */
const REMOVALS_MAX = 10_000
/** How late it may be noticed that a wait is needless. */
const RECONSIDER_MS = 20

const NS_PER_MS = 1_000_000n

export class OpenDatabases {
  readonly #settle: Settle
  readonly #pins: Pins
  readonly #volumes: ReadonlyMap<Label, Volume>
  /** Both files of these are being looked at. */
  readonly #underWay = new Set<string>()
  /** Write-ahead logs that were captured with their database, by the database. */
  readonly #logs = new Map<string, { readonly base: Place; readonly log: Place }>()
  /** Files that were closed and could not be captured as what was held open: a look at the path is to come. */
  readonly #closed = new Map<string, Place>()
  /** Removals that wait, by their path: of each there is one look at a time. */
  readonly #removing = new Set<string>()
  readonly #progressed = new Waiters()
  #isReconsidering = false

  readonly #log: Log
  #warnedMs = Number.NEGATIVE_INFINITY

  constructor(parts: { settle: Settle; pins: Pins; volumes: ReadonlyMap<Label, Volume>; log: Log }) {
    this.#log = parts.log
    this.#settle = parts.settle
    this.#pins = parts.pins
    this.#volumes = parts.volumes
  }

  /** One pair at a time: a later one must not be recorded before an earlier one. @returns false while one is under way */
  begin(base: Place): boolean {
    const key = placeKey(base)
    if (this.#underWay.has(key)) return false
    this.#underWay.add(key)
    return true
  }

  /** The look at both files has ended. */
  end({ volume, path }: Place, isCaptured: boolean): void {
    const key = placeKey({ volume, path })
    this.#underWay.delete(key)
    if (!isCaptured) this.#logs.delete(key)
    else if (this.#logs.size < DATABASES_MAX) this.#logs.set(key, { base: { volume, path }, log: { volume, path: walOf(path) } })
  }

  /** A version of the path is not captured as what was held open: a look at the path is to come. */
  noteClosed({ volume, path }: Place): void {
    if (this.#logs.size > 0 && this.#closed.size < CLOSED_MAX) this.#closed.set(placeKey({ volume, path }), { volume, path })
  }

  /** Resolves when every version that was closed before the call is recorded or given up, or that takes too long. */
  async filesRecorded(): Promise<void> {
    const signal = AbortSignal.timeout(ORDER_MS_MAX)
    const nowNs = BigInt(Date.now()) * NS_PER_MS
    const pinned = [...this.#volumes.values()].map(async ({ name, watcher }) => {
      for (let isBehind = watcher !== undefined; isBehind && !signal.aborted; ) {
        const fence = await watcher?.fence()
        await this.#pins.settled(name, signal)
        // What the kernel still holds was closed after what it gave last; a watcher that has ended knows of nothing.
        const isKnown = fence !== undefined && fence.closedBeforeNs > 0n && fence.closedBeforeNs < nowNs
        isBehind = fence?.isUnheard === true || (fence?.isBehind === true && isKnown)
      }
    })
    await ended(pinned, signal)
    // What was removed since waits for this very database.
    await this.#looked([...this.#closed.values()], signal, (place) => this.#removing.has(placeKey(place)))
    this.#giveUp(signal, 'a database is recorded before files that were closed before it')
    for (const [key, place] of this.#closed) if (!this.#settle.isExpected(place)) this.#closed.delete(key)
  }

  /** Whether what was committed before the removal of the path may not be recorded yet. */
  isAhead(removed: Place): boolean {
    return this.#removing.size < REMOVALS_MAX && this.#logsBeside(removed).some((log) => this.#settle.isExpected(log))
  }

  /**
   * Resolves when the databases that were written before the removal of the path are recorded, or that takes too long.
   * @returns false where others need the path to be looked at again before
   */
  async captured(removed: Place): Promise<boolean> {
    const key = placeKey(removed)
    this.#removing.add(key)
    this.reconsider()
    const signal = AbortSignal.timeout(ORDER_MS_MAX)
    const isRecorded = await this.#looked(this.#logsBeside(removed), signal, () => this.#settle.isExpected(removed, 'hurried'))
    this.#giveUp(signal, 'a removal is recorded before the database that was written before it')
    this.#removing.delete(key)
    return isRecorded || signal.aborted
  }

  /** Something that waits may have to be looked at again. Told after every look: thousands of removals may wait, and are not asked each time. */
  reconsider(): void {
    if (this.#removing.size === 0 || this.#isReconsidering) return
    this.#isReconsidering = true
    setTimeout(() => {
      this.#isReconsidering = false
      this.#progressed.wake()
    }, RECONSIDER_MS)
  }

  #giveUp({ aborted }: AbortSignal, what: string): void {
    if (!aborted || performance.now() - this.#warnedMs < WARN_MS) return
    this.#warnedMs = performance.now()
    this.#log.warn(`${what}: at some moments it may name files that are not there`, { waitedMs: ORDER_MS_MAX })
  }

  /** Resolves when each of the places has been looked at after all that was told of it by now, or need not be. @returns whether all were */
  async #looked(places: readonly Place[], signal: AbortSignal, isMoot: (place: Place) => boolean): Promise<boolean> {
    const left = new Set<Place>()
    for (const place of places) {
      const answered = (): void => {
        left.delete(place)
        this.#progressed.wake()
      }
      if (this.#settle.expect(place, { answered })) left.add(place)
    }
    while (![...left].every(isMoot) && !signal.aborted) await this.#progressed.wait(signal)
    return left.size === 0
  }

  /** A database that is removed itself does not wait for its own capture. */
  #logsBeside(removed: Place): Place[] {
    if (this.#logs.size === 0) return []
    const key = placeKey(removed)
    return [...this.#logs.values()].filter(({ base, log }) => placeKey(base) !== key && placeKey(log) !== key).map(({ log }) => log)
  }
}
