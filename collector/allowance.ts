/**
 * Which volumes a restorer may read: all, those of some agents, or single ones.
 *
 * Written `all`, `AGENT` or `AGENT:VOLUME`. Invariant: what is not named is not allowed, also where a volume of that name comes to be
 * later. It prevents a certificate for one archive from opening the next one that is installed beside it.
 */
import { PacsimileError } from '../shared/errors.ts'
import { type Label, label } from '../shared/path.ts'

const ALL = 'all'

export interface Place {
  readonly agent: Label
  readonly volume: Label
}

export class Allowance {
  /** As it is written. */
  readonly words: readonly string[]
  readonly #words: ReadonlySet<string>

  /** @throws usage */
  constructor(words: readonly string[]) {
    checkAllowance(words)
    this.words = [...new Set(words)].toSorted()
    this.#words = new Set(words)
  }

  has({ agent, volume }: Place): boolean {
    return this.#words.has(ALL) || this.#words.has(agent) || this.#words.has(`${agent}:${volume}`)
  }

  toString(): string {
    return this.words.join(', ')
  }
}

/** @throws usage for words that are none of the three, or for no word at all */
export function checkAllowance(words: readonly string[]): void {
  if (words.length === 0) throw new PacsimileError('usage', 'Name what may be read: all, AGENT or AGENT:VOLUME')
  for (const word of words) check(word)
}

function check(word: string): void {
  const [agent = '', volume, ...rest] = word.split(':')
  if (rest.length > 0) throw new PacsimileError('usage', `${JSON.stringify(word)} is not all, AGENT or AGENT:VOLUME`)
  label(agent, 'The agent name')
  if (volume !== undefined) label(volume, 'The volume name')
}
