/**
 * Holds acknowledgements back until enough copies have what they are of.
 *
 * Invariant: words are said in the order in which their commits were, each only when what was committed with it is held. It prevents
 * an agent from giving up what only one disk has, where the policy asks for two.
 */
import type { Reflected } from './catalog.ts'

export class AckGate {
  /** Whether enough places hold everything up to a commit. */
  readonly #isHeld: (at: Reflected) => boolean
  readonly #waiting: { readonly at: Reflected; readonly say: () => void }[] = []

  constructor(isHeld: (at: Reflected) => boolean) {
    this.#isHeld = isHeld
  }

  when(at: Reflected, say: () => void): void {
    if (this.#waiting.length === 0 && this.#isHeld(at)) say()
    else this.#waiting.push({ at, say })
  }

  isHeld(at: Reflected): boolean {
    return this.#waiting.length === 0 && this.#isHeld(at)
  }

  /** A copy has come further. */
  open(): void {
    const stop = this.#waiting.findIndex(({ at }) => !this.#isHeld(at))
    const ready = this.#waiting.splice(0, stop < 0 ? this.#waiting.length : stop)
    for (const { say } of ready) say()
  }
}

/** Whether everything up to `at` is within what is held up to `held`. */
export function reaches(held: Reflected, at: Reflected): boolean {
  const isUpTo = (a: Reflected['packs'], b: Reflected['packs']): boolean => a.file > b.file || (a.file === b.file && a.offset >= b.offset)
  return isUpTo(held.packs, at.packs) && isUpTo(held.segments, at.segments)
}
