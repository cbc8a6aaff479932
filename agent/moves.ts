/**
 * Records that a directory has another name, where that is what happened, so that what is below it is neither read nor sent
 * again.
 *
 * A directory at a new place is one that the journal knows elsewhere if both have the same inode, and either an event told of
 * the move, or the directory's own modification time is unchanged (so it holds the same names) and it is not at the
 * old place any more. Invariant: a rename is recorded only for a directory that was looked at in its new place. It prevents a
 * new directory that was given the inode of a deleted one from inheriting its content.
 */
import { lstatSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'
import { isWithin, type Label, parentOf, pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import type { Version } from '../shared/version.ts'
import { absolutePath } from './file-stat.ts'
import type { Journal } from './journal.ts'
import type { Pins } from './pins.ts'
import type { Place } from './place.ts'
import type { Finding } from './recorder.ts'
import type { Renames } from './renames.ts'
import type { Settle } from './settle.ts'
import type { State } from './state.ts'
import type { Volume } from './volume.ts'

export interface MovesParts {
  readonly journal: Journal
  readonly state: State
  readonly volumes: ReadonlyMap<Label, Volume>
  readonly settle: Settle
  readonly pins: Pins
  readonly renames: Renames
  /** A record says that a directory has another name. */
  readonly onMoved: (move: Move) => void
}

export interface Move {
  readonly volume: Label
  readonly from: RelativePath
  readonly to: RelativePath
  /** A directory was recorded there, which the record ends with all below it: some of that may be of the one that came. */
  readonly isOver: boolean
}

export class Moves {
  readonly #parts: MovesParts

  constructor(parts: MovesParts) {
    this.#parts = parts
  }

  /** Of the findings that are directories: appends the renames, and folds them in. Called by whoever alone appends. */
  async record(findings: readonly Finding[]): Promise<void> {
    for (const finding of findings) {
      const { outcome } = finding
      if (outcome.kind === 'version' && outcome.version.kind === 'directory' && finding.path !== ROOT)
        await this.#consider(finding, outcome.version)
    }
  }

  async #consider(place: Place, version: Version): Promise<void> {
    const { journal, state, settle, pins, renames, onMoved } = this.#parts
    const { volume, path } = place
    const known = await state.at(place)
    if (known?.version.kind === 'directory' && known.version.inode === version.inode) return
    const parent = await state.at({ volume, path: parentOf(path) ?? ROOT })
    if (parent?.version.kind !== 'directory') return
    const from = await this.#origin(place, version)
    if (from === undefined || isWithin(path, from) || isWithin(from, path)) return
    const [entry] = await journal.append([{ kind: 'rename', volume, path: from, to: path }])
    if (entry === undefined) return
    await state.apply([entry.record])
    renames.recorded(volume, from, path)
    pins.renamed(volume, from, path)
    settle.renamed(volume, from, path, performance.now())
    onMoved({ volume, from, to: path, isOver: known?.version.kind === 'directory' })
  }

  async #origin(place: Place, version: Version): Promise<RelativePath | undefined> {
    const { state, renames } = this.#parts
    const told = renames.to(place)?.from
    if (told !== undefined) {
      const known = await state.at({ volume: place.volume, path: told })
      return known?.version.kind === 'directory' && known.version.inode === version.inode ? told : undefined
    }
    for (const path of await state.namesOf(place.volume, [version.inode])) {
      const known = await state.at({ volume: place.volume, path })
      const isSame =
        known?.version.kind === 'directory' && known.version.inode === version.inode && known.version.mtimeNs === version.mtimeNs
      if (isSame && !this.#isStillThere({ volume: place.volume, path }, version.inode)) return path
    }
    return undefined
  }

  /** A bind mount shows one directory at two places. */
  #isStillThere({ volume, path }: Place, inode: bigint): boolean {
    const root = this.#parts.volumes.get(volume)?.root
    if (root === undefined) return true
    try {
      return lstatSync(pathBuffer(absolutePath(root.directory, path)), { bigint: true, throwIfNoEntry: false })?.ino === inode
    } catch (error) {
      // What cannot be looked at is not there under that name, or may be: then it is no move.
      return errnoOf(error) !== 'ENOTDIR'
    }
  }
}
