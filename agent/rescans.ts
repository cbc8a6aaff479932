/**
 * Subtrees that are to be scanned because of events. Pure: times are passed in.
 *
 * Invariant: a subtree that waits is scanned by itself or with one that holds it. It prevents a thousand new directories,
 * each below the other, from being walked a thousand times.
 */
import { isWithin, type RelativePath, ROOT } from '../shared/path.ts'

export interface Rescan {
  readonly path: RelativePath
  readonly isShallow: boolean
}

/** Beyond these the whole volume is scanned instead. */
const RESCANS_MAX = 1024

export class Rescans {
  readonly #waiting: Rescan[] = []

  get size(): number {
    return this.#waiting.length
  }

  add(rescan: Rescan): void {
    if (this.#waiting.some((other) => covers(other, rescan))) return
    const kept = this.#waiting.filter((other) => !covers(rescan, other))
    this.#waiting.splice(0, this.#waiting.length, ...kept, rescan)
    if (this.#waiting.length > RESCANS_MAX) this.#waiting.splice(0, this.#waiting.length, { path: ROOT, isShallow: false })
  }

  take(): Rescan | undefined {
    return this.#waiting.shift()
  }

  clear(): void {
    this.#waiting.length = 0
  }
}

function covers(a: Rescan, b: Rescan): boolean {
  return a.isShallow ? b.isShallow && a.path === b.path : isWithin(b.path, a.path)
}
