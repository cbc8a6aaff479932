/**
 * What a volume's watcher tells, handed to whoever deals with it: paths to settle, versions to pins, moves to renames, what
 * may have been missed to scans and gaps.
 *
 * Invariant: every event has left its mark when `take` returns, but for names that must be looked up first, which `lookedUp`
 * waits for. It prevents a fence from being answered before what it stands for is known.
 */
import { type HybridTime, startOfMillisecond, TIME_ZERO } from '../shared/clock.ts'
import { parentOf, type RelativePath } from '../shared/path.ts'
import type { Coverage } from './coverage.ts'
import { currentNames } from './current-names.ts'
import type { Pins } from './pins.ts'
import type { Pursuit } from './pursuit.ts'
import type { Renames } from './renames.ts'
import type { Rescans } from './rescans.ts'
import type { Rounds } from './rounds.ts'
import type { Settle } from './settle.ts'
import type { State } from './state.ts'
import type { Suspects } from './suspects.ts'
import type { Volume } from './volume.ts'
import { Waiters } from './waiting.ts'
import type { WatchEvent } from './watch/watcher.ts'

export interface EventIntakeParts {
  readonly volume: Volume
  readonly settle: Settle
  readonly suspects: Suspects
  readonly pursuit: Pursuit
  readonly state: State
  readonly pins: Pins
  readonly renames: Renames
  readonly rescans: Rescans
  readonly rounds: Rounds
  readonly coverage: Coverage
  /** A gap is open from the last moment at which watching was proven. */
  readonly owe: (cause: string) => void
  readonly provenUntil: () => HybridTime | undefined
}

/** Inodes whose names are asked for at once. */
const LOOKED_UP_MAX = 1000

export class EventIntake {
  readonly #parts: EventIntakeParts
  /** Inodes that were told of without a name, and are to be looked up in that order. */
  readonly #unnamed = new Set<bigint>()
  /** How many have been in it, and of how many of them the names are known. */
  #told = 0
  #lookedUp = 0
  #isLookingUp = false
  readonly #waiters = new Waiters()

  constructor(parts: EventIntakeParts) {
    this.#parts = parts
  }

  take(event: WatchEvent): void {
    const { volume, coverage, pins } = this.#parts
    switch (event.kind) {
      case 'dirty':
        if (!volume.isIgnored(event.path)) this.#takeDirty(event)
        return
      case 'renamed':
        this.#takeRename(event)
        return
      case 'inodes':
        this.#lookUp(event.inodes)
        return
      case 'pin':
        if (volume.isIgnored(event.path)) event.release()
        else pins.add({ ...event, volume: volume.name, attempts: 0, busy: 0 })
        this.#parts.suspects.told({ volume: volume.name, path: event.path })
        return
      case 'loss':
        coverage.owe({ from: this.#from(event.sinceMs), cause: event.cause })
        return
      case 'rescan':
        if (event.isGap === true) {
          this.#parts.owe(event.cause)
          this.#parts.rounds.want()
        } else if (!volume.isIgnored(event.path)) {
          this.#parts.suspects.toldWithin(volume.name, event.path)
          this.#parts.rescans.add(event)
        }
    }
  }

  #from(sinceMs: number | undefined): HybridTime {
    return sinceMs === undefined ? (this.#parts.provenUntil() ?? TIME_ZERO) : startOfMillisecond(sinceMs)
  }

  #takeDirty({ path, isOpen, isEntry, isDirectoryGone, writer }: Extract<WatchEvent, { kind: 'dirty' }>): void {
    const { volume, settle, suspects } = this.#parts
    const nowMs = performance.now()
    if (isDirectoryGone === true) this.#lookForAnother(path, nowMs)
    const parent = isEntry === true ? parentOf(path) : undefined
    suspects.told({ volume: volume.name, path })
    if (parent !== undefined) suspects.told({ volume: volume.name, path: parent })
    const hint = { isOpen: isOpen === true, isSure: volume.mode === 'complete', writer }
    settle.changed({ volume: volume.name, path }, nowMs, hint)
    if (parent !== undefined) settle.childrenChanged({ volume: volume.name, path: parent }, nowMs)
  }

  /** Events of what went with a directory name no place any more: if one of its name is there, it is compared as a whole. */
  #lookForAnother(path: RelativePath, nowMs: number): void {
    const { volume, settle, suspects, rescans, state, pursuit } = this.#parts
    const announced = rescans.announce(path)
    suspects.toldWithin(volume.name, path)
    const lookAt = (place: RelativePath, atMs: number): void => {
      const compare = async (): Promise<void> => {
        announced.isLooked = true
        const known = await state.at({ volume: volume.name, path: place })
        // A directory above it was renamed meanwhile.
        if (announced.path !== place) {
          announced.isLooked = false
          lookAt(announced.path, performance.now())
          pursuit.wake()
          return
        }
        if (known?.version.kind === 'directory') rescans.add({ path: place, isShallow: false })
        rescans.decided(announced)
      }
      settle.found({ volume: volume.name, path: place }, 'event', { answered: () => void compare() }, atMs)
    }
    lookAt(path, nowMs)
  }

  /** The look at the new place records the move; what it does not, a scan of what is there finds. */
  #takeRename({ path, to }: Extract<WatchEvent, { kind: 'renamed' }>): void {
    const { volume, settle, suspects, renames, rescans } = this.#parts
    for (const place of [path, to]) suspects.toldWithin(volume.name, place)
    const rename = renames.add(volume.name, path, to)
    // What was told of under a name that it had only for a moment.
    if (rename.from !== path) {
      settle.renamed(volume.name, path, to, performance.now())
      rescans.renamed(path, to)
    }
    const lookAt = (place: RelativePath): void => {
      const answered = (): void => {
        // A directory above it was renamed meanwhile.
        if (rename.to !== place && !rename.isRecorded) {
          lookAt(rename.to)
          return
        }
        renames.remove(rename)
        settle.changed({ volume: volume.name, path: rename.from }, performance.now(), { isSure: true })
        if (!rename.isRecorded || rename.isDoubted) rescans.add({ path: rename.to, isShallow: false })
        if (rename.isReused) rescans.add({ path: rename.from, isShallow: false })
        rescans.progress()
      }
      settle.found({ volume: volume.name, path: place }, 'event', { answered }, performance.now(), { isUrgent: true })
    }
    lookAt(to)
  }

  /** What is told of while others are looked up waits for them: a program that writes files elsewhere tells of many, and of each several times. */
  #lookUp(inodes: BigUint64Array): void {
    const before = this.#unnamed.size
    for (const inode of inodes) this.#unnamed.add(inode)
    this.#told += this.#unnamed.size - before
    if (!this.#isLookingUp) void this.#takeInodes()
  }

  /** Resolves when the names of what was told of before are known to whoever looks at them, or the signal is given. */
  async lookedUp(signal: AbortSignal): Promise<void> {
    const until = this.#told
    while (this.#lookedUp < until && !signal.aborted) await this.#waiters.wait(signal)
  }

  async #takeInodes(): Promise<void> {
    const { volume, settle, suspects, pursuit } = this.#parts
    this.#isLookingUp = true
    while (this.#unnamed.size > 0) {
      const inodes = [...this.#unnamed.values().take(LOOKED_UP_MAX)]
      for (const inode of inodes) this.#unnamed.delete(inode)
      for (const path of await currentNames(this.#parts, volume.name, inodes)) {
        suspects.told({ volume: volume.name, path })
        settle.changed({ volume: volume.name, path }, performance.now(), { isSure: true })
      }
      pursuit.wake()
      this.#lookedUp += inodes.length
      // Whoever waits for what was told of until now does not wait for what is told of meanwhile.
      this.#waiters.wake()
    }
    this.#isLookingUp = false
  }
}
