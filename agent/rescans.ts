/**
 * Subtrees that are to be scanned because of events.
 *
 * Invariant: a subtree that waits is scanned, by itself or with one that holds it, wherever it has been moved by then. It
 * prevents a thousand new directories, each below the other, from being walked a thousand times, and one that leaves the
 * others from being forgotten.
 */
import { isWithin, type RelativePath, ROOT, rebase } from '../shared/path.ts'
import { Alarm, Waiters } from './waiting.ts'

export interface Rescan {
  readonly path: RelativePath
  readonly isShallow: boolean
}

/** A directory of which it is still to be seen whether it must be scanned with all below it. */
export interface Announced {
  /** Where it is now, as far as is recorded. */
  readonly path: RelativePath
  /** Its look has ended; whether it is to be scanned is found out at this moment. */
  isLooked: boolean
}

/** Beyond these the whole volume is scanned instead. */
const RESCANS_MAX = 1024

export class Rescans {
  readonly #waiting: Rescan[] = []
  readonly #alarm = new Alarm()
  readonly #progressed = new Waiters()
  #underWay: Rescan | undefined
  readonly #announced = new Set<{ path: RelativePath; isLooked: boolean }>()

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

  /** It may have to be scanned with all below it, until that is `decided`. */
  announce(path: RelativePath): Announced {
    const announced = { path, isLooked: false }
    this.#announced.add(announced)
    return announced
  }

  /** It was added, or need not be. */
  decided(announced: Announced): void {
    this.#announced.delete(announced)
    this.progress()
  }

  /** Whether an event had what is at the path scanned, or is about to. */
  isAnnounced(path: RelativePath): boolean {
    const scanned = [...this.#waiting, ...(this.#underWay === undefined ? [] : [this.#underWay])]
    return scanned.some((rescan) => isWithin(path, rescan.path)) || this.#announced.values().some((above) => isWithin(path, above.path))
  }

  /** The next one; it is under way until `done`. */
  take(): Rescan | undefined {
    this.#underWay = this.#waiting.shift()
    return this.#underWay
  }

  /**
   * A directory has another name: what was to be found below the old one is to be found below the new one. A scan that holds
   * the old one, waiting, under way or announced, does not come upon the directory any more, so that part is scanned where it is now.
   */
  renamed(from: RelativePath, to: RelativePath): void {
    const scans = [...this.#waiting, ...(this.#underWay === undefined ? [] : [this.#underWay])]
    const below = scans.filter(({ path }) => isWithin(path, from))
    const holding = [...scans.filter(({ isShallow }) => !isShallow), ...this.#announced]
    const isAbove = holding.some(({ path }) => path !== from && isWithin(from, path))
    for (const announced of this.#announced) if (isWithin(announced.path, from)) announced.path = rebase(announced.path, from, to)
    for (const { path, isShallow } of below) this.add({ path: rebase(path, from, to), isShallow })
    if (isAbove) this.add({ path: to, isShallow: false })
  }

  done(): void {
    this.#underWay = undefined
    this.#progressed.wake()
  }

  /** Resolves when one is added, or the signal is given. */
  added(signal: AbortSignal): Promise<void> {
    return this.#alarm.sleep(undefined, signal)
  }

  get isBusy(): boolean {
    return this.#underWay !== undefined || this.#waiting.length > 0 || this.#announced.values().some(({ isLooked }) => isLooked)
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
