/**
 * The full scans of one volume, one after the other: the first at once, then on a schedule, or sooner when somebody asks.
 *
 * Order: a scan's own records come first, then the sweep of an epoch's first scan, then the gaps that it closes, then, where
 * nothing else proves it, coverage. Invariant: whoever asks for proof is answered by a scan that began after the question, and a gap is closed
 * by one that began after it was opened; what comes during one scan is left to the next. It prevents a proof that rests on a look from before the change.
 */
import { type HybridClock, type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { ROOT } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import type { Recorder } from './recorder.ts'
import { RootLost, ScanThread } from './scan-threads.ts'
import type { Scanned, Scanner } from './scanner.ts'
import type { State } from './state.ts'
import type { AgentScanReport } from './status.ts'
import type { Volume } from './volume.ts'
import { Alarm } from './waiting.ts'
import type { Watcher } from './watch/watcher.ts'

export interface OpenGap {
  readonly from: HybridTime
  readonly cause: string
}

/** What a scan that is still to begin, or to end, is to make good. */
interface Debt {
  readonly gaps: readonly OpenGap[]
  /** Somebody said that something may have changed that no event will tell of again. */
  readonly isWanted: boolean
}

export interface RoundsParts {
  readonly volume: Volume
  /** Between two scans where events may be lost, and where they are not: then a scan finds what makes none, such as stores to a mapping. */
  readonly everyMs: { readonly 'best-effort': number; readonly 'complete': number }
  readonly scanner: Scanner
  readonly recorder: Recorder
  readonly state: State
  readonly clock: HybridClock
  /** Everything is as the journal says, as of the end of a scan. */
  readonly onVerified: () => void
  readonly log: Log
}

/** Whoever waits for a scan that begins after the question. */
interface Proof {
  /** It proves something only if everything could be read. */
  readonly isOfAll: boolean
  readonly resolve: (report: AgentScanReport) => void
  readonly reject: (error: PacsimileError) => void
}

/** Scans take at most 5 % of the time: after one comes this many times its duration of rest. */
const REST = 19
/** Coverage is recorded this often while nothing changes. */
const COVERAGE_MS = 60_000
const NOTHING_OWED: Debt = { gaps: [], isWanted: false }

export class Rounds {
  readonly #parts: RoundsParts
  readonly #thread = new ScanThread()
  readonly #alarm = new Alarm()
  readonly #proofs: Proof[] = []
  readonly #deepThreads = new Set<ScanThread>()
  /** Of the run under way. */
  #running: AbortSignal | undefined
  /** Of the next scan, and of the one under way. */
  #debt = NOTHING_OWED
  #underWay = NOTHING_OWED
  #isScanning = false
  #coveredMs = Number.NEGATIVE_INFINITY

  constructor(parts: RoundsParts) {
    this.#parts = parts
  }

  /** Resolves when everything that changed before this call is journalled. @throws incomplete */
  async prove(): Promise<void> {
    await this.#ask(true)
  }

  /** Resolves with what a scan found that begins after this call. A deep one does not keep others waiting. @throws incomplete */
  scan(isDeep: boolean): Promise<AgentScanReport> {
    return isDeep ? this.#scanDeep() : this.#ask(false)
  }

  #ask(isOfAll: boolean): Promise<AgentScanReport> {
    const { volume } = this.#parts
    if (volume.phase === 'paused') return Promise.reject(pausedError(volume))
    return new Promise((resolve, reject) => {
      this.#proofs.push({ isOfAll, resolve, reject })
      this.#alarm.ring()
    })
  }

  async #scanDeep(): Promise<AgentScanReport> {
    const { volume, scanner } = this.#parts
    const signal = this.#running
    if (signal === undefined || signal.aborted || volume.phase === 'paused') throw pausedError(volume)
    const startedMs = performance.now()
    const thread = new ScanThread()
    this.#deepThreads.add(thread)
    try {
      const scanned = await scanner.scan(volume, { path: ROOT, isShallow: false, origin: 'scan', isDeep: true }, thread, signal)
      if (signal.aborted) throw pausedError(volume)
      return this.#note(scanned, performance.now() - startedMs)
    } catch (error) {
      if (error instanceof RootLost) volume.lose(error.message)
      throw signal.aborted ? pausedError(volume) : error
    } finally {
      this.#deepThreads.delete(thread)
      await thread.close()
    }
  }

  /** The volume is paused: nothing can be proved. */
  refuse(): void {
    for (const { reject } of this.#proofs.splice(0)) reject(pausedError(this.#parts.volume))
  }

  /** Whether a scan is still to say how things stand: events alone prove nothing until then. */
  get isOwing(): boolean {
    return isDebt(this.#debt) || isDebt(this.#underWay) || this.#parts.volume.phase !== 'watching'
  }

  /** Whether a scan of the whole volume is under way. */
  get isScanning(): boolean {
    return this.#isScanning
  }

  /** The next scan closes this gap. */
  owe(gap: OpenGap): void {
    this.#parts.volume.watcher?.doubted()
    const { gaps, isWanted } = this.#debt
    if (!gaps.some(({ cause }) => cause === gap.cause)) this.#debt = { gaps: [...gaps, gap], isWanted }
  }

  /** Scan as soon as possible: until then events prove nothing, and a restart must scan. */
  want(): void {
    this.#parts.volume.watcher?.doubted()
    this.#debt = { gaps: this.#debt.gaps, isWanted: true }
    this.#alarm.ring()
  }

  /** Until the signal is given. @throws RootLost, and what stands in the way of a scan */
  async run(watcher: Watcher, signal: AbortSignal): Promise<void> {
    const { volume, everyMs, state } = this.#parts
    this.#running = signal
    const rest = (walkMs: number): Promise<void> => this.#rest(Math.max(everyMs[watcher.mode], walkMs * REST), signal)
    const facts = state.facts(volume.name)
    const isVerified = watcher.isContinuous && facts?.coveredUntil !== undefined && facts.sweepSince === undefined && !isDebt(this.#debt)
    if (isVerified) {
      volume.phase = 'watching'
      volume.reason = watcher.reason
      await rest(0)
    }
    while (!signal.aborted) await rest(await this.#scan(watcher, signal))
  }

  /** @returns what the walk took, in ms */
  async #scan(watcher: Watcher, signal: AbortSignal): Promise<number> {
    const { volume, scanner } = this.#parts
    const proofs = this.#proofs.splice(0)
    this.#underWay = this.#debt
    this.#debt = NOTHING_OWED
    volume.beginScan()
    this.#isScanning = true
    const startedMs = performance.now()
    try {
      const scanned = await scanner.scan(volume, { path: ROOT, isShallow: false, origin: 'scan' }, this.#thread, signal)
      if (signal.aborted) return 0
      await this.#conclude(scanned, watcher)
      this.#answer(proofs.splice(0), this.#note(scanned, performance.now() - startedMs))
      return scanned.walkMs
    } catch (error) {
      if (signal.aborted) return 0
      if (error instanceof RootLost) volume.lose(error.message)
      throw error
    } finally {
      this.#isScanning = false
      this.#proofs.push(...proofs)
      // What a scan that failed was to make good is left to the next one.
      const { gaps, isWanted } = this.#underWay
      this.#debt = { gaps: [...gaps, ...this.#debt.gaps], isWanted: isWanted || this.#debt.isWanted }
      this.#underWay = NOTHING_OWED
    }
  }

  /** Until the next scan is due or wanted. */
  async #rest(restMs: number, signal: AbortSignal): Promise<void> {
    const untilMs = performance.now() + restMs
    while (!signal.aborted && this.#proofs.length === 0 && !this.#debt.isWanted && performance.now() < untilMs) {
      await this.#alarm.sleep(untilMs - performance.now(), signal)
    }
  }

  /** The scan's differences are recorded; now what follows from it. */
  async #conclude(scanned: Scanned, watcher: Watcher): Promise<void> {
    const { volume, state, recorder, clock, onVerified } = this.#parts
    volume.endScan(scanned.closed, scanned.foreign)
    const facts = state.facts(volume.name)
    const until = clock.tick()
    const { gaps } = this.#underWay
    // What is owed since it began may concern what it had passed.
    const isAll = !isDebt(this.#debt)
    const changes: Change[] = gaps.map(({ from, cause }) => ({ kind: 'gap', volume: volume.name, from, until, cause }))
    // What could not be read, or was missed, was not put, and must not be swept away for that.
    if (facts?.sweepSince !== undefined && volume.unreadable.length === 0 && isAll)
      changes.unshift({ kind: 'sweep', volume: volume.name, since: facts.sweepSince })
    const isCoverageDue = scanned.differences > 0 || performance.now() - this.#coveredMs > COVERAGE_MS
    // Between scans a complete watcher is proven by its canary (coverage.ts); a gap says for itself that its end is verified.
    const isProvenOtherwise = watcher.mode === 'complete' && facts?.coveredUntil !== undefined
    if (gaps.length === 0 && isAll && isCoverageDue && !isProvenOtherwise) {
      changes.push({ kind: 'coverage', volume: volume.name, from: facts?.coveredUntil ?? until, until, mode: watcher.mode })
    }
    if (changes.length > 0) {
      await recorder.note(changes)
      this.#coveredMs = performance.now()
    }
    this.#underWay = NOTHING_OWED
    volume.gaps += gaps.length
    volume.phase = 'watching'
    volume.reason = watcher.reason
    if (isDebt(this.#debt)) return
    volume.coveredMs = millisecondsOf(until)
    onVerified()
    if ((await state.rulesOf(volume.name))?.isVerified !== true) await state.verifyRules(volume.name, volume.ignore.text)
  }

  #note({ method, methodReason, entries, differences, unannounced }: Scanned, durationMs: number): AgentScanReport {
    const { volume, log } = this.#parts
    if (volume.lastScan === undefined || unannounced > 0) {
      log.info('scanned a volume', { volume: volume.name, durationMs: Math.round(durationMs), method, entries, differences, unannounced })
    }
    volume.noteScan({ endedMs: Date.now(), durationMs, differences, unannounced })
    return { name: volume.name, method, reason: methodReason, entries, seconds: durationMs / 1000, differences, unannounced }
  }

  #answer(proofs: readonly Proof[], report: AgentScanReport): void {
    const { volume } = this.#parts
    for (const { isOfAll, resolve, reject } of proofs) {
      if (volume.unreadable.length === 0 || !isOfAll) resolve(report)
      else reject(new PacsimileError('incomplete', volume.unreadableText))
    }
  }

  async close(): Promise<void> {
    this.refuse()
    await Promise.all([this.#thread, ...this.#deepThreads].map((thread) => thread.close()))
  }
}

function isDebt({ gaps, isWanted }: Debt): boolean {
  return gaps.length > 0 || isWanted
}

function pausedError(volume: Volume): PacsimileError {
  return new PacsimileError('incomplete', `Volume ${volume.name} is paused: ${volume.reason}`)
}
