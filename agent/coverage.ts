/**
 * How long a completely watched volume is proven to be covered: everything that changed until then is journalled.
 *
 * Order: the watcher's proof is taken, then a fence, then all that was told is dealt with, then the span is recorded. So
 * coverage never runs ahead of the journal. Losses of versions that need no scan are recorded as gaps at the same places.
 * Invariant: a covered span ends where a canary went out that came back. It prevents coverage from being claimed for a time
 * in which nobody was watching.
 */
import { type HybridTime, millisecondsOf, startOfMillisecond } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { CANARY_MS } from '../shared/limits.ts'
import type { Change } from '../shared/record.ts'
import type { Recorder } from './recorder.ts'
import type { OpenGap } from './rounds.ts'
import type { State } from './state.ts'
import type { Volume } from './volume.ts'
import { Alarm } from './waiting.ts'
import type { Loss, Watcher } from './watch/watcher.ts'

export interface CoverageParts {
  readonly volume: Volume
  readonly state: State
  readonly recorder: Recorder
  /** Resolves when everything of the volume that waits now has been dealt with. */
  readonly settled: (signal: AbortSignal) => Promise<void>
  /** Has every path looked at again that could not be read. */
  readonly lookAgain: () => void
  /** Whether a scan is still to say how things stand. */
  readonly isOwing: () => boolean
  /** Resolves when a scan that begins after the call has said so. @throws incomplete */
  readonly proveByScan: () => Promise<void>
  readonly now: () => HybridTime
}

interface Proof {
  readonly resolve: () => void
  readonly reject: (error: PacsimileError) => void
}

/** Coverage is recorded this often while nothing changes, and while something does. */
const IDLE_MS = 60_000
const BUSY_MS = 10_000

export class Coverage {
  readonly #parts: CoverageParts
  readonly #alarm = new Alarm()
  readonly #proofs: Proof[] = []
  readonly #losses: OpenGap[] = []
  #recordedMs = Number.NEGATIVE_INFINITY
  #lastMark = 0

  constructor(parts: CoverageParts) {
    this.#parts = parts
  }

  /** Versions may be missing, though no event is: the gap is recorded as soon as what was told is dealt with. */
  owe(loss: OpenGap): void {
    this.#losses.push(loss)
    if (!this.#parts.isOwing()) this.#parts.volume.watcher?.verified(this.#told())
    this.#alarm.ring()
  }

  /** Resolves when everything that changed before this call is journalled, so far as events tell. @throws incomplete */
  prove(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#proofs.push({ resolve, reject })
      this.#alarm.ring()
    })
  }

  /** A scan has shown that the journal says how things are. */
  verify(): void {
    this.#parts.volume.watcher?.verified(this.#told())
  }

  /** The volume is paused: nothing can be proved. */
  refuse(reason: string): void {
    for (const { reject } of this.#proofs.splice(0)) reject(new PacsimileError('incomplete', reason))
  }

  /** Until the signal is given. Of a watcher that proves nothing it has nothing to say. */
  async run(watcher: Watcher, signal: AbortSignal): Promise<void> {
    if (watcher.mode !== 'complete') return
    while (!signal.aborted) {
      await this.#round(watcher, signal)
      if (this.#proofs.length === 0 && this.#losses.length === 0) await this.#alarm.sleep(CANARY_MS, signal)
    }
  }

  async #round(watcher: Watcher, signal: AbortSignal): Promise<void> {
    const { volume, settled, isOwing } = this.#parts
    const proofs = this.#proofs.splice(0)
    // They stay where a restart is told of them until they are recorded.
    const losses = [...this.#losses]
    const { provenMs } = watcher
    try {
      const { isBehind } = await watcher.fence()
      const mark = watcher.mark()
      await settled(signal)
      if (signal.aborted) return
      const isDone = !isBehind || (await this.#catchUp(watcher, signal))
      if (!isDone || signal.aborted) return
      watcher.settled(mark)
      await this.#conclude(provenMs, losses, mark)
      this.#losses.splice(0, losses.length)
      if (isOwing()) {
        // Of something since the question events do not tell.
        for (const { resolve, reject } of proofs.splice(0)) this.#parts.proveByScan().then(resolve, reject)
        return
      }
      watcher.verified(this.#told())
      if (proofs.length > 0 && volume.unreadable.length > 0) {
        // It may be readable now, or gone.
        this.#parts.lookAgain()
        await settled(signal)
      }
      this.#answer(proofs.splice(0))
    } finally {
      this.#proofs.push(...proofs)
      if (signal.aborted) this.refuse(`Volume ${volume.name} is not watched any more: ${volume.reason}`)
    }
  }

  /** Closed versions wait in the kernel: until all of those from before are dealt with. */
  async #catchUp(watcher: Watcher, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      const { isBehind } = await watcher.fence()
      await this.#parts.settled(signal)
      if (!isBehind) return true
    }
    return false
  }

  async #conclude(provenMs: number | undefined, losses: readonly OpenGap[], mark: number): Promise<void> {
    const { volume, state, recorder, isOwing, now } = this.#parts
    const covered = state.facts(volume.name)?.coveredUntil
    const changes: Change[] = []
    if (losses.length > 0) {
      const until = now()
      for (const { from, cause } of losses) changes.push({ kind: 'gap', volume: volume.name, from, until, cause })
      volume.gaps += losses.length
    } else if (provenMs !== undefined && covered !== undefined && !isOwing() && provenMs > millisecondsOf(covered)) {
      volume.coveredMs = provenMs
      const everyMs = mark === this.#lastMark ? IDLE_MS : BUSY_MS
      if (performance.now() - this.#recordedMs < everyMs) return
      changes.push({ kind: 'coverage', volume: volume.name, from: covered, until: startOfMillisecond(provenMs), mode: 'complete' })
      this.#recordedMs = performance.now()
      this.#lastMark = mark
    }
    if (changes.length > 0) await recorder.note(changes)
  }

  /** The losses that are still to be recorded, as a restart is told of them. */
  #told(): Loss[] {
    return this.#losses.map(({ from, cause }) => ({ sinceMs: millisecondsOf(from), cause }))
  }

  #answer(proofs: readonly Proof[]): void {
    const { volume } = this.#parts
    for (const { resolve, reject } of proofs) {
      if (volume.unreadable.length === 0) resolve()
      else reject(new PacsimileError('incomplete', volume.unreadableText))
    }
  }
}
