/**
 * Files in portions for the threads that write them, while more are being added.
 *
 * Invariant: each file is given out once, in the order in which they were added, and whoever waits when nothing comes any more is told so.
 * It prevents a thread that waits for ever for the rest of a plan that failed.
 */
import type { FileTask } from './restore-files.ts'
import { Portion } from './restore-order.ts'

export class FileBatches {
  readonly #full: (readonly FileTask[])[] = []
  #filling = new Portion()
  readonly #waiting: ((batch: readonly FileTask[] | undefined) => void)[] = []
  #isEnded = false

  /** Batches that are full and that nobody has taken. */
  get waiting(): number {
    return this.#full.length
  }

  add(task: FileTask): void {
    if (!this.#filling.add(task)) return
    this.#give(this.#filling.tasks)
    this.#filling = new Portion()
  }

  #give(batch: readonly FileTask[]): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#full.push(batch)
    else next(batch)
  }

  /** Nothing is added any more: what is not full is a batch too. */
  end(): void {
    if (this.#filling.tasks.length > 0) this.#give(this.#filling.tasks)
    this.#filling = new Portion()
    this.#isEnded = true
    for (const next of this.#waiting.splice(0)) next(undefined)
  }

  /** What was not given out is not to be written. */
  abandon(): void {
    this.#full.length = 0
    this.#filling = new Portion()
    this.end()
  }

  /** Undefined where there will be no more. */
  next(): Promise<readonly FileTask[] | undefined> {
    const batch = this.#full.shift()
    if (batch !== undefined || this.#isEnded) return Promise.resolve(batch)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** All that was not given out. */
  rest(): (readonly FileTask[])[] {
    return this.#full.splice(0)
  }
}
