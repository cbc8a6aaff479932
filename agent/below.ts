/**
 * Things that have a place, found by the directories that they lie below.
 *
 * What it costs follows the depth of a path and the size of an answer, never the number of things: a backlog of a hundred
 * thousand paths must not make each of them slower. Invariant: a directory is known here exactly while something lies below
 * it. It prevents a tree of names that only grows.
 */
import { parentOf } from '../shared/path.ts'
import { type Place, placeKey } from './place.ts'

interface Directory<Item> {
  /** In it. */
  readonly items: Set<Item>
  /** Keys of directories in it that hold something. */
  readonly directories: Set<string>
}

export class Below<Item> {
  readonly #directories = new Map<string, Directory<Item>>()

  /** A volume's root lies below nothing. */
  add(place: Place, item: Item): void {
    const above = directoryOf(place)
    if (above !== undefined) this.#ensure(above).items.add(item)
  }

  delete(place: Place, item: Item): void {
    const above = directoryOf(place)
    if (above === undefined) return
    this.#directories.get(placeKey(above))?.items.delete(item)
    this.#prune(above)
  }

  #ensure(place: Place): Directory<Item> {
    const key = placeKey(place)
    const known = this.#directories.get(key)
    if (known !== undefined) return known
    const directory: Directory<Item> = { items: new Set(), directories: new Set() }
    this.#directories.set(key, directory)
    const above = directoryOf(place)
    if (above !== undefined) this.#ensure(above).directories.add(key)
    return directory
  }

  #prune(place: Place): void {
    const key = placeKey(place)
    const directory = this.#directories.get(key)
    if (directory === undefined || directory.items.size > 0 || directory.directories.size > 0) return
    this.#directories.delete(key)
    const above = directoryOf(place)
    if (above === undefined) return
    this.#directories.get(placeKey(above))?.directories.delete(key)
    this.#prune(above)
  }

  /** Whether anything lies below the place. */
  has(place: Place): boolean {
    return this.#directories.has(placeKey(place))
  }

  /** Everything that lies below the place. */
  *of(place: Place): Generator<Item, void> {
    const keys = [placeKey(place)]
    for (let key = keys.pop(); key !== undefined; key = keys.pop()) {
      const directory = this.#directories.get(key)
      if (directory === undefined) continue
      yield* directory.items
      keys.push(...directory.directories)
    }
  }
}

function directoryOf({ volume, path }: Place): Place | undefined {
  const above = parentOf(path)
  return above === undefined ? undefined : { volume, path: above }
}
