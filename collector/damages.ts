/**
 * What of the repository is known to be damaged, in memory and in the catalog.
 *
 * Invariant: a file's damage is replaced as a whole by what reading it again has found. It prevents damage that was repaired from
 * alarming people for ever, and damage that was found from being forgotten at a restart.
 */
import type { Catalog, Damage } from './catalog.ts'
import { keys } from './catalog-keys.ts'
import { damageValue } from './catalog-values.ts'

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

  get list(): readonly Damage[] {
    return this.#list
  }

  /** All that is known of a file from now on. */
  async replace(file: string, damage: readonly Damage[]): Promise<void> {
    const before = this.#list.filter((known) => known.file === file)
    if (before.length === 0 && damage.length === 0) return
    await this.#catalog.write([
      ...before.map(({ offset }) => ({ type: 'del' as const, key: keys.damage(file, offset) })),
      ...damage.map((found) => ({ type: 'put' as const, key: keys.damage(file, found.offset), value: damageValue(found) })),
    ])
    this.#list = [...this.#list.filter((known) => known.file !== file), ...damage]
  }
}
