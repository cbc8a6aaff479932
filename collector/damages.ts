/**
 * What of the repository is known to be damaged, in memory and in the catalog.
 *
 * Invariant: a file's damage is replaced as a whole by what reading it again has found; but a catalog that was folded from a
 * damaged file lacks what was there, and that is told until it is made anew. It prevents damage that was repaired from alarming
 * people for ever, and a repair from hiding what is missing still.
 */
import type { Catalog, Damage } from './catalog.ts'
import { keys } from './catalog-keys.ts'
import { damageValue } from './catalog-values.ts'

/** Marks what was found after the file had been folded, so that the catalog lacks nothing of it. */
const FOUND_SINCE = ' (found by scrubbing)'
const OUTDATED = 'it was damaged when the catalog was made, and is right again: `pacsimile rebuild` brings in what was missing'

export class Damages {
  readonly #catalog: Catalog
  #list: readonly Damage[]

  private constructor(catalog: Catalog, list: readonly Damage[]) {
    this.#catalog = catalog
    this.#list = list
  }

  /** With what was met at earlier starts: it is damaged still. */
  static async open(catalog: Catalog): Promise<Damages> {
    return new Damages(catalog, await catalog.damage())
  }

  /** What was met since, while more was folded. */
  async reread(): Promise<void> {
    this.#list = await this.#catalog.damage()
  }

  get list(): readonly Damage[] {
    return this.#list
  }

  /** What was met when the file was folded: the catalog lacks what was there. */
  #metIn(file: string): Damage[] {
    return this.#list.filter((known) => known.file === file && !known.reason.endsWith(FOUND_SINCE))
  }

  wasMet(file: string): boolean {
    return this.#metIn(file).length > 0
  }

  /**
   * The file was read, and repaired where that was possible; `left` is damaged still. `isFolded`: the catalog has all that is in
   * it now.
   */
  async scrubbed(file: string, left: readonly Damage[], isFolded: boolean): Promise<void> {
    const met = this.#metIn(file)
    const found = left
      .filter(({ offset }) => !met.some((known) => known.offset === offset))
      .map((damage) => ({ ...damage, reason: `${damage.reason}${FOUND_SINCE}` }))
    const outdated = met.length > 0 && !isFolded ? [{ file, offset: 0, reason: OUTDATED }] : []
    await this.#replace(file, left.length === 0 ? outdated : [...found, ...met])
  }

  /** The file was removed, and nothing is to be read from it. */
  forget(file: string): Promise<void> {
    return this.#replace(file, [])
  }

  async #replace(file: string, damage: readonly Damage[]): Promise<void> {
    const before = this.#list.filter((known) => known.file === file)
    if (before.length === 0 && damage.length === 0) return
    await this.#catalog.write([
      ...before.map(({ offset }) => ({ type: 'del' as const, key: keys.damage(file, offset) })),
      ...damage.map((found) => ({ type: 'put' as const, key: keys.damage(file, found.offset), value: damageValue(found) })),
    ])
    this.#list = [...this.#list.filter((known) => known.file !== file), ...damage]
  }
}
