/**
 * Paths that a scan found changed and of which nothing had told: whether an event tells of them after all. Pure.
 *
 * A scan sees a change a moment before its event is read, and the look that follows may see one that came later still.
 * Invariant: a path is called unannounced only when its look has ended and everything that happened before that has been told.
 * It prevents a busy archive from looking as if its watcher missed what it was only about to tell.
 */
import { isWithin, type Label, type RelativePath } from '../shared/path.ts'
import { type Place, placeKey } from './place.ts'

export interface Suspect {
  readonly place: Place
  isTold: boolean
}

export class Suspects {
  readonly #suspects = new Map<string, Suspect>()
  /** Whoever said that all had been told, and has not taken it back. */
  readonly #tellers = new Set<symbol>()

  /** Until it is let go, what is told of the path counts. */
  add(place: Place): Suspect {
    const key = placeKey(place)
    const suspect = this.#suspects.get(key) ?? { place, isTold: this.#tellers.size > 0 }
    this.#suspects.set(key, suspect)
    return suspect
  }

  release({ place }: Suspect): void {
    this.#suspects.delete(placeKey(place))
  }

  told(place: Place): void {
    if (this.#suspects.size === 0) return
    const suspect = this.#suspects.get(placeKey(place))
    if (suspect !== undefined) suspect.isTold = true
  }

  /** Something was told of any path, nobody knows any more of which. @returns to be called when scans have found them */
  allTold(): () => void {
    const teller = Symbol()
    this.#tellers.add(teller)
    for (const suspect of this.#suspects.values()) suspect.isTold = true
    return () => void this.#tellers.delete(teller)
  }

  /** Something was told of a directory that concerns all below it. */
  toldWithin(volume: Label, path: RelativePath): void {
    for (const suspect of this.#suspects.values())
      if (suspect.place.volume === volume && isWithin(suspect.place.path, path)) suspect.isTold = true
  }
}
