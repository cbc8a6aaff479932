/**
 * How many answers are under way at once, for one restorer and for all.
 *
 * Invariant: who asks for more than his share is told so at once, and nothing is queued. It prevents one restore with a thousand
 * connections from taking the memory, and the turn, of the agents that the collector is there for.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'

export class AnswerSlots {
  readonly #eachMax: number
  readonly #allMax: number
  readonly #taken = new Map<Label, number>()
  #all = 0

  constructor(eachMax: number, allMax: number) {
    this.#eachMax = eachMax
    this.#allMax = allMax
  }

  /** Answers in one of them. @throws busy, and what `answer` throws */
  async use(name: Label, answer: () => Promise<void>): Promise<void> {
    const taken = this.#taken.get(name) ?? 0
    if (taken >= this.#eachMax || this.#all >= this.#allMax)
      throw new PacsimileError('busy', `The collector answers ${taken} questions of ${name} and ${this.#all} in all; no more at once`)
    this.#taken.set(name, taken + 1)
    this.#all += 1
    try {
      await answer()
    } finally {
      this.#giveBack(name)
    }
  }

  #giveBack(name: Label): void {
    const left = (this.#taken.get(name) ?? 1) - 1
    if (left === 0) this.#taken.delete(name)
    else this.#taken.set(name, left)
    this.#all -= 1
  }
}
