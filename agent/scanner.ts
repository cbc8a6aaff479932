/**
 * Scans of the disk, followed through to the last record: a scan has ended when every difference that it found has been
 * looked at and recorded.
 *
 * Invariant: what a scan reports as done was journalled. It prevents coverage, or the answer to a barrier, from being
 * claimed for changes that were only noticed.
 */
import { SCAN_PATHS_MAX } from '../shared/limits.ts'
import { type RelativePath, ROOT } from '../shared/path.ts'
import type { Place } from './place.ts'
import type { Pursuit } from './pursuit.ts'
import type { Renames } from './renames.ts'
import type { Rescans } from './rescans.ts'
import type { Difference } from './scan.ts'
import type { ScanMethod } from './scan-task.ts'
import type { ScanThread } from './scan-threads.ts'
import type { Settle } from './settle.ts'
import type { Origin, Ticket } from './settle-entry.ts'
import type { State } from './state.ts'
import type { Suspect, Suspects } from './suspects.ts'
import type { Volume } from './volume.ts'
import { Waiters } from './waiting.ts'

export interface ScanRange {
  readonly path: RelativePath
  /** Only the path and its direct children. */
  readonly isShallow: boolean
  readonly origin: Origin
  /** The content of every file is read, also where nothing says that it changed. */
  readonly isDeep?: boolean
}

export interface Scanned {
  readonly differences: number
  /** Differences that were changes nobody had told of. */
  readonly unannounced: number
  readonly closed: ReadonlyMap<RelativePath, string>
  readonly foreign: readonly RelativePath[]
  /** Directories that a shallow scan found and did not enter. */
  readonly newDirectories: readonly RelativePath[]
  /** What the scan itself took, without waiting for captures. */
  readonly walkMs: number
  readonly method: ScanMethod
  /** Why it was a walk; '' where it was not. */
  readonly methodReason: string
  /** Paths that were compared. */
  readonly entries: number
}

export interface ScannerParts {
  readonly settle: Settle
  readonly suspects: Suspects
  readonly rescans: Rescans
  readonly renames: Renames
  readonly pursuit: Pursuit
  readonly state: State
}

/** Scans rely on what earlier ones have seen of directories; this often, one does not. */
const WALK_EVERY_MS = 24 * 3_600_000
/** Inodes are listed only where the filesystem holds no more of them than this many times those of the volume. */
const BULK_INODES_FACTOR = 8
const BULK_INODES_MIN = 1_000_000

export class Scanner {
  readonly #parts: ScannerParts
  /** When the last scan that relied on nothing ended, or this agent began. */
  #walkedMs = performance.now()
  /** What the last walk saw. */
  #entries = 0

  constructor(parts: ScannerParts) {
    this.#parts = parts
  }

  /** @throws RootLost, internal, the signal's reason */
  async scan(volume: Volume, range: ScanRange, thread: ScanThread, signal: AbortSignal): Promise<Scanned> {
    const { settle, suspects, renames, pursuit, state } = this.#parts
    const { path, isShallow, isDeep = false } = range
    const tally = new Tally(suspects, async () => void (await volume.watcher?.fence()))
    const { root } = volume
    if (root === undefined) return tally
    const { name } = volume
    const { paths: ignored, patterns: ignorePatterns } = volume.ignore
    const bulkInodesMax = this.#bulkInodesMax()
    using listing = path === ROOT && !isShallow && !isDeep ? state.beginListing(name) : undefined
    const news = thread.run(
      { stateDirectory: state.directory, volume: name, root, path, isShallow, isDeep, ignored, ignorePatterns, bulkInodesMax },
      signal,
    )
    // From its first news on: before, its thread may only have been starting.
    let resumedMs: number | undefined
    for await (const message of news) {
      resumedMs ??= performance.now()
      switch (message.kind) {
        case 'method':
          tally.method = message.method
          tally.methodReason = message.reason
          break
        case 'entries':
          tally.entries += message.entries
          break
        case 'found':
          // Of what changed before the scan saw it, the watcher may be about to tell.
          await volume.watcher?.fence()
          for (const difference of message.differences) this.#take(difference, volume, range, tally)
          pursuit.wake()
          if (listing !== undefined) await state.noteSeen(listing, message)
      }
      tally.walkMs += performance.now() - resumedMs
      while (settle.scannedSize > SCAN_PATHS_MAX && !signal.aborted) await pursuit.progressed(signal)
      resumedMs = performance.now()
      if (signal.aborted) break
    }
    tally.walkMs += performance.now() - (resumedMs ?? performance.now())
    // What was moved before the scan came to it has been told by then.
    await volume.watcher?.fence()
    renames.scanned({ volume: name, path })
    await tally.complete(signal)
    if (path === ROOT && !isShallow) this.#noteWhole(tally, isDeep || bulkInodesMax === 0)
    return tally
  }

  #bulkInodesMax(): number {
    if (performance.now() - this.#walkedMs > WALK_EVERY_MS) return 0
    return Math.max(this.#entries * BULK_INODES_FACTOR, BULK_INODES_MIN)
  }

  #noteWhole({ method, entries }: Scanned, isThorough: boolean): void {
    if (method === 'walk') this.#entries = entries
    if (isThorough) this.#walkedMs = performance.now()
  }

  #take(difference: Difference, volume: Volume, { isShallow, origin }: ScanRange, tally: Tally): void {
    const { settle, rescans } = this.#parts
    const place = { volume: volume.name, path: difference.path }
    const nowMs = performance.now()
    if (volume.isIgnored(difference.path)) return
    switch (difference.kind) {
      case 'closed':
        tally.closed.set(difference.path, difference.reason)
        return
      case 'foreign':
        tally.foreign.push(difference.path)
        return
      case 'unread':
        settle.found(place, origin, tally.expectRead(), nowMs, { isDeep: true })
        return
      case 'changed':
      case 'missing':
        if (difference.kind === 'changed' && difference.isNewDirectory && isShallow) tally.newDirectories.push(difference.path)
        const isAnnounced = origin === 'event' || settle.isPending(place) || rescans.isAnnounced(difference.path)
        settle.found(place, origin, isAnnounced ? tally.expectTold() : tally.expectUntold(place), nowMs)
    }
  }
}

/** What a scan found, and the looks that it asked for. */
class Tally implements Scanned {
  readonly closed = new Map<RelativePath, string>()
  readonly foreign: RelativePath[] = []
  readonly newDirectories: RelativePath[] = []
  differences = 0
  unannounced = 0
  walkMs = 0
  method: ScanMethod = 'walk'
  methodReason = ''
  entries = 0
  readonly #complete = new Waiters()
  readonly #suspects: Suspects
  readonly #fence: () => Promise<void>
  /** Changed, and nothing had told of them when their looks ended. */
  #unsettled: Suspect[] = []
  #isAsking = false
  #outstanding = 0

  /** `fence` resolves when everything that happened before the call has been told. */
  constructor(suspects: Suspects, fence: () => Promise<void>) {
    this.#suspects = suspects
    this.#fence = fence
  }

  /** An event had told of the path already. */
  expectTold(): Ticket {
    this.differences += 1
    return this.#ticket(() => true)
  }

  /** Nothing had told of the path, or not yet. */
  expectUntold(place: Place): Ticket {
    this.differences += 1
    const suspect = this.#suspects.add(place)
    return this.#ticket((hasChanged) => {
      if (!hasChanged || suspect.isTold) {
        this.#suspects.release(suspect)
        return true
      }
      this.#unsettled.push(suspect)
      if (!this.#isAsking) void this.#ask()
      return false
    })
  }

  /** One question for all whose looks ended before it. */
  async #ask(): Promise<void> {
    this.#isAsking = true
    while (this.#unsettled.length > 0) {
      const suspects = this.#unsettled
      this.#unsettled = []
      await this.#fence()
      for (const suspect of suspects) {
        this.#suspects.release(suspect)
        if (!suspect.isTold) this.unannounced += 1
        this.#end()
      }
    }
    this.#isAsking = false
  }

  /** A file whose content is read although nothing says that it changed. */
  expectRead(): Ticket {
    return this.#ticket((hasChanged) => {
      if (hasChanged) {
        this.differences += 1
        this.unannounced += 1
      }
      return true
    })
  }

  /** `answered` says whether nothing is left to be found out. */
  #ticket(answered: (hasChanged: boolean) => boolean): Ticket {
    this.#outstanding += 1
    return {
      answered: (hasChanged) => {
        if (answered(hasChanged)) this.#end()
      },
    }
  }

  #end(): void {
    this.#outstanding -= 1
    if (this.#outstanding === 0) this.#complete.wake()
  }

  async complete(signal: AbortSignal): Promise<void> {
    while (this.#outstanding > 0 && !signal.aborted) await this.#complete.wait(signal)
  }
}
