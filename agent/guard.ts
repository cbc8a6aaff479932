/**
 * Keeps one volume protected: waits for its directory, watches it, scans it, and says in the journal what that is worth.
 *
 * Order: watch, then scan, then follow the events that came meanwhile; so no change falls between. A scan's own records
 * come first, then the sweep of an epoch's first scan, then the gaps that it closes, then coverage.
 * Invariant: while the directory is missing, or another one is in its place, nothing is concluded; when it is back, a full
 * scan repairs the state and a gap says what may be unknown. It prevents an unmounted disk from being taken for a deletion.
 */
import { statSync } from 'node:fs'
import type { HybridClock, HybridTime } from '../shared/clock.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { parentOf, pathBuffer, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import { rootProblem } from './ancestry.ts'
import { absolutePath, type VolumeRoot } from './file-stat.ts'
import type { Pursuit } from './pursuit.ts'
import type { Recorder } from './recorder.ts'
import { Rescans } from './rescans.ts'
import { RootLost, ScanThread } from './scan-threads.ts'
import type { Scanned, Scanner } from './scanner.ts'
import type { Settle } from './settle.ts'
import type { State } from './state.ts'
import type { Volume } from './volume.ts'
import { Alarm, sleep } from './waiting.ts'
import type { OpenWatcher, WatchEvent, Watcher } from './watch/watcher.ts'

export interface GuardParts {
  readonly volume: Volume
  /** The inode that the administrator confirmed, where the directory is another one than before. */
  readonly acceptInode: number | undefined
  readonly everyMs: number
  /** A gap that the first scan closes, such as the time in which the agent was not running. */
  readonly gap: OpenGap | undefined
  readonly openWatcher: OpenWatcher
  readonly settle: Settle
  readonly pursuit: Pursuit
  readonly scanner: Scanner
  readonly recorder: Recorder
  readonly state: State
  readonly clock: HybridClock
  readonly log: Log
  readonly signal: AbortSignal
}

export interface OpenGap {
  readonly from: HybridTime
  readonly cause: string
}

interface Proof {
  readonly resolve: () => void
  readonly reject: (error: PacsimileError) => void
}

/** Pause before a missing directory is looked for again, and between two looks whether it is still there. */
const ROOT_POLL_MS = 1000
/** Pause before a watcher that failed is begun again. */
const WATCHER_RETRY_MS = 1000
/** Scans take at most this share of the time: after one comes this many times its duration of rest. */
const SCAN_REST = 19
/** Coverage is recorded this often while nothing changes. */
const COVERAGE_MS = 60_000

export class Guard {
  readonly #parts: GuardParts
  readonly #scans = new ScanThread()
  readonly #rescanThread = new ScanThread()
  readonly #rescans = new Rescans()
  readonly #scanAlarm = new Alarm()
  readonly #rescanAlarm = new Alarm()
  readonly #looked = Promise.withResolvers<void>()
  #proofs: Proof[] = []
  #gaps: OpenGap[]
  #isScanWanted = false
  #coveredMs = 0

  constructor(parts: GuardParts) {
    this.#parts = parts
    this.#gaps = parts.gap === undefined ? [] : [parts.gap]
  }

  get volume(): Volume {
    return this.#parts.volume
  }

  /** Resolves when the volume's directory has been looked for once, found or not. */
  get hasLooked(): Promise<void> {
    return this.#looked.promise
  }

  /** Ends when the signal is given. */
  async run(): Promise<void> {
    const { volume, log, signal } = this.#parts
    while (!signal.aborted) {
      const root = await this.#findRoot()
      if (root === undefined) break
      try {
        await this.#protect(root)
      } catch (error) {
        log.error('protecting a volume failed; it is begun again', { volume: volume.name, reason: reasonOf(error) })
        volume.lose(reasonOf(error))
      }
      if (signal.aborted) break
      this.#owe('the volume was not watched')
      log.warn('a volume is paused', { volume: volume.name, reason: volume.reason })
      this.#refuseProofs()
      await sleep(WATCHER_RETRY_MS, signal)
    }
    this.#looked.resolve()
    this.#refuseProofs()
    await Promise.all([this.#scans.close(), this.#rescanThread.close()])
  }

  /** Resolves when everything that changed before this call is journalled. @throws incomplete */
  prove(): Promise<void> {
    const { volume } = this.#parts
    if (volume.phase === 'paused') return Promise.reject(pausedError(volume))
    return new Promise((resolve, reject) => {
      this.#proofs.push({ resolve, reject })
      this.#scanAlarm.ring()
    })
  }

  /** A full scan is to close a gap that is open since `from`. */
  repair(gap: OpenGap): void {
    this.#gaps.push(gap)
    this.#isScanWanted = true
    this.#scanAlarm.ring()
  }

  #owe(cause: string): void {
    const from = this.#parts.state.facts(this.volume.name)?.coveredUntil
    if (from !== undefined && !this.#gaps.some((gap) => gap.cause === cause)) this.#gaps.push({ from, cause })
  }

  #refuseProofs(): void {
    for (const { reject } of this.#proofs.splice(0)) reject(pausedError(this.volume))
  }

  /** Waits until the volume's directory is there and is the one that it was. */
  async #findRoot(): Promise<VolumeRoot | undefined> {
    const { volume, log, signal } = this.#parts
    let told: string | undefined
    while (!signal.aborted) {
      const found = await this.#lookForRoot()
      if (typeof found !== 'string') return found
      volume.reason = found
      if (told !== found) log.error('a volume cannot be protected', { volume: volume.name, reason: found })
      told = found
      this.#looked.resolve()
      this.#refuseProofs()
      await sleep(ROOT_POLL_MS, signal)
    }
    return undefined
  }

  async #lookForRoot(): Promise<VolumeRoot | string> {
    const { volume, state, acceptInode } = this.#parts
    const shown = showPath(volume.directory)
    try {
      const stats = statSync(pathBuffer(absolutePath(volume.directory, ROOT)), { bigint: true, throwIfNoEntry: false })
      if (stats === undefined) return `${shown} does not exist`
      if (!stats.isDirectory()) return `${shown} is not a directory`
      const known = await state.at({ volume: volume.name, path: ROOT })
      if (known === undefined || known.version.inode === stats.ino || acceptInode === Number(stats.ino)) {
        return { directory: volume.directory, device: stats.dev, inode: stats.ino }
      }
      return `${shown} is another directory than before (inode ${stats.ino}, was ${known.version.inode}): mount its disk, or confirm it with acceptInode = ${stats.ino} in agent.toml`
    } catch (error) {
      return `${shown} cannot be read: ${reasonOf(error)}`
    }
  }

  /** Until the root is lost, the watcher fails or the signal is given. */
  async #protect(root: VolumeRoot): Promise<void> {
    const { volume, openWatcher, signal: outer, log } = this.#parts
    const lost = new AbortController()
    const signal = AbortSignal.any([outer, lost.signal])
    volume.begin(root, () => lost.abort())
    this.#looked.resolve()
    await using watcher = await openWatcher(
      { directory: Buffer.from(volume.directory, 'latin1').toString('utf8'), ignored: volume.ignored },
      signal,
    )
    if (signal.aborted) return
    volume.mode = watcher.mode
    volume.reason = watcher.reason
    log.info('watching a volume', { volume: volume.name, directory: showPath(volume.directory), mode: watcher.mode })
    const end = (reason: string): void => volume.lose(reason)
    const parts = [this.#follow(watcher, signal), this.#runRescans(signal), this.#runScans(watcher, signal), this.#watchRoot(root, signal)]
    await Promise.all(parts.map((part) => part.catch((error: unknown) => end(reasonOf(error)))))
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
        for (const event of events) this.#take(event)
        this.#parts.pursuit.wake()
      }
    } finally {
      signal.removeEventListener('abort', close)
    }
  }

  #take(event: WatchEvent): void {
    const { volume, settle } = this.#parts
    if (volume.isIgnored(event.path)) return
    if (event.kind === 'rescan') {
      this.#rescans.add(event)
      this.#rescanAlarm.ring()
      return
    }
    const nowMs = performance.now()
    const parent = parentOf(event.path)
    const isKept =
      settle.changed({ volume: volume.name, path: event.path }, nowMs) &&
      (parent === undefined || settle.childrenChanged({ volume: volume.name, path: parent }, nowMs))
    if (isKept) return
    settle.collapse(volume.name)
    this.#owe('more changed at once than could be followed')
    this.#isScanWanted = true
    this.#scanAlarm.ring()
  }

  async #runRescans(signal: AbortSignal): Promise<void> {
    const { volume, scanner } = this.#parts
    while (!signal.aborted) {
      const rescan = this.#rescans.take()
      if (rescan === undefined) {
        await this.#rescanAlarm.sleep(undefined, signal)
        continue
      }
      const { newDirectories } = await scanner.scan(volume, { ...rescan, origin: 'event' }, this.#rescanThread, signal)
      for (const path of newDirectories) this.#rescans.add({ path, isShallow: false })
    }
    this.#rescans.clear()
  }

  async #runScans(watcher: Watcher, signal: AbortSignal): Promise<void> {
    const { volume, everyMs, log } = this.#parts
    while (!signal.aborted) {
      const proofs = this.#proofs
      this.#proofs = []
      this.#isScanWanted = false
      volume.beginScan()
      const startedMs = performance.now()
      let scanned: Scanned
      try {
        scanned = await this.#parts.scanner.scan(volume, { path: ROOT, isShallow: false, origin: 'scan' }, this.#scans, signal)
        if (!signal.aborted) await this.#conclude(scanned, watcher)
      } catch (error) {
        this.#proofs.push(...proofs)
        if (error instanceof RootLost) volume.lose(error.message)
        throw error
      }
      if (signal.aborted) {
        this.#proofs.push(...proofs)
        return
      }
      const durationMs = performance.now() - startedMs
      if (volume.lastScan === undefined || scanned.unannounced > 0) {
        log.info('scanned a volume', {
          volume: volume.name,
          durationMs: Math.round(durationMs),
          differences: scanned.differences,
          unannounced: scanned.unannounced,
        })
      }
      volume.noteScan({ endedMs: Date.now(), durationMs, differences: scanned.differences, unannounced: scanned.unannounced })
      this.#answer(proofs)
      await this.#rest(Math.max(everyMs, durationMs * SCAN_REST), signal)
    }
  }

  /** Until the next scan is due or wanted. */
  async #rest(restMs: number, signal: AbortSignal): Promise<void> {
    const untilMs = performance.now() + restMs
    while (!signal.aborted && this.#proofs.length === 0 && !this.#isScanWanted && performance.now() < untilMs) {
      await this.#scanAlarm.sleep(untilMs - performance.now(), signal)
    }
  }

  /** The scan's differences are recorded; now what follows from it. */
  async #conclude(scanned: Scanned, watcher: Watcher): Promise<void> {
    const { volume, state, recorder, clock } = this.#parts
    volume.endScan(scanned.closed, scanned.foreign)
    const facts = state.facts(volume.name)
    const until = clock.tick()
    const gaps = this.#gaps
    this.#gaps = []
    const changes: Change[] = gaps.map(({ from, cause }) => ({ kind: 'gap', volume: volume.name, from, until, cause }))
    if (facts?.sweepSince !== undefined) changes.unshift({ kind: 'sweep', volume: volume.name, since: facts.sweepSince })
    const isCoverageDue = scanned.differences > 0 || performance.now() - this.#coveredMs > COVERAGE_MS
    if (gaps.length === 0 && (isCoverageDue || facts?.coveredUntil === undefined)) {
      changes.push({ kind: 'coverage', volume: volume.name, from: facts?.coveredUntil ?? until, until, mode: watcher.mode })
    }
    if (changes.length > 0) {
      await recorder.note(changes)
      this.#coveredMs = performance.now()
    }
    volume.gaps += gaps.length
    volume.phase = 'watching'
    volume.reason = watcher.reason
  }

  #answer(proofs: readonly Proof[]): void {
    const { unreadable } = this.volume
    const [first] = unreadable
    for (const { resolve, reject } of proofs) {
      if (first === undefined) resolve()
      else reject(unreadableError(this.volume, first.path, first.reason, unreadable.length))
    }
  }
}

function pausedError(volume: Volume): PacsimileError {
  return new PacsimileError('incomplete', `Volume ${volume.name} is paused: ${volume.reason}`)
}

function unreadableError(volume: Volume, path: RelativePath, reason: string, count: number): PacsimileError {
  return new PacsimileError('incomplete', `Volume ${volume.name}: ${count} paths cannot be read, the first is ${showPath(path)}: ${reason}`)
}
