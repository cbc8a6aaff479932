/**
 * Versions that were closed after writing and are held open until they are captured. Pure.
 *
 * A look at a path waits behind the versions of that path: it would read the same content a second time, beside them, and could
 * not be recorded before them. Invariant: of one path they are given in the order in which they were closed, one at a time. It
 * prevents the versions of a file that is saved a hundred times a second from being recorded in another order than they were
 * made in.
 */
import { isWithin, type Label, type RelativePath, rebase } from '../shared/path.ts'
import type { Writer } from '../shared/version-extensions.ts'
import { type Place, placeKey } from './place.ts'
import type { Due } from './settle-entry.ts'
import { Waiters } from './waiting.ts'

export interface Pin {
  readonly volume: Label
  /** Its name when it was told of; another one after a directory above it was renamed. */
  path: RelativePath
  readonly fd: number
  readonly writer: Writer | undefined
  readonly release: (fate?: 'abandoned') => void
  /** Attempts that did not end in a record, but for those that found somebody else writing. */
  attempts: number
  /** Those. */
  busy: number
}

export class Pins {
  readonly #waiting: Pin[] = []
  readonly #busy = new Map<string, Pin>()
  readonly #ended = new Waiters()
  readonly #behind = new Map<Pin, Due[]>()
  #freed: Due[] = []

  get size(): number {
    return this.#waiting.length + this.#busy.size
  }

  add(pin: Pin): void {
    this.#waiting.push(pin)
  }

  /** At most `max` whose path has no other under way; they are busy until `finished`, or `again`. */
  take(max: number): Pin[] {
    const taken: Pin[] = []
    const passedOver = new Set<string>()
    for (let i = 0; i < this.#waiting.length && taken.length < max; ) {
      const pin = this.#waiting[i]
      if (pin === undefined) break
      const key = placeKey(pin)
      if (this.#busy.has(key) || passedOver.has(key)) {
        passedOver.add(key)
        i += 1
        continue
      }
      this.#waiting.splice(i, 1)
      this.#busy.set(key, pin)
      taken.push(pin)
    }
    return taken
  }

  /** It could not be recorded yet: it comes before the others of its path. */
  again(pin: Pin): void {
    this.#forget(pin)
    this.#waiting.unshift(pin)
  }

  /** Has a look wait for the last version of its path, until it is given by `takeFreed`. False when there is none to wait for. */
  putBehind(look: Due): boolean {
    if (this.size === 0) return false
    const last = this.#all().findLast((pin) => isSamePlace(pin, look))
    if (last === undefined) return false
    this.#behind.set(last, [...(this.#behind.get(last) ?? []), look])
    return true
  }

  /** Whether a version of its path that was closed after it waits for it. */
  hasLater(pin: Pin): boolean {
    return this.#waiting.some((other) => isSamePlace(other, pin))
  }

  /** Whether a look at its path waits for it. */
  isFollowed(pin: Pin): boolean {
    return this.#behind.get(pin)?.some((look) => isSamePlace(pin, look)) === true
  }

  /** Looks that need not wait any more. */
  takeFreed(): Due[] {
    const freed = this.#freed
    this.#freed = []
    return freed
  }

  /** It is recorded, or given up. */
  finished(pin: Pin, fate?: 'abandoned'): void {
    this.#forget(pin)
    this.#freed.push(...(this.#behind.get(pin) ?? []))
    this.#behind.delete(pin)
    pin.release(fate)
    this.#ended.wake()
  }

  #forget(pin: Pin): void {
    for (const [key, other] of this.#busy) if (other === pin) this.#busy.delete(key)
  }

  /** Whether an older version of the path, or of something below it, is still to be recorded. */
  concerns({ volume, path }: Place): boolean {
    if (this.size === 0) return false
    return this.#all().some((pin) => pin.volume === volume && isWithin(pin.path, path))
  }

  /** Resolves when the versions that are here now are recorded or given up. */
  async settled(volume: Label, signal: AbortSignal): Promise<void> {
    const here = new Set(this.#all().filter((pin) => pin.volume === volume))
    while (this.#all().some((pin) => here.has(pin)) && !signal.aborted) await this.#ended.wait(signal)
  }

  /** A directory has another name. */
  renamed(volume: Label, from: RelativePath, to: RelativePath): void {
    for (const pin of this.#all()) if (pin.volume === volume && isWithin(pin.path, from)) pin.path = rebase(pin.path, from, to)
  }

  /** The volume is not there any more: its versions have no place. */
  abandon(volume: Label): void {
    for (const pin of this.#waiting.filter((other) => other.volume === volume)) {
      this.#waiting.splice(this.#waiting.indexOf(pin), 1)
      this.finished(pin, 'abandoned')
    }
  }

  #all(): Pin[] {
    return [...this.#busy.values(), ...this.#waiting]
  }
}

function isSamePlace(a: Place, b: Place): boolean {
  return a.volume === b.volume && a.path === b.path
}
