/**
 * Keeps one volume protected: waits for its directory, watches it, and has it scanned.
 *
 * Order: watch, then scan, then follow the events that came meanwhile; so no change falls between.
 * Invariant: while the directory is missing, or another one is in its place, nothing is concluded; when it is back, a full
 * scan repairs the state and a gap says what may be unknown. It prevents an unmounted disk from being taken for a deletion.
 */
import { readdirSync, statSync } from 'node:fs'
import { type HybridTime, startOfMillisecond } from '../shared/clock.ts'
import { reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { pathBuffer, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import { rootProblem } from './ancestry.ts'
import type { Coverage } from './coverage.ts'
import { EventIntake } from './event-intake.ts'
import { absolutePath, type VolumeRoot } from './file-stat.ts'
import type { Move } from './moves.ts'
import type { Pins } from './pins.ts'
import type { Pursuit } from './pursuit.ts'
import type { Renames } from './renames.ts'
import type { Rescans } from './rescans.ts'
import type { OpenGap, Rounds } from './rounds.ts'
import { ScanThread } from './scan-threads.ts'
import type { Scanner } from './scanner.ts'
import type { Settle } from './settle.ts'
import type { State } from './state.ts'
import type { AgentScanReport } from './status.ts'
import type { Suspects } from './suspects.ts'
import type { Volume } from './volume.ts'
import { isSameRoot, type RootIdentity, type VolumeRoots } from './volume-roots.ts'
import { sleep } from './waiting.ts'
import type { OpenWatcher, Watcher } from './watch/watcher.ts'

export interface GuardParts {
  readonly volume: Volume
  readonly roots: VolumeRoots
  /** The identity that the administrator confirmed, where the directory is another one than before. */
  readonly acceptRoot: string | undefined
  /** It may be empty though it was not. */
  readonly acceptEmpty: boolean
  readonly openWatcher: OpenWatcher
  /** What the journal does not know of the time before this start, unless watching went on meanwhile. */
  readonly openGap: OpenGap | undefined
  /** Records that the volume is watched as it now is, where the journal does not say so. */
  readonly noteMode: () => Promise<void>
  readonly rounds: Rounds
  readonly coverage: Coverage
  readonly pins: Pins
  readonly renames: Renames
  readonly settle: Settle
  readonly suspects: Suspects
  readonly rescans: Rescans
  readonly pursuit: Pursuit
  readonly scanner: Scanner
  readonly state: State
  readonly log: Log
  readonly signal: AbortSignal
}

/** Pause before a missing directory is looked for again, and between two looks whether it is still there. */
const ROOT_POLL_MS = 1000
/** Pause before a watcher that failed is begun again. */
const RETRY_MS = 1000

export class Guard {
  readonly #parts: GuardParts
  readonly #rescanThread = new ScanThread()
  readonly #intake: EventIntake
  readonly #looked = Promise.withResolvers<void>()
  #hasBegun = false

  constructor(parts: GuardParts) {
    this.#parts = parts
    this.#intake = new EventIntake({
      ...parts,
      owe: (cause) => this.#owe(cause),
      provenUntil: () => this.#coveredUntil(),
    })
  }

  get volume(): Volume {
    return this.#parts.volume
  }

  /** Resolves when the volume's directory has been looked for once, found or not. */
  get hasLooked(): Promise<void> {
    return this.#looked.promise
  }

  /** Resolves when everything that changed before this call is journalled: by events where they prove it, else by a scan. @throws incomplete */
  prove(): Promise<void> {
    const { rounds, coverage, volume } = this.#parts
    return volume.watcher?.mode === 'complete' && !rounds.isOwing ? coverage.prove() : this.proveByScan()
  }

  /** The same, by a scan; what was moved out of its way meanwhile is waited for where it is. @throws incomplete */
  async proveByScan(): Promise<void> {
    const { rounds, rescans, renames, settle, volume, signal } = this.#parts
    const { moves } = settle
    const { recordedCount } = renames
    await rounds.prove()
    const hasMoved = settle.moves !== moves || renames.recordedCount !== recordedCount
    if (hasMoved || renames.has(volume.name) || rescans.isBusy) await this.settled(signal)
  }

  /** Resolves when everything of the volume that waits now has been dealt with. */
  async settled(signal: AbortSignal): Promise<void> {
    const { pursuit, renames, volume } = this.#parts
    await this.#intake.lookedUp(signal)
    await pursuit.settled(volume.name, signal)
    while ((this.#parts.rescans.isBusy || renames.has(volume.name)) && !signal.aborted) {
      await this.#parts.rescans.progressed(signal)
      await pursuit.settled(volume.name, signal)
    }
  }

  /** The journal says that a directory has another name: scans under way look for what is in it under the old one. */
  moved({ from, to, isOver }: Move): void {
    this.#parts.rescans.renamed(from, to)
    if (isOver || this.#parts.rounds.isScanning) this.#parts.rescans.add({ path: to, isShallow: false })
  }

  /** Everything at and below the path is to be compared with what is recorded. */
  rescanWithin(path: RelativePath): void {
    this.#parts.rescans.add({ path, isShallow: false })
  }

  /** At a stop: what was told before is journalled when it resolves, or time is up. */
  async drain(limit: AbortSignal): Promise<void> {
    const { watcher } = this.volume
    if (watcher === undefined) return
    await watcher.fence()
    const mark = watcher.mark()
    await this.settled(limit)
    if (!limit.aborted) watcher.settled(mark)
  }

  /** At a stop, when nothing is read any more: the versions in hand are recorded when it resolves, or time is up. */
  async finishVersions(limit: AbortSignal): Promise<void> {
    const { pins, pursuit, volume } = this.#parts
    await volume.watcher?.fence()
    pursuit.wake()
    await pins.settled(volume.name, limit)
  }

  /** Resolves with what a full scan found that begins after this call. @throws incomplete */
  scan(isDeep: boolean): Promise<AgentScanReport> {
    return this.#parts.rounds.scan(isDeep)
  }

  /** A full scan is to close a gap that is open since `gap.from`. */
  repair(gap: OpenGap): void {
    this.#parts.rounds.owe(gap)
    this.#parts.rounds.want()
  }

  /** More waited at once than can be followed one by one, and was forgotten: a full scan finds it. */
  collapsed(): void {
    const { volume, rounds, suspects, log } = this.#parts
    log.warn('more paths changed than can be followed one by one: the volume is scanned', { volume: volume.name })
    // Where closed versions are held open none is lost by looking at the paths later.
    if (volume.mode !== 'complete') this.#owe('more changed at once than could be followed')
    rounds.want()
    const isScanned = suspects.allTold()
    void rounds.scan(false).then(isScanned, isScanned)
  }

  /** A full scan, as soon as possible. */
  rescan(): void {
    this.#parts.rounds.want()
  }

  /** Ends when the signal is given. */
  async run(): Promise<void> {
    const { volume, rounds, coverage, log, signal } = this.#parts
    while (!signal.aborted) {
      const root = await this.#findRoot()
      if (root === undefined) break
      try {
        await this.#protect(root)
      } catch (error) {
        volume.lose(reasonOf(error))
      }
      this.#abandon()
      if (signal.aborted) break
      this.#owe('the volume was not watched')
      log.warn('a volume is paused', { volume: volume.name, reason: volume.reason })
      rounds.refuse()
      coverage.refuse(`Volume ${volume.name} is paused: ${volume.reason}`)
      await sleep(RETRY_MS, signal)
    }
    this.#looked.resolve()
    await Promise.all([rounds.close(), this.#rescanThread.close()])
  }

  /** A gap from the last moment at which watching was proven. */
  #owe(cause: string): void {
    const from = this.#coveredUntil()
    if (from !== undefined) this.#parts.rounds.owe({ from, cause })
  }

  #coveredUntil(): HybridTime | undefined {
    const recorded = this.#parts.state.facts(this.volume.name)?.coveredUntil
    const { coveredMs } = this.volume
    if (recorded === undefined || coveredMs === undefined) return recorded
    const proven = startOfMillisecond(coveredMs)
    return proven > recorded ? proven : recorded
  }

  /** What the watcher told of a volume that is not there any more leads nowhere. */
  #abandon(): void {
    const { volume, pins, renames, pursuit } = this.#parts
    pins.abandon(volume.name)
    renames.abandon(volume.name)
    // Looks waited for those versions.
    pursuit.wake()
  }

  /** Waits until the volume's directory is there and is the one that it was. */
  async #findRoot(): Promise<VolumeRoot | undefined> {
    const { volume, rounds, log, signal } = this.#parts
    let told: string | undefined
    while (!signal.aborted) {
      const found = await this.#lookForRoot()
      if (typeof found !== 'string') return found
      volume.reason = found
      if (told !== found) log.error('a volume cannot be protected', { volume: volume.name, reason: found })
      told = found
      this.#looked.resolve()
      rounds.refuse()
      await sleep(ROOT_POLL_MS, signal)
    }
    return undefined
  }

  /** The directory, or why it is not to be taken. */
  async #lookForRoot(): Promise<VolumeRoot | string> {
    const { volume, roots, acceptRoot, acceptEmpty } = this.#parts
    const shown = showPath(volume.directory)
    const at = pathBuffer(absolutePath(volume.directory, ROOT))
    try {
      const stats = statSync(at, { bigint: true, throwIfNoEntry: false })
      if (stats === undefined) return `${shown} does not exist`
      if (!stats.isDirectory()) return `${shown} is not a directory`
      const now = { inode: stats.ino, birthNs: stats.birthtimeNs > 0n ? stats.birthtimeNs : 0n }
      const name = `${now.inode}-${now.birthNs}`
      if (!(await this.#isTheVolume(now)) && acceptRoot !== name)
        return `${shown} is another directory than before: mount its disk, or confirm this one with acceptRoot = "${name}" in agent.toml`
      if (!acceptEmpty && (await this.#heldSomething()) && readdirSync(at).length === 0)
        return `${shown} is empty, and was not: mount its disk, or confirm that it may be empty with acceptEmpty = true in agent.toml`
      roots.note(volume.name, now)
      return { directory: volume.directory, device: stats.dev, inode: stats.ino }
    } catch (error) {
      return `${shown} cannot be read: ${reasonOf(error)}`
    }
  }

  /** What was noted; where nothing was, the root that the journal knows. */
  async #isTheVolume(now: RootIdentity): Promise<boolean> {
    const { volume, roots, state } = this.#parts
    const noted = roots.of(volume.name)
    if (noted !== undefined) return isSameRoot(noted, now)
    const known = await state.at({ volume: volume.name, path: ROOT })
    return known === undefined || known.version.inode === now.inode
  }

  async #heldSomething(): Promise<boolean> {
    const { volume, state } = this.#parts
    return (await state.page(volume.name, ROOT, undefined, 2)).length > 1
  }

  /** Until the root is lost, the watcher fails or the signal is given. */
  async #protect(root: VolumeRoot): Promise<void> {
    const { volume, rounds, coverage, openWatcher, log } = this.#parts
    const lost = new AbortController()
    const signal = AbortSignal.any([this.#parts.signal, lost.signal])
    volume.begin(root, () => lost.abort())
    this.#looked.resolve()
    const directory = Buffer.from(volume.directory, 'latin1').toString('utf8')
    await using watcher = await openWatcher(
      { volume: volume.name, directory, ignored: volume.ignore.paths, ignorePatterns: volume.ignore.patterns },
      signal,
    )
    if (signal.aborted) return
    volume.watcher = watcher
    volume.mode = watcher.mode
    volume.reason = watcher.reason
    log.info('watching a volume', {
      volume: volume.name,
      directory: showPath(volume.directory),
      mode: watcher.mode,
      ...(watcher.reason === '' ? {} : { reason: watcher.reason }),
      continuous: watcher.isContinuous,
    })
    await this.#begin(watcher)
    if (signal.aborted) return
    const parts = [
      this.#follow(watcher, signal),
      this.#runRescans(signal),
      rounds.run(watcher, signal),
      coverage.run(watcher, signal),
      this.#watchRoot(root, signal),
    ]
    // The first part that fails ends the others.
    const failed = (error: unknown): void => {
      if (!signal.aborted) volume.lose(reasonOf(error))
    }
    await Promise.all(parts.map((part) => part.catch(failed)))
  }

  /** The journal says how the volume is watched, and what was missed before. */
  async #begin(watcher: Watcher): Promise<void> {
    const { openGap, rounds, noteMode } = this.#parts
    await noteMode()
    if (!this.#hasBegun && openGap !== undefined && !watcher.isContinuous) rounds.owe(openGap)
    this.#hasBegun = true
    await this.#requireRules()
  }

  /** What rules left out that do not hold any more is told of by no event, and scans have seen all that they left. */
  async #requireRules(): Promise<void> {
    const { volume, rounds, state } = this.#parts
    const { text } = volume.ignore
    const before = await state.rulesOf(volume.name)
    if (before?.rules === text && before.isVerified) return
    rounds.want()
    // What a scan under these has seen that was cut short is of use to the next.
    if (before?.rules !== text) await state.beginRules(volume.name, text)
  }

  async #watchRoot(root: VolumeRoot, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const problem = rootProblem(root)
      if (problem !== undefined) this.volume.lose(problem)
      await sleep(ROOT_POLL_MS, signal)
    }
  }

  async #follow(watcher: Watcher, signal: AbortSignal): Promise<void> {
    const close = (): void => void watcher.close()
    signal.addEventListener('abort', close, { once: true })
    try {
      for await (const events of watcher.events()) {
        for (const event of events) this.#intake.take(event)
        this.#parts.pursuit.wake()
      }
    } finally {
      signal.removeEventListener('abort', close)
      // Whoever waits for what it still has to hand on would do so for ever.
      await watcher.close()
    }
  }

  async #runRescans(signal: AbortSignal): Promise<void> {
    const { volume, scanner } = this.#parts
    while (!signal.aborted) {
      const rescan = this.#parts.rescans.take()
      if (rescan === undefined) {
        await this.#parts.rescans.added(signal)
        continue
      }
      const { newDirectories } = await scanner.scan(volume, { ...rescan, origin: 'event' }, this.#rescanThread, signal)
      for (const path of newDirectories) this.#parts.rescans.add({ path, isShallow: false })
      this.#parts.rescans.done()
    }
    this.#parts.rescans.clear()
  }
}
