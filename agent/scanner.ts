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
import { differences } from './scan.ts'
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
}

export class Scanner {
  readonly #parts: { readonly settle: Settle; readonly pursuit: Pursuit; readonly state: State }

  constructor(parts: { settle: Settle; pursuit: Pursuit; state: State }) {
    this.#parts = parts
  }

  /** @throws RootLost, internal */
  async scan(volume: Volume, range: ScanRange, thread: ScanThread, signal: AbortSignal): Promise<Scanned> {
    const { settle, pursuit, state } = this.#parts
    const { root } = volume
    const found = {
      differences: 0,
      closed: new Map<RelativePath, string>(),
      foreign: [] as RelativePath[],
      newDirectories: [] as RelativePath[],
    }
    const tally = new Tally()
    if (root === undefined) return { ...found, unannounced: 0 }
    const { path: top, isShallow, origin } = range
    const walk = thread.walk({ root, path: top, isShallow, ignored: volume.ignored })
    for await (const batch of differences(walk, new StateWalk(state, volume.name, top), top, isShallow)) {
      for (const difference of batch) {
        const place = { volume: volume.name, path: difference.path }
        if (difference.kind === 'closed') found.closed.set(difference.path, difference.reason)
        else if (difference.kind === 'foreign') found.foreign.push(difference.path)
        else {
          found.differences += 1
          if (difference.kind === 'changed' && difference.isNewDirectory && isShallow) found.newDirectories.push(difference.path)
          settle.found(place, origin, tally.expect(settle.isPending(place)), performance.now())
        }
      }
      pursuit.wake()
      while (settle.scannedSize > SCAN_PATHS_MAX && !signal.aborted) await pursuit.progressed(signal)
      if (signal.aborted) break
    }
    await tally.complete(signal)
    return { ...found, unannounced: tally.unannounced }
  }
}

/** Counts the looks that a scan asked for. */
class Tally {
  readonly #complete = new Waiters()
  #outstanding = 0
  unannounced = 0

  /** `isTold`: an event had told of the path already. */
  expect(isTold: boolean): Ticket {
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
