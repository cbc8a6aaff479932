/**
 * One volume's share of what fanotify tells (fanotify.ts).
 *
 * Invariant: versions that are never asked for are released all the same, and what waits for somebody to follow the events is said to wait.
 * It prevents descriptors of deleted files from staying open after their volume was paused, and a volume that begins from waiting for
 * looks of its last life, which wait for it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { PacsimileError } from '../../shared/errors.ts'
import type { Proof } from './canary.ts'
import type { Fence, Loss, WatchEvent, Watcher } from './watcher.ts'

export interface FanotifyWatcherParts {
  readonly volume: string
  readonly isContinuous: boolean
  readonly proof: () => Proof
  readonly fence: () => Promise<Fence>
  readonly head: () => number
  /** Undefined: nothing is verified. */
  readonly onVerified: (losses: readonly Loss[] | undefined) => void
  readonly onSettled: (mark: number) => void
  readonly onClose: () => void
}

/** Before a fence is refused: whoever asks until it is answered otherwise must not keep this thread from everything else. */
const REFUSAL_MS = 10
export const NOTHING_KNOWN: Fence = { isBehind: true, closedBeforeNs: 0n }

export function refusedFence(fence = NOTHING_KNOWN): Promise<Fence> {
  return sleep(REFUSAL_MS, fence)
}

const UNHEARD: Fence = { ...NOTHING_KNOWN, isUnheard: true }
/** Of what is not settled whenever it is said to be. */
const NO_MARK = -1

export class FanotifyWatcher implements Watcher {
  readonly mode = 'complete'
  readonly reason = ''
  readonly isContinuous: boolean
  readonly #parts: FanotifyWatcherParts
  #queue: WatchEvent[] = []
  #failure: PacsimileError | undefined
  #isClosed = false
  #isFollowed = false
  /** Whoever follows has not come back for more. */
  #isHanding = false
  #wake: (() => void) | undefined

  constructor(parts: FanotifyWatcherParts) {
    this.#parts = parts
    this.isContinuous = parts.isContinuous
  }

  take(events: readonly WatchEvent[]): void {
    if (this.#isClosed) release(events)
    else this.#queue.push(...events)
    this.#wake?.()
  }

  fail(failure: PacsimileError): void {
    this.#failure ??= failure
    this.#wake?.()
  }

  async *events(): AsyncGenerator<readonly WatchEvent[], void> {
    this.#isFollowed = true
    while (!this.#isClosed) {
      const events = this.#queue
      if (events.length > 0) {
        this.#queue = []
        this.#isHanding = true
        try {
          yield events
        } finally {
          this.#isHanding = false
        }
        continue
      }
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  async fence(): Promise<Fence> {
    const fence = await this.#parts.fence()
    if (this.#isUnheard) return refusedFence(UNHEARD)
    while ((this.#queue.length > 0 || this.#isHanding) && !this.#isClosed) await new Promise((resolve) => setImmediate(resolve))
    return fence
  }

  get provenMs(): number | undefined {
    return this.#parts.proof().provenMs
  }

  get silentMs(): number {
    return this.#parts.proof().silentMs
  }

  verified(losses: readonly Loss[]): void {
    if (!this.#isClosed) this.#parts.onVerified(losses)
  }

  doubted(): void {
    this.#parts.onVerified(undefined)
  }

  mark(): number {
    return this.#isUnheard ? NO_MARK : this.#parts.head()
  }

  settled(mark: number): void {
    if (!this.#isClosed && mark !== NO_MARK) this.#parts.onSettled(mark)
  }

  get #isUnheard(): boolean {
    return !this.#isFollowed && this.#queue.length > 0
  }

  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve()
    this.#isClosed = true
    release(this.#queue.splice(0))
    this.#wake?.()
    this.#parts.onClose()
    return Promise.resolve()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function release(events: readonly WatchEvent[]): void {
  for (const event of events) if (event.kind === 'pin') event.release('abandoned')
}
