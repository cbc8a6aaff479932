/**
 * Who read what of the history, and when: DATA/access/DAY.jsonl, a line for each question of a restorer and one for how it ended.
 *
 * Invariant: nothing is answered before the line that says so was handed to the operating system; where it cannot be written, nothing is
 * answered. It prevents a read of patients' data that nobody can be told of. Nothing is ever removed here; a power cut may cost the last seconds.
 */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { asPacsimileError } from '../shared/errors.ts'
import { makeDirectory, writeFully } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'

/** Who asks, and how that is known. */
export interface Reader {
  readonly name: Label
  readonly by: 'certificate' | 'password'
  readonly address: string
}

export class AccessLog implements Disposable {
  readonly #directory: string
  readonly #clock: WallClock
  #day = ''
  #file: number | undefined
  /** Of this run of the collector; with the time of its start it names a question for ever. */
  #asked = 0
  readonly #run: string

  constructor(dataDir: string, clock: WallClock = systemClock) {
    this.#directory = join(dataDir, 'access')
    this.#clock = clock
    this.#run = clock.now().toString(36)
    makeDirectory(this.#directory)
  }

  /** @param facts what is asked for. @returns how `ended` names it. @throws io, space */
  asked({ name, by, address }: Reader, what: string, facts: object): string {
    this.#asked += 1
    const id = `${this.#run}-${this.#asked}`
    this.#write({ id, event: 'asked', restorer: name, by, address, what, ...facts })
    return id
  }

  /** @param outcome `whole`, or the code of an error. Never throws: what can be said no more was said by `asked`. */
  ended(id: string, outcome: string, bytes: number): void {
    try {
      this.#write({ id, event: 'ended', outcome, bytes })
    } catch {
      // The next question fails for the same reason, and says it.
    }
  }

  #write(line: object): void {
    const time = new Date(this.#clock.now()).toISOString()
    try {
      writeFully(this.#fileOf(time.slice(0, 10)), Buffer.from(`${JSON.stringify({ time, ...line })}\n`, 'utf8'))
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${this.#directory}`)
    }
  }

  #fileOf(day: string): number {
    if (this.#file !== undefined && day === this.#day) return this.#file
    this[Symbol.dispose]()
    this.#file = openSync(join(this.#directory, `${day}.jsonl`), 'a', 0o600)
    this.#day = day
    return this.#file
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
  }
}
