/**
 * The small files of a repository, in its copies: what it is, the keys that open it, and who its collector is.
 *
 * Invariant: a key slot is in a copy before content is that it opens, and one that was removed is removed there; but a repository
 * without slots takes none away. It prevents a copy that nobody can open, also by the damage of another place.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { type Copy, DESCRIPTION_NAME, KEYS_PREFIX } from './repository/copy.ts'
import { readDescription } from './repository/repository.ts'
import { SEALED_NAME } from './sealed-identity.ts'

export class SmallFiles {
  readonly #directory: string
  /** What a copy was given last, so that it is not asked for nothing. */
  readonly #given = new Map<string, Buffer>()

  constructor(repositoryDirectory: string) {
    this.#directory = repositoryDirectory
  }

  /** Names and content, in the order in which they are to be written: what makes it a repository comes last. */
  #wanted(): Map<string, Buffer> {
    try {
      const slots = readdirSync(join(this.#directory, 'keys')).filter((name) => /^[0-9a-f]{8}\.json$/.test(name))
      const identity = existsSync(join(this.#directory, SEALED_NAME)) ? [SEALED_NAME] : []
      const names = [...slots.toSorted().map((name) => `${KEYS_PREFIX}${name}`), ...identity, DESCRIPTION_NAME]
      return new Map(names.map((name) => [name, readFileSync(join(this.#directory, name))]))
    } catch (error) {
      throw asPacsimileError(error, `Reading the key slots in ${this.#directory}`)
    }
  }

  /** @throws fenced, io */
  async bring(copy: Copy): Promise<void> {
    const wanted = this.#wanted()
    if (this.#isGiven(wanted)) return
    const slots: string[] = []
    for (const [name, bytes] of wanted) {
      if (name.startsWith(KEYS_PREFIX)) slots.push(name)
      const found = await copy.find(name)
      // A slot has its id by chance: one of another content is damage, or a loss that its own place repairs.
      if (found === undefined) await copy.write(name, bytes, 'nothing')
      else if (!found.bytes.equals(bytes)) await copy.write(name, bytes, found)
    }
    if (slots.length > 0) await removeOthers(copy, new Set(slots))
    this.#given.clear()
    for (const [name, bytes] of wanted) this.#given.set(name, bytes)
  }

  #isGiven(wanted: ReadonlyMap<string, Buffer>): boolean {
    return wanted.size === this.#given.size && [...wanted].every(([name, bytes]) => this.#given.get(name)?.equals(bytes) === true)
  }

  /** It is another connection: everything is compared once more. */
  forget(): void {
    this.#given.clear()
  }

  /** @throws already-exists where the copy is of another repository */
  async isCopy(copy: Copy): Promise<boolean> {
    const found = await copy.find(DESCRIPTION_NAME)
    if (found === undefined) return false
    const { id } = readDescription(this.#directory)
    const there: unknown = JSON.parse(found.bytes.toString('utf8'))
    if (typeof there === 'object' && there !== null && 'id' in there && there.id === id) return true
    throw new PacsimileError('already-exists', `${copy.url} holds another repository`)
  }
}

async function removeOthers(copy: Copy, slots: ReadonlySet<string>): Promise<void> {
  const others: string[] = []
  for await (const { name } of copy.list(KEYS_PREFIX)) if (!slots.has(name)) others.push(name)
  for (const name of others) await copy.remove(name)
}
