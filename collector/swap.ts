/**
 * Does the steps of a restore in place, and takes them back.
 *
 * Whether a step is done is seen from what stands where, by inodes: so a run that was killed at any instant goes on in either direction.
 * Invariant: nothing is removed here and nothing is overwritten. What leaves its path is in its slot, and two that change places do so in one
 * system call. It prevents a restore, or its undo, from being what loses the only copy of a file.
 */
import { linkSync, renameSync, unlinkSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { pathBuffer, type RelativePath } from '../shared/path.ts'
import { isPrint, isSameTime, type LiveEntry, type LiveMetadata, liveEntry, printAt } from './live-entry.ts'
import { type MaterializeOptions, Materializer } from './materialize.ts'
import { namesIn, SafeDirectory } from './safe-directory.ts'
import type { MetadataStep, PlaceStep, RemoveStep, SwapStep } from './swap-steps.ts'
import type { UndoPlace } from './undo-place.ts'

export interface Trouble {
  /** Below the target. */
  readonly path: RelativePath
  readonly reason: string
}

/** Errors after which no later step can succeed either. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])
const EXCHANGED = 'its content is in the undo place'

export interface SwapParts {
  readonly place: UndoPlace
  readonly materialize: MaterializeOptions
  /** Only a test has another. False where the filesystem cannot. */
  readonly exchange?: (a: ByteString, b: ByteString) => boolean
}

export class Swap implements Disposable {
  readonly troubles: Trouble[] = []
  /** What was not as it was when the steps were made, and is in the undo place now. */
  readonly changed: Trouble[] = []
  readonly #parts: SwapParts
  readonly #tree: SafeDirectory

  constructor(parts: SwapParts) {
    this.#parts = parts
    this.#tree = new SafeDirectory(parts.place.target)
  }

  [Symbol.dispose](): void {
    this.#tree.close()
  }

  /** Every step in its order; one that was done before is left as it is. @throws io, space: no later step can succeed either */
  forward(steps: readonly SwapStep[]): void {
    for (const step of steps) {
      if (step.kind === 'place') this.#attempt(step, () => this.#put(step))
      if (step.kind === 'remove') this.#attempt(step, () => this.#remove(step))
    }
    this.#setAll(steps, (step) => step.wanted ?? step.old)
  }

  /** Each step is taken back, the last one first. `force`: also where somebody has changed something since, which goes into the undo place. */
  back(steps: readonly SwapStep[], force: boolean): void {
    const kept = steps.filter((step): step is MetadataStep => step.kind === 'metadata' && step.old !== undefined)
    const isMine = new Map(kept.map((step) => [step, force || this.#isAsSet(step)]))
    for (const step of steps.toReversed()) {
      if (step.kind === 'place') this.#attempt(step, () => this.#takeBack(step, force))
      if (step.kind === 'remove') this.#attempt(step, () => this.#bringBack(step, force))
    }
    this.#setAll(kept, (step) => (isMine.get(step) === true ? step.old : undefined))
  }

  #put({ path, slot, print, old }: PlaceStep): void {
    const from = this.#parts.place.slot(slot)
    this.#mend(from, path)
    if (printAt(this.#tree, from)?.inode !== print.inode) return
    const found = printAt(this.#tree, path)
    const isNewer = found !== undefined && (old === undefined || !isPrint(found, old, this.#isDirectory(path)))
    if (isNewer) this.changed.push({ path, reason: `it was made or written meanwhile; ${EXCHANGED}` })
    if (found === undefined) this.#move(from, path)
    else this.#exchange(from, path)
  }

  #remove({ path, slot, isDirectory, old }: RemoveStep): void {
    const to = this.#parts.place.slot(slot)
    if (printAt(this.#tree, to) !== undefined) return
    const found = printAt(this.#tree, path)
    if (found === undefined) return
    if (!isPrint(found, old, isDirectory)) this.changed.push({ path, reason: `it was written meanwhile; ${EXCHANGED}` })
    this.#move(path, to)
  }

  #takeBack({ path, slot, print, old, isDirectory }: PlaceStep, force: boolean): void {
    const at = this.#parts.place.slot(slot)
    this.#mend(at, path)
    const kept = printAt(this.#tree, at)
    const found = printAt(this.#tree, path)
    // Never done, or taken back already.
    if (kept?.inode === print.inode || (found === undefined ? old === undefined : found.inode === old?.inode)) return
    if (!force) {
      if (found === undefined) throw new Newer('it was removed since it was restored')
      if (!isPrint(found, print, isDirectory)) throw new Newer('it was changed since it was restored')
      if (isDirectory && namesIn(this.#tree, path).length > 0) throw new Newer('it holds what was put there since it was restored')
    }
    if (kept === undefined) this.#move(path, at)
    else if (found === undefined) this.#move(at, path)
    else this.#exchange(at, path)
  }

  #bringBack({ path, slot, old }: RemoveStep, force: boolean): void {
    const at = this.#parts.place.slot(slot)
    const found = printAt(this.#tree, path)
    // Never done, or brought back already: what had to make way for it is in the slot then.
    if (printAt(this.#tree, at) === undefined || found?.inode === old.inode) return
    if (found === undefined) {
      this.#move(at, path)
      return
    }
    if (!force) throw new Newer('something else was put there since')
    this.#exchange(at, path)
  }

  #attempt({ path }: SwapStep, act: () => void): void {
    this.#tree.trim()
    try {
      act()
    } catch (error) {
      const errno = errnoOf(error)
      if (errno !== undefined && FATAL.has(errno)) throw error
      if (errno === undefined && !(error instanceof Newer)) throw error
      this.troubles.push({ path, reason: reasonOf(error) })
    }
  }

  #isDirectory(path: RelativePath): boolean {
    return liveEntry(this.#tree, path)?.kind === 'directory'
  }

  /** To a name that is not there. */
  #move(from: RelativePath, to: RelativePath): void {
    const [a, b] = [this.#tree.at(from), this.#tree.at(to)]
    if (libc?.renameToNew(a, b) !== true) this.#moveByLink(from, a, b)
    this.#forget(from, to)
  }

  /** Where the filesystem has no such rename: a link fails on a name that is there, and so does a directory that comes upon anything but an empty one. */
  #moveByLink(from: RelativePath, a: ByteString, b: ByteString): void {
    if (this.#isDirectory(from)) {
      renameSync(pathBuffer(a), pathBuffer(b))
      return
    }
    linkSync(pathBuffer(a), pathBuffer(b))
    unlinkSync(pathBuffer(a))
  }

  #exchange(slot: RelativePath, path: RelativePath): void {
    const { exchange = (a: ByteString, b: ByteString) => libc?.exchange(a, b) === true } = this.#parts
    if (!exchange(this.#tree.at(slot), this.#tree.at(path))) {
      this.#move(path, asideOf(slot))
      this.#mend(slot, path, true)
    }
    this.#forget(slot, path)
  }

  /** Ends an exchange in three moves: one that was cut short before its second goes back, else it goes on. */
  #mend(slot: RelativePath, path: RelativePath, isGoingOn = false): void {
    const aside = asideOf(slot)
    if (printAt(this.#tree, aside) === undefined) return
    if (printAt(this.#tree, slot) !== undefined) {
      if (!isGoingOn) {
        this.#move(aside, path)
        return
      }
      this.#move(slot, path)
    }
    this.#move(aside, slot)
  }

  #forget(...paths: readonly RelativePath[]): void {
    for (const path of paths) this.#tree.forget(path)
  }

  /** Whether what a step has set is what is there still, or was taken back already. */
  #isAsSet({ path, isDirectory, wanted, old }: MetadataStep): boolean {
    let live: LiveEntry | undefined
    try {
      live = liveEntry(this.#tree, path)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
    const isSame = (set: LiveMetadata | undefined): boolean =>
      set !== undefined &&
      live !== undefined &&
      live.mode === set.mode &&
      live.uid === set.uid &&
      live.gid === set.gid &&
      (isDirectory || isSameTime(live.mtimeNs, set.mtimeNs))
    if (live !== undefined && live.inode === old?.inode && live.size === old.size && (isSame(wanted ?? old) || isSame(old))) return true
    this.troubles.push({ path, reason: live === undefined ? 'it is gone since it was restored' : 'it was changed since it was restored' })
    return false
  }

  #setAll(steps: readonly SwapStep[], wantedOf: (step: MetadataStep) => LiveMetadata | undefined): void {
    const target = new Materializer(this.#parts.place.target, noContent, this.#parts.materialize)
    try {
      for (const step of steps) {
        const wanted = step.kind === 'metadata' ? wantedOf(step) : undefined
        if (wanted !== undefined) this.#attempt(step, () => setMetadata(target, step as MetadataStep, wanted))
      }
    } finally {
      target.close()
    }
  }
}

/** Somebody has changed what was restored. */
class Newer extends Error {}

function noContent(): never {
  throw new PacsimileError('internal', 'No file is written here')
}

function setMetadata(target: Materializer, { path, isDirectory }: MetadataStep, wanted: LiveMetadata): void {
  const version = { kind: 'directory', ctimeNs: 0n, inode: 0n, links: 1, ...wanted } as const
  if (isDirectory) target.finishDirectory(path, version)
  else target.putMetadata(path, { ...version, kind: 'file' } as never)
}

function asideOf(slot: RelativePath): RelativePath {
  return `${slot}.aside` as RelativePath
}
