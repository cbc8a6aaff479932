/**
 * Group commit: what arrives while one commit is under way forms the next.
 *
 * Invariant: one commit at a time, in the order of arrival; items added together stay together and are answered together.
 * It prevents the cost of an fsync from being paid once per item, and two commits from overtaking each other.
 */
import { PacsimileError } from '../shared/errors.ts'

interface Waiting<Item, Result> {
  readonly items: readonly Item[]
  readonly resolve: (results: Result[]) => void
  readonly reject: (error: unknown) => void
}

export class Batches<Item, Result> {
  readonly #itemsMax: number
  readonly #commit: (batch: Item[]) => Promise<Result[]>
  readonly #waiting: Waiting<Item, Result>[] = []
  #running: Promise<void> | undefined
  #isClosed = false

  /** `commit` gives one result for each item. A single addition may be larger than `itemsMax`; it is then committed alone. */
  constructor(itemsMax: number, commit: (batch: Item[]) => Promise<Result[]>) {
    this.#itemsMax = itemsMax
    this.#commit = commit
  }

  add(items: readonly Item[]): Promise<Result[]> {
    if (this.#isClosed) return Promise.reject(new PacsimileError('internal', 'Added to a commit queue that is closed'))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ items, resolve, reject })
      this.#running ??= this.#run()
    })
  }

  async #run(): Promise<void> {
    // What is added in the same breath belongs to the first commit.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const group = this.#takeGroup()
      try {
        const results = await this.#commit(group.flatMap(({ items }) => items))
        let from = 0
        for (const { items, resolve } of group) {
          resolve(results.slice(from, from + items.length))
          from += items.length
        }
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
    }
    this.#running = undefined
  }

  #takeGroup(): Waiting<Item, Result>[] {
    let count = 0
    let additions = 0
    for (const { items } of this.#waiting) {
      if (additions > 0 && count + items.length > this.#itemsMax) break
      count += items.length
      additions += 1
    }
    return this.#waiting.splice(0, additions)
  }

  /** Resolves when what was added has been committed or refused. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#running
  }
}
