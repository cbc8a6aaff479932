/**
 * Subtrees that are to be scanned because of events.
 *
 * Invariant: a subtree that waits is scanned by itself or with one that holds it. It prevents a thousand new directories,
 * each below the other, from being walked a thousand times.
 */
import { isWithin, type RelativePath, ROOT } from '../shared/path.ts'
import { Alarm, Waiters } from './waiting.ts'

export interface Rescan {
  readonly path: RelativePath
  readonly isShallow: boolean
}

/** Beyond these the whole volume is scanned instead. */
const RESCANS_MAX = 1024

export class Rescans {
  readonly #waiting: Rescan[] = []
  readonly #alarm = new Alarm()
  readonly #progressed = new Waiters()
  #isUnderWay = false

  get size(): number {
    return this.#waiting.length
  }

  add(rescan: Rescan): void {
    if (this.#waiting.some((other) => covers(other, rescan))) return
    const kept = this.#waiting.filter((other) => !covers(rescan, other))
    this.#waiting.splice(0, this.#waiting.length, ...kept, rescan)
    if (this.#waiting.length > RESCANS_MAX) this.#waiting.splice(0, this.#waiting.length, { path: ROOT, isShallow: false })
    this.#alarm.ring()
  }

  /** The next one; it is under way until `done`. */
  take(): Rescan | undefined {
    const next = this.#waiting.shift()
    this.#isUnderWay = next !== undefined
    return next
  }

  done(): void {
    this.#isUnderWay = false
    this.#progressed.wake()
  }

  /** Resolves when one is added, or the signal is given. */
  added(signal: AbortSignal): Promise<void> {
    return this.#alarm.sleep(undefined, signal)
  }

  get isBusy(): boolean {
    return this.#isUnderWay || this.#waiting.length > 0
  }

  /** Whoever waits for the end of all of them looks again. */
  progress(): void {
    this.#progressed.wake()
  }

  /** Resolves when something that is waited for may have ended, or the signal is given. */
  progressed(signal: AbortSignal): Promise<void> {
    return this.#progressed.wait(signal)
  }

  clear(): void {
    this.#waiting.length = 0
    this.done()
  }
}

function covers(a: Rescan, b: Rescan): boolean {
  return a.isShallow ? b.isShallow && a.path === b.path : isWithin(b.path, a.path)
}
