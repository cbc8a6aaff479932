/**
 * Scans of the disk, followed through to the last record: a scan has ended when every difference that it found has been
 * looked at and recorded.
 *
 * Invariant: what a scan reports as done was journalled. It prevents coverage, or the answer to a barrier, from being
 * claimed for changes that were only noticed.
 */
import { SCAN_PATHS_MAX } from '../shared/limits.ts'
import type { RelativePath } from '../shared/path.ts'
import type { Pursuit } from './pursuit.ts'
import { type Difference, differences } from './scan.ts'
import type { ScanThread } from './scan-threads.ts'
import type { Settle } from './settle.ts'
import type { Origin, Ticket } from './settle-entry.ts'
import type { State } from './state.ts'
import { StateWalk } from './state-walk.ts'
import type { Volume } from './volume.ts'
import { Waiters } from './waiting.ts'

export interface ScanRange {
  readonly path: RelativePath
  /** Only the path and its direct children. */
  readonly isShallow: boolean
  readonly origin: Origin
}

export interface Scanned {
  readonly differences: number
  /** Differences that were changes nobody had told of. */
  readonly unannounced: number
  readonly closed: ReadonlyMap<RelativePath, string>
  readonly foreign: readonly RelativePath[]
  /** Directories that a shallow scan found and did not enter. */
  readonly newDirectories: readonly RelativePath[]
  /** What the walk itself took, without waiting for captures. */
  readonly walkMs: number
}

export class Scanner {
  readonly #parts: { readonly settle: Settle; readonly pursuit: Pursuit; readonly state: State }

  constructor(parts: { settle: Settle; pursuit: Pursuit; state: State }) {
    this.#parts = parts
  }

  /** @throws RootLost, internal, the signal's reason */
  async scan(volume: Volume, range: ScanRange, thread: ScanThread, signal: AbortSignal): Promise<Scanned> {
    const { settle, pursuit, state } = this.#parts
    const { path: top, isShallow } = range
    const tally = new Tally()
    if (volume.root === undefined) return tally
    // From its first news on: before, its thread may only have been starting.
    let resumedMs: number | undefined
    const { paths: ignored, patterns: ignorePatterns } = volume.ignore
    const walk = thread.walk({ root: volume.root, path: top, isShallow, ignored, ignorePatterns }, signal)
    const known = new StateWalk(state, volume.name, top, volume.ignore)
    for await (const batch of differences(walk, known, top, isShallow)) {
      resumedMs ??= performance.now()
      for (const difference of batch) this.#take(difference, volume, range, tally)
      pursuit.wake()
      tally.walkMs += performance.now() - resumedMs
      while (settle.scannedSize > SCAN_PATHS_MAX && !signal.aborted) await pursuit.progressed(signal)
      resumedMs = performance.now()
      if (signal.aborted) break
    }
    tally.walkMs += performance.now() - (resumedMs ?? performance.now())
    await tally.complete(signal)
    return tally
  }

  #take(difference: Difference, volume: Volume, { isShallow, origin }: ScanRange, tally: Tally): void {
    const { settle } = this.#parts
    switch (difference.kind) {
      case 'closed':
        tally.closed.set(difference.path, difference.reason)
        return
      case 'foreign':
        tally.foreign.push(difference.path)
        return
      case 'changed':
      case 'missing': {
        const place = { volume: volume.name, path: difference.path }
        if (difference.kind === 'changed' && difference.isNewDirectory && isShallow) tally.newDirectories.push(difference.path)
        settle.found(place, origin, tally.expect(settle.isPending(place)), performance.now())
      }
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
  readonly #complete = new Waiters()
  #outstanding = 0

  /** `isTold`: an event had told of the path already. */
  expect(isTold: boolean): Ticket {
    this.differences += 1
    this.#outstanding += 1
    return {
      answered: (hasChanged) => {
        this.#outstanding -= 1
        if (hasChanged && !isTold) this.unannounced += 1
        if (this.#outstanding === 0) this.#complete.wake()
      },
    }
  }

  async complete(signal: AbortSignal): Promise<void> {
    while (this.#outstanding > 0 && !signal.aborted) await this.#complete.wait(signal)
  }
}
