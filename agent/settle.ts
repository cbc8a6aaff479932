/**
 * When to look at what: events in, "this path is due" out. Pure: it knows no clock and no disk; times are passed in.
 *
 * The rules. An event makes its path due at once, because the read lease decides whether it is still being written; only one
 * that says that the file was written and not closed waits for 250 ms of quiet, at most 1 s. A look that found a writer is repeated after 5, 10, 20 … 250 ms; after 250 ms without an event, at the latest 1 s after
 * the first, the file is captured as it is, and one that stays open never more often than every fourth part of the time.
 * A file that is written comes before all that came or was closed: so does one that has waited for 250 ms since it came, and is written still.
 * Directories change with every child, so their own metadata waits for 100 ms of quiet, at most 500 ms. After a capture
 * comes one more look, 150 ms later, where the watcher may drop events that follow each other closely.
 * Invariant: one look per path at a time, and an event during a look leads to another look; a path that there is no room for
 * is left to a scan, whoever brought it. It prevents a change that arrives while its file is being read, or among too many
 * others, from being forgotten.
 */
import { DIRTY_PATHS_MAX, OPEN_FILES_MAX, SCAN_PATHS_MAX } from '../shared/limits.ts'
import { type Label, type RelativePath, rebase } from '../shared/path.ts'
import { Below } from './below.ts'
import { DueQueue } from './due-queue.ts'
import { type Place, placeKey } from './place.ts'
import {
  asIsFromMs,
  DIRECTORY_LAG_MAX_MS,
  DIRECTORY_QUIET_MS,
  type Due,
  expectLook,
  type Hint,
  isHurried,
  isLookExpected,
  LAG_MAX_MS,
  NOT_QUEUED,
  newEntry,
  noteDuringLook,
  type Origin,
  PACE,
  QUIET_MS,
  REOPEN_FIRST_MS,
  REOPEN_MAX_MS,
  RETRY_FIRST_MS,
  RETRY_MAX_MS,
  SECOND_LOOK_MS,
  type Settled,
  type SettleEntry,
  type Ticket,
} from './settle-entry.ts'

/** How a look is to be done. */
export interface Wish {
  /** Others wait for it before they can be recorded. */
  readonly isUrgent?: boolean
  /** Read its content even if nothing says that it changed. */
  readonly isDeep?: boolean
}

export class Settle {
  readonly #entries = new Map<string, SettleEntry>()
  readonly #events = new DueQueue<SettleEntry>()
  /** Files that are being written: their time is now, whatever else waits. */
  readonly #written = new DueQueue<SettleEntry>()
  readonly #scanned: SettleEntry[] = []
  /** What others wait for before they can be recorded. */
  readonly #urgent = new DueQueue<SettleEntry>()
  readonly #perVolume = new Map<Label, number>()
  readonly #held = new Set<SettleEntry>()
  readonly #below = new Below<SettleEntry>()
  readonly #onCollapsed: (volume: Label) => void
  readonly #pathsMax: number
  /** Of volumes that were collapsed while more had to stay than usually may wait. */
  readonly #bounds = new Map<Label, number>()
  #moves = 0
  #scannedNext = 0
  #openFiles = 0

  /** `onCollapsed` is told where more than `pathsMax` waited of a volume: they are forgotten, and a scan of the volume is to find them. */
  constructor(onCollapsed: (volume: Label) => void, pathsMax = DIRTY_PATHS_MAX) {
    this.#onCollapsed = onCollapsed
    this.#pathsMax = pathsMax
  }

  /** Paths that wait or are being looked at. */
  get size(): number {
    return this.#entries.size
  }

  /** Paths found by scans that wait. */
  get scannedSize(): number {
    return this.#scanned.length - this.#scannedNext
  }

  /** Whether the path waits or is being looked at because something happened to it. */
  isPending(place: Place): boolean {
    const entry = this.#entries.get(placeKey(place))
    return entry !== undefined && entry.reason !== 'certainty'
  }

  /** Something may have happened to the path. */
  changed(place: Place, nowMs: number, { isOpen = false, isSure = false, writer }: Hint = {}): void {
    const entry = this.#entries.get(placeKey(place)) ?? this.#begin(place, 'event', nowMs)
    if (entry === undefined) return
    entry.writer = writer ?? entry.writer
    entry.isSure = isSure
    if (entry.isLooking) {
      noteDuringLook(entry, nowMs)
      return
    }
    if (entry.reason !== 'change') {
      entry.firstMs = nowMs
      entry.isClosed = false
    }
    entry.reason = 'change'
    entry.origin = 'event'
    entry.lastMs = nowMs
    if (isOpen && entry.isClosed && nowMs - entry.firstMs >= QUIET_MS) {
      entry.isClosed = false
      // The queue where it is passes it over then.
      entry.queuedMs = NOT_QUEUED
    } else entry.isClosed ||= !isOpen
    if (!entry.isClosed) {
      this.#schedule(entry, Math.min(nowMs + QUIET_MS, entry.firstMs + LAG_MAX_MS))
      return
    }
    // Between two looks at a busy file there are at least the few milliseconds of a retry.
    const dueMs = entry.retries > 0 ? nowMs + RETRY_FIRST_MS : nowMs
    entry.retries = Math.min(entry.retries, 1)
    this.#schedule(entry, Math.min(dueMs, Math.max(entry.dueMs, nowMs)))
  }

  /** A directory has another name: what waits below the old one is looked at below the new one as well. */
  renamed(volume: Label, from: RelativePath, to: RelativePath, nowMs: number): void {
    const moved = this.#entries.get(placeKey({ volume, path: from }))
    if (moved?.isLooking === true) noteDuringLook(moved, nowMs)
    // Taken together before the first is told: each adds an entry.
    for (const entry of this.#below.of({ volume, path: from }).toArray()) {
      const { place, isSure, writer } = entry
      // What a look under way has seen there may be recorded where another directory has taken the name.
      if (entry.isLooking) noteDuringLook(entry, nowMs)
      this.#moves += 1
      this.changed({ volume, path: rebase(place.path, from, to) }, nowMs, { isSure, writer })
    }
  }

  /** Grows when what waits is to be looked at elsewhere, of which no ticket tells. */
  get moves(): number {
    return this.#moves
  }

  /** Whether a look at the path is to come, or under way; `hurried`: others wait for one after that which is under way. */
  isExpected(place: Place, which: 'any' | 'hurried' = 'any'): boolean {
    const entry = this.#entries.get(placeKey(place))
    return entry !== undefined && (which === 'any' ? isLookExpected(entry) : isHurried(entry))
  }

  /** The ticket is given back when the path has been looked at after all that was told of it by now. @returns false where it does not wait */
  expect(place: Place, ticket: Ticket): boolean {
    const entry = this.#entries.get(placeKey(place))
    return entry !== undefined && expectLook(entry, ticket)
  }

  /** The ticket is given back once for each path of the volume that waits now, when it has been looked at. @returns how many there are */
  expectAll(volume: Label, ticket: Ticket): number {
    let count = 0
    for (const entry of this.#entries.values()) if (entry.place.volume === volume && expectLook(entry, ticket)) count += 1
    return count
  }

  /** Something happened in the directory: its own metadata changed. */
  childrenChanged(directory: Place, nowMs: number): void {
    const known = this.#entries.get(placeKey(directory))
    const entry = known ?? this.#begin(directory, 'event', nowMs)
    if (entry === undefined) return
    if (entry.isLooking) {
      entry.again ??= 'children'
      return
    }
    if (entry.reason === 'change' && known !== undefined) return
    if (entry.reason !== 'children') entry.firstMs = nowMs
    entry.reason = 'children'
    this.#schedule(entry, Math.min(nowMs + DIRECTORY_QUIET_MS, entry.firstMs + DIRECTORY_LAG_MAX_MS))
  }

  /** A scan found a difference. The ticket is given back when a look that began after this has ended; a deep one reads. */
  found(place: Place, origin: Origin, ticket: Ticket, nowMs: number, { isUrgent = false, isDeep = false }: Wish = {}): void {
    const known = this.#entries.get(placeKey(place))
    const entry = known ?? this.#add(place, origin, nowMs)
    if (isDeep) entry.isDeep = true
    entry.tickets.push(ticket)
    if (isUrgent) this.#hurry(entry, this.#held.delete(entry) ? nowMs : entry.dueMs)
    if (entry.isLooking) {
      noteDuringLook(entry, nowMs)
      return
    }
    if (known !== undefined && known.reason === 'change') return
    entry.reason = 'change'
    entry.firstMs = nowMs
    entry.lastMs = nowMs
    if (known === undefined && origin === 'scan') this.#scanned.push(entry)
    else this.#schedule(entry, nowMs)
  }

  /** From the queue where it is, which passes it over then, to that of those for which others wait. */
  #hurry(entry: SettleEntry, dueMs: number): void {
    if (!entry.isUrgent) entry.queuedMs = NOT_QUEUED
    entry.isUrgent = true
    if (!entry.isLooking) this.#schedule(entry, dueMs)
  }

  /** Forgets what waits of a volume because of events. What somebody holds a ticket for stays, and as many may come again. */
  #collapse(volume: Label): void {
    for (const entry of this.#entries.values()) {
      if (entry.place.volume === volume && !entry.isLooking && entry.tickets.length === 0) this.#remove(entry)
    }
    this.#bounds.set(volume, (this.#perVolume.get(volume) ?? 0) + this.#pathsMax)
    this.#onCollapsed(volume)
  }

  /** When `take` will next have something that waits for a time: pressing is what others wait for, and what is being written. */
  nextMs(from: 'all' | 'pressing' = 'all'): number | undefined {
    const queues = [this.#urgent, this.#written, ...(from === 'all' ? [this.#events] : [])]
    const times = queues.map(({ nextMs }) => nextMs).filter((timeMs) => timeMs !== undefined)
    return times.length === 0 ? undefined : Math.min(...times)
  }

  /** How many paths wait for older versions to be recorded, whatever time it is. */
  get heldSize(): number {
    return this.#held.size
  }

  /** Those that were held are due again. */
  release(nowMs: number): void {
    for (const entry of this.#held) if (this.#isWaiting(entry)) this.#retry(entry, nowMs)
    this.#held.clear()
  }

  /** At most `max` paths that are due, those first for which others wait; they are being looked at until `finished` is told. */
  take(nowMs: number, max: number, from: 'all' | 'events' | 'urgent' | 'written'): Due[] {
    const queues = { urgent: [this.#urgent], written: [this.#written], events: [this.#urgent, this.#written, this.#events] }
    const due: Due[] = []
    while (due.length < max) {
      const entry = this.#nextOf(queues[from === 'all' ? 'events' : from], nowMs) ?? (from === 'all' ? this.#nextScanned() : undefined)
      if (entry === undefined) break
      entry.isLooking = true
      entry.looking = entry.tickets
      entry.tickets = []
      entry.isDeepLook = entry.isDeep
      entry.isDeep = false
      const { place, origin, isUrgent, isDeepLook, retries, waitedFor, writer } = entry
      due.push({ ...place, origin, isUrgent, asIs: this.#mayBeAsIs(entry, nowMs), isDeep: isDeepLook, retries, waitedFor, writer })
    }
    return due
  }

  /** Of the first of the queues that has any. */
  #nextOf(queues: readonly DueQueue<SettleEntry>[], nowMs: number): SettleEntry | undefined {
    for (const queue of queues) {
      for (let nextMs = queue.nextMs; nextMs !== undefined && nextMs <= nowMs; nextMs = queue.nextMs) {
        const popped = queue.pop()
        if (popped === undefined) break
        const { item: entry, dueMs } = popped
        if (dueMs !== entry.queuedMs) continue
        entry.queuedMs = NOT_QUEUED
        if (!this.#isWaiting(entry)) continue
        if (entry.dueMs <= nowMs) return entry
        this.#schedule(entry, entry.dueMs)
      }
    }
    return undefined
  }

  #nextScanned(): SettleEntry | undefined {
    while (this.#scannedNext < this.#scanned.length) {
      const entry = this.#scanned[this.#scannedNext++]
      if (this.#scannedNext === this.#scanned.length || this.#scannedNext > SCAN_PATHS_MAX) {
        this.#scanned.splice(0, this.#scannedNext)
        this.#scannedNext = 0
      }
      // An event may have made it due on its own account meanwhile.
      if (entry !== undefined && this.#isWaiting(entry) && entry.origin === 'scan' && entry.queuedMs === NOT_QUEUED) return entry
    }
    return undefined
  }

  #isWaiting(entry: SettleEntry): boolean {
    return !entry.isLooking && this.#entries.get(placeKey(entry.place)) === entry
  }

  #mayBeAsIs(entry: SettleEntry, nowMs: number): boolean {
    return entry.retries > 0 && entry.reason === 'change' && nowMs >= asIsFromMs(entry)
  }

  /** The look that `take` began has ended. @returns the tickets that it answers */
  finished(place: Place, settled: Settled, nowMs: number): readonly Ticket[] {
    const entry = this.#entries.get(placeKey(place))
    if (entry === undefined) return []
    entry.isLooking = false
    const { again } = entry
    entry.again = undefined
    entry.waitedFor = settled.kind === 'busy' ? settled.waitedFor : undefined
    if (again === undefined && settled.kind !== 'busy' && settled.kind !== 'held') entry.writer = undefined
    if (settled.kind === 'busy' || settled.kind === 'held') {
      entry.tickets = [...entry.looking, ...entry.tickets]
      entry.looking = []
      if (entry.isDeepLook) entry.isDeep = true
      // What others wait for cannot rest: they may be the very versions that it would wait for.
      if (settled.kind === 'busy' && settled.isWritten === true) entry.isClosed = false
      if (settled.kind === 'busy' || entry.isUrgent) this.#retry(entry, nowMs)
      else this.#held.add(entry)
      return []
    }
    const tickets = entry.looking
    entry.looking = []
    entry.retries = 0
    // Others wait for the look that comes next, if one does.
    if (again !== 'change') entry.isUrgent = false
    if (settled.kind === 'captured-open') entry.paceMs = nowMs + PACE * settled.durationMs
    this.#countOpen(entry, settled)
    if (again === 'change') {
      entry.reason = 'change'
      entry.firstMs = entry.againMs
      this.#schedule(entry, nowMs)
    } else if (again === 'children') {
      entry.reason = 'children'
      entry.firstMs = nowMs
      this.#schedule(entry, nowMs + DIRECTORY_QUIET_MS)
    } else {
      this.#rest(entry, settled, nowMs)
    }
    return tickets
  }

  #retry(entry: SettleEntry, nowMs: number): void {
    if (entry.reason !== 'change') {
      entry.reason = 'change'
      entry.firstMs = nowMs
      entry.lastMs = nowMs
    }
    const waitMs = Math.min(RETRY_FIRST_MS * 2 ** entry.retries, RETRY_MAX_MS)
    entry.retries += 1
    const fromMs = asIsFromMs(entry)
    this.#schedule(entry, fromMs > nowMs ? Math.min(nowMs + waitMs, fromMs) : nowMs + RETRY_FIRST_MS)
  }

  #rest(entry: SettleEntry, settled: Settled, nowMs: number): void {
    if (entry.reopenMs > 0) {
      entry.reason = 'certainty'
      this.#schedule(entry, nowMs + entry.reopenMs)
    } else if (settled.kind === 'captured' && entry.origin === 'event' && entry.reason === 'change' && !entry.isSure) {
      entry.reason = 'certainty'
      this.#schedule(entry, nowMs + SECOND_LOOK_MS)
    } else {
      this.#remove(entry)
    }
  }

  /** A file that stays open is looked at now and then, in the hope of a stable read. */
  #countOpen(entry: SettleEntry, settled: Settled): void {
    const wasOpen = entry.reopenMs > 0
    if (settled.kind === 'captured-open') {
      entry.reopenMs = wasOpen || this.#openFiles < OPEN_FILES_MAX ? REOPEN_FIRST_MS : 0
    } else if (settled.kind === 'still-open') {
      entry.reopenMs = wasOpen ? Math.min(entry.reopenMs * 2, REOPEN_MAX_MS) : 0
    } else {
      entry.reopenMs = 0
    }
    this.#openFiles += Number(entry.reopenMs > 0) - Number(wasOpen)
  }

  /** Undefined where it is left, with all that waited, to a scan of the volume. */
  #begin(place: Place, origin: Origin, nowMs: number): SettleEntry | undefined {
    const { volume } = place
    const count = this.#perVolume.get(volume) ?? 0
    if (count < this.#pathsMax) this.#bounds.delete(volume)
    if (count < (this.#bounds.get(volume) ?? this.#pathsMax)) return this.#add(place, origin, nowMs)
    this.#collapse(volume)
    return undefined
  }

  #add(place: Place, origin: Origin, nowMs: number): SettleEntry {
    const entry = newEntry(place, origin, nowMs)
    this.#entries.set(placeKey(place), entry)
    this.#below.add(place, entry)
    this.#perVolume.set(place.volume, (this.#perVolume.get(place.volume) ?? 0) + 1)
    return entry
  }

  #remove(entry: SettleEntry): void {
    this.#entries.delete(placeKey(entry.place))
    this.#below.delete(entry.place, entry)
    if (entry.reopenMs > 0) this.#openFiles -= 1
    this.#perVolume.set(entry.place.volume, (this.#perVolume.get(entry.place.volume) ?? 1) - 1)
  }

  /** The queue keeps one valid slot for each entry: a later time is found out when the earlier one is popped. */
  #schedule(entry: SettleEntry, dueMs: number): void {
    entry.dueMs = dueMs
    if (dueMs >= entry.queuedMs) return
    entry.queuedMs = dueMs
    const ordinary = entry.reason === 'change' && !entry.isClosed ? this.#written : this.#events
    const queue = entry.isUrgent ? this.#urgent : ordinary
    queue.push(entry, dueMs)
  }
}
