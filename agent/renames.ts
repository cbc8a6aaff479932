/**
 * Directories of which an event said that they have another name, until that is recorded. Pure.
 *
 * Invariant: while it is here, nothing at or below its old name, nor above it, is recorded as gone. It prevents a moved
 * directory from being removed from the history and read again from the disk.
 */
import { isWithin, type Label, parentOf, type RelativePath, rebase } from '../shared/path.ts'
import { Below } from './below.ts'
import { type Place, placeKey } from './place.ts'

export interface Rename {
  readonly volume: Label
  from: RelativePath
  to: RelativePath
  /** A record says so. */
  isRecorded: boolean
  /** Something below its old name was taken as gone, or not seen by a scan, that may be below the new one: it is to be scanned. */
  isDoubted: boolean
  /** Something at its old name was recorded that may be another's: what is there is to be scanned as well. */
  isReused: boolean
}

export class Renames {
  readonly #pending = new Map<Label, Set<Rename>>()
  readonly #from = new Names()
  readonly #to = new Names()
  #recordedCount = 0

  /** Of a directory that is renamed twice before that is recorded, the two are one. */
  add(volume: Label, from: RelativePath, to: RelativePath): Rename {
    const before = this.to({ volume, path: from })
    if (before !== undefined) this.remove(before)
    const { isDoubted, isReused } = before ?? { isDoubted: false, isReused: false }
    // What was moved into it under the name that it had between: no record will say where that is now.
    const isCarrying = before !== undefined && this.#to.within({ volume, path: from }).next().done !== true
    const rename: Rename = { volume, from: before?.from ?? from, to, isRecorded: false, isDoubted: isDoubted || isCarrying, isReused }
    const pending = this.#pending.get(volume) ?? new Set()
    this.#pending.set(volume, pending.add(rename))
    this.#index(rename)
    return rename
  }

  #index(rename: Rename): void {
    this.#from.add({ volume: rename.volume, path: rename.from }, rename)
    this.#to.add({ volume: rename.volume, path: rename.to }, rename)
  }

  #unindex(rename: Rename): void {
    this.#from.delete({ volume: rename.volume, path: rename.from }, rename)
    this.#to.delete({ volume: rename.volume, path: rename.to }, rename)
  }

  /** Grows with every rename that is recorded, told of or not. */
  get recordedCount(): number {
    return this.#recordedCount
  }

  /** Whether any of the volume is not recorded yet. */
  has(volume: Label): boolean {
    return (this.#pending.get(volume)?.size ?? 0) > 0
  }

  /** What is said to have come to this place, if anything. */
  to(place: Place): Rename | undefined {
    return this.#to.at(place).values().next().value
  }

  /** Whether it lies below a place to which a directory is said to have come. */
  isBelowTarget(place: Place): boolean {
    return this.#to.isAbove(place)
  }

  /** Whether "gone" may only mean that it is elsewhere. */
  concerns(place: Place): boolean {
    return this.#from.has(place) || this.#from.isAbove(place) || this.#from.isBelow(place)
  }

  /** Whether what is seen at the place now is not what was recorded there, which these directories took with them. */
  isLeft(place: Place, isDirectory: boolean): boolean {
    return this.#leaving(place, isDirectory).next().done !== true
  }

  /** What is seen at the place is recorded nevertheless. */
  reuse(place: Place, isDirectory: boolean): void {
    for (const rename of this.#leaving(place, isDirectory)) {
      rename.isDoubted = true
      rename.isReused = true
    }
  }

  *#leaving(place: Place, isDirectory: boolean): Generator<Rename, void> {
    for (const rename of this.#from.atOrAbove(place)) {
      const isItself = rename.to === place.path
      // A directory in the place of another is told apart when the rename is recorded.
      if (!isItself && !(isDirectory && rename.from === place.path)) yield rename
    }
  }

  /** What was at the place is taken as gone, though it may be where one of these has brought it. */
  doubt(place: Place): void {
    for (const rename of this.#from.atOrAbove(place)) rename.isDoubted = true
  }

  /** A scan of what is at and below the place has ended: what these have moved may have gone before it came there. */
  scanned(place: Place): void {
    for (const rename of [...this.#from.atOrAbove(place), ...this.#from.within(place)]) rename.isDoubted = true
  }

  /** A record says that a directory has another name: others may lie below it. */
  recorded(volume: Label, from: RelativePath, to: RelativePath): void {
    this.#recordedCount += 1
    const place = { volume, path: from }
    for (const rename of new Set([...this.#from.within(place), ...this.#to.within(place)])) {
      this.#unindex(rename)
      if (rename.from === from && rename.to === to) rename.isRecorded = true
      else if (isWithin(rename.from, from)) rename.from = rebase(rename.from, from, to)
      if (rename.to !== to && isWithin(rename.to, from)) rename.to = rebase(rename.to, from, to)
      this.#index(rename)
    }
  }

  remove(rename: Rename): void {
    if (this.#pending.get(rename.volume)?.delete(rename) === true) this.#unindex(rename)
  }

  abandon(volume: Label): void {
    for (const rename of this.#pending.get(volume) ?? []) this.remove(rename)
  }
}

/** Renames by one of their names. */
class Names {
  readonly #at = new Map<string, Set<Rename>>()
  readonly #below = new Below<Rename>()

  add(place: Place, rename: Rename): void {
    const key = placeKey(place)
    const there = this.#at.get(key) ?? new Set()
    this.#at.set(key, there.add(rename))
    this.#below.add(place, rename)
  }

  delete(place: Place, rename: Rename): void {
    const key = placeKey(place)
    const there = this.#at.get(key)
    there?.delete(rename)
    if (there?.size === 0) this.#at.delete(key)
    this.#below.delete(place, rename)
  }

  /** Oldest first. */
  at(place: Place): ReadonlySet<Rename> {
    return this.#at.get(placeKey(place)) ?? NONE
  }

  has(place: Place): boolean {
    return this.#at.has(placeKey(place))
  }

  /** Whether one is above the place. */
  isAbove({ volume, path }: Place): boolean {
    if (this.#at.size === 0) return false
    for (let above = parentOf(path); above !== undefined; above = parentOf(above)) if (this.has({ volume, path: above })) return true
    return false
  }

  *atOrAbove({ volume, path }: Place): Generator<Rename, void> {
    if (this.#at.size === 0) return
    for (let at: RelativePath | undefined = path; at !== undefined; at = parentOf(at)) yield* this.at({ volume, path: at })
  }

  /** Whether one is below the place. */
  isBelow(place: Place): boolean {
    return this.#below.has(place)
  }

  *within(place: Place): Generator<Rename, void> {
    yield* this.at(place)
    yield* this.#below.of(place)
  }
}

const NONE: ReadonlySet<Rename> = new Set()
