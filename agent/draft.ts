/**
 * The state as it will be after the changes that are being put together for one journal append.
 *
 * Invariant: it answers as the state will after those changes. It prevents two results of one batch, such as a removed
 * directory and a file below it, from being recorded as if the other did not exist.
 */
import { parentOf, type RelativePath } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import type { Version } from '../shared/version.ts'
import { type Place, placeKey } from './place.ts'
import type { Known } from './state.ts'

export class Draft {
  readonly changes: Change[] = []
  readonly #loaded: ReadonlyMap<string, Known | undefined>
  readonly #drafted = new Map<string, Version | undefined>()
  /** Places below which nothing of the loaded state is left. */
  readonly #cleared = new Set<string>()

  constructor(loaded: ReadonlyMap<string, Known | undefined>) {
    this.#loaded = loaded
  }

  versionAt(place: Place): Version | undefined {
    const key = placeKey(place)
    if (this.#drafted.has(key)) return this.#drafted.get(key)
    return this.#isCleared(place) ? undefined : this.#loaded.get(key)?.version
  }

  /** What the journal said of it before this batch; undefined also where this batch changed it. */
  loadedAt(place: Place): Known | undefined {
    const key = placeKey(place)
    return this.#drafted.has(key) || this.#isCleared(place) ? undefined : this.#loaded.get(key)
  }

  #isCleared({ volume, path }: Place): boolean {
    if (this.#cleared.size === 0) return false
    for (let above: RelativePath | undefined = path; above !== undefined; above = parentOf(above)) {
      if (this.#cleared.has(placeKey({ volume, path: above }))) return true
    }
    return false
  }

  put({ volume, path }: Place, version: Version): void {
    this.changes.push({ kind: 'put', volume, path, version })
    if (version.kind !== 'directory' && this.versionAt({ volume, path })?.kind === 'directory') this.#clear({ volume, path })
    this.#drafted.set(placeKey({ volume, path }), version)
  }

  remove({ volume, path }: Place): void {
    this.changes.push({ kind: 'remove', volume, path })
    this.#clear({ volume, path })
  }

  #clear(place: Place): void {
    const key = placeKey(place)
    this.#cleared.add(key)
    const below = place.path === '' ? key : `${key}/`
    for (const drafted of this.#drafted.keys()) if (drafted === key || drafted.startsWith(below)) this.#drafted.delete(drafted)
  }
}
