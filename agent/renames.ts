/**
 * Directories of which an event said that they have another name, until that is recorded. Pure.
 *
 * Invariant: while it is here, nothing at or below its old name, nor above it, is recorded as gone. It prevents a moved
 * directory from being removed from the history and read again from the disk.
 */
import { isWithin, type Label, type RelativePath, rebase } from '../shared/path.ts'
import { type Place } from './place.ts'

export interface Rename {
  readonly volume: Label
  from: RelativePath
  to: RelativePath
  /** A record says so. */
  isRecorded: boolean
}

export class Renames {
  readonly #pending = new Set<Rename>()

  /** Of a directory that is renamed twice, the two are one. */
  add(volume: Label, from: RelativePath, to: RelativePath): Rename {
    const before = [...this.#pending].find((other) => other.volume === volume && other.to === from)
    if (before !== undefined) this.#pending.delete(before)
    const rename: Rename = { volume, from: before?.from ?? from, to, isRecorded: false }
    this.#pending.add(rename)
    return rename
  }

  /** Whether any of the volume is not recorded yet. */
  has(volume: Label): boolean {
    return [...this.#pending].some((rename) => rename.volume === volume)
  }

  /** What is said to have come to this place, if anything. */
  to({ volume, path }: Place): Rename | undefined {
    return [...this.#pending].find((rename) => rename.volume === volume && rename.to === path)
  }

  /** Whether "gone" may only mean that it is elsewhere. */
  concerns({ volume, path }: Place): boolean {
    for (const rename of this.#pending) {
      if (rename.volume === volume && (isWithin(path, rename.from) || isWithin(rename.from, path))) return true
    }
    return false
  }

  /** A record says that a directory has another name: others may lie below it. */
  recorded(volume: Label, from: RelativePath, to: RelativePath): void {
    for (const rename of this.#pending) {
      if (rename.volume !== volume) continue
      if (rename.from === from && rename.to === to) rename.isRecorded = true
      else if (isWithin(rename.from, from)) rename.from = rebase(rename.from, from, to)
    }
  }

  remove(rename: Rename): void {
    this.#pending.delete(rename)
  }

  abandon(volume: Label): void {
    for (const rename of this.#pending) if (rename.volume === volume) this.#pending.delete(rename)
  }
}
