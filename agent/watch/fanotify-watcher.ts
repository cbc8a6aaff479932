/**
 * One volume's share of what fanotify tells (fanotify.ts).
 *
 * Invariant: versions that are never asked for are released all the same. It prevents descriptors of deleted files from
 * staying open after their volume was paused.
 */
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

export class FanotifyWatcher implements Watcher {
  readonly mode = 'complete'
  readonly reason = ''
  readonly isContinuous: boolean
  readonly #parts: FanotifyWatcherParts
  #queue: WatchEvent[] = []
  #failure: PacsimileError | undefined
  #isClosed = false
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
    while (!this.#isClosed) {
      const events = this.#queue
      if (events.length > 0) {
        this.#queue = []
        yield events
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
    // What was told before it is with whoever follows the events when the queue is empty: its loop runs before this goes on.
    while (this.#queue.length > 0 && !this.#isClosed) await new Promise((resolve) => setImmediate(resolve))
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
    return this.#parts.head()
  }

  settled(mark: number): void {
    if (!this.#isClosed) this.#parts.onSettled(mark)
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
