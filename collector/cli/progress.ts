/**
 * A line that shows how far long work is, with rate and time left: on a terminal only, and not for short work.
 *
 * Invariant: what it wrote is gone from the screen when the work ends, however it ends. It prevents half a progress line
 * in front of the error that matters.
 */
import { showBytes, showDuration } from './amounts.ts'

const FIRST_MS = 500
const EVERY_MS = 200
const CLEAR_LINE = '\r\x1b[K'

/** `Restoring: 25 % of 4.0 MiB, 1.0 MiB/s, 3.0 s left`. */
export function progressLine(what: string, done: number, total: number, elapsedMs: number, more = ''): string {
  const share = total > 0 ? Math.min(100, Math.floor((done / total) * 100)) : 100
  const rate = elapsedMs > 0 ? (done / elapsedMs) * 1000 : 0
  const left = rate > 0 ? `${showDuration((Math.max(0, total - done) / rate) * 1000)} left` : 'no end in sight yet'
  return `${what}: ${share} % of ${showBytes(total)}${more}, ${showBytes(rate)}/s, ${left}`
}

export class Progress implements Disposable {
  readonly #what: string
  readonly #started = performance.now()
  #shownAt = 0
  #isShown = false

  constructor(what: string) {
    this.#what = what
  }

  /** `done` of `total` bytes; `more` says something else about the moment. */
  update(done: number, total: number, more = ''): void {
    this.#show((elapsedMs) => progressLine(this.#what, done, total, elapsedMs, more))
  }

  /** A count whose end is not known. */
  count(done: number, unit: string): void {
    this.#show(() => `${this.#what}: ${done.toLocaleString('en')} ${unit}`)
  }

  /** Bytes whose end is not known. */
  bytes(done: number, more = ''): void {
    this.#show((elapsedMs) => `${this.#what}: ${showBytes(done)}${more}, ${showBytes((done / Math.max(1, elapsedMs)) * 1000)}/s`)
  }

  #show(line: (elapsedMs: number) => string): void {
    const now = performance.now()
    if (!process.stderr.isTTY || now - this.#started < FIRST_MS || now - this.#shownAt < EVERY_MS) return
    this.#shownAt = now
    this.#isShown = true
    process.stderr.write(`${CLEAR_LINE}${line(now - this.#started).slice(0, (process.stderr.columns || 80) - 1)}`)
  }

  [Symbol.dispose](): void {
    if (this.#isShown) process.stderr.write(CLEAR_LINE)
    this.#isShown = false
  }
}
