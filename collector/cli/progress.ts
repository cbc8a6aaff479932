/**
 * A line that shows how far long work is, with rate and time left: on a terminal only, and not for short work.
 */
import { showBytes, showDuration } from './output.ts'

const FIRST_MS = 500
const EVERY_MS = 200

export class Progress {
  readonly #what: string
  readonly #started = performance.now()
  readonly #shows = process.stderr.isTTY
  #shownAt = 0
  #shown = false

  constructor(what: string) {
    this.#what = what
  }

  /** `done` of `total` bytes; `more` says something else about the moment. */
  update(done: number, total: number, more = ''): void {
    const now = performance.now()
    if (!this.#shows || now - this.#started < FIRST_MS || now - this.#shownAt < EVERY_MS) return
    this.#shownAt = now
    this.#shown = true
    const seconds = (now - this.#started) / 1000
    const rate = done / seconds
    const share = total > 0 ? Math.floor((done / total) * 100) : 100
    const left = rate > 0 ? showDuration(((total - done) / rate) * 1000) : '?'
    process.stderr.write(`\r\x1b[K${this.#what}: ${share} % of ${showBytes(total)}${more}, ${showBytes(rate)}/s, ${left} left`)
  }

  /** A count whose end is not known. */
  count(done: number, unit: string): void {
    const now = performance.now()
    if (!this.#shows || now - this.#started < FIRST_MS || now - this.#shownAt < EVERY_MS) return
    this.#shownAt = now
    this.#shown = true
    process.stderr.write(`\r\x1b[K${this.#what}: ${done.toLocaleString('en')} ${unit}`)
  }

  end(): void {
    if (this.#shown) process.stderr.write('\r\x1b[K')
  }
}
