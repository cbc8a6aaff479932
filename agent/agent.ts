/**
 * The agent as a whole: one life after the other of its protection, a new epoch between two of them, and the socket on which
 * it answers questions.
 *
 * Invariant: an epoch ends only for a reason that is recorded, and its number is durable before the next one begins. It
 * prevents an agent that was set back, copied or damaged from overwriting the history that the collector holds.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { millisecondsOf } from '../shared/clock.ts'
import { asPacsimileError, ERRORS, PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory } from '../shared/files.ts'
import { PATHS_LISTED_MAX, SILENCE_MS_MAX, SPOOL_FULL_SOON_SECONDS } from '../shared/limits.ts'
import { type LocalServer, serveLocal } from '../shared/local-api.ts'
import type { Log } from '../shared/log.ts'
import { label, showPath } from '../shared/path.ts'
import type { AgentConfig } from './config.ts'
import { setAside } from './database.ts'
import type { DescriptorStore } from './descriptor-store.ts'
import { beginEpoch, type Epoch, type EpochEnd, readEpoch } from './epoch.ts'
import type { EpochOver } from './handshake.ts'
import { greatestEpochIn } from './journal.ts'
import { Protection } from './protection.ts'
import type { AgentMark, AgentScanReport, AgentStatus, AgentVolumeStatus } from './status.ts'
import { SUPERVISED } from './supervise.ts'
import type { Volume } from './volume.ts'
import { sleep } from './waiting.ts'
import type { OpenWatcher } from './watch/watcher.ts'
import { Watching } from './watch/watching.ts'

export interface AgentOptions {
  readonly stateDir: string
  readonly config: AgentConfig
  readonly log: Log
  /** What an earlier process left. */
  readonly descriptors: DescriptorStore
  readonly openWatcher?: OpenWatcher
}

/** The socket on which a running agent answers. */
function agentSocket(stateDir: string): string {
  return join(stateDir, 'agent.sock')
}

const MARK = z.object({ name: z.string(), volume: z.string().optional() })
const EPOCH_FILE = 'epoch.json'
const LOG_DIRECTORY = 'log'
/** Pause before a protection that failed begins again. */
const RETRY_MS = 1000
const LOCK_MS_MAX = 3000
const LOCK_POLL_MS = 50

export class Agent {
  readonly #options: AgentOptions
  readonly #startedMs = Date.now()
  readonly #watching: Watching
  #protection: Protection | undefined
  /** Why there is no protection at the moment. */
  #failure: PacsimileError | undefined
  #socket: LocalServer | undefined

  constructor(options: AgentOptions) {
    this.#options = options
    const { config, stateDir, descriptors, log } = options
    this.#watching = new Watching({ choice: config.watch, stateDir, descriptors, log })
  }

  /** Until `stop` is given and what was noticed is delivered. `onReady` is called when protection runs. @throws locked, io */
  async run(stop: AbortSignal, onReady: () => void): Promise<void> {
    makeDirectory(this.#options.stateDir)
    try {
      for (let isOver = false; !isOver; ) isOver = await this.#live(stop, onReady)
    } finally {
      await this.#socket?.close()
      await this.#watching.close()
    }
  }

  /** @returns whether that was the last life */
  async #live(stop: AbortSignal, onReady: () => void): Promise<boolean> {
    const isFirst = this.#protection === undefined
    const protection = await this.#openPatiently(stop)
    if (protection === undefined) return stop.aborted
    this.#protection = protection
    try {
      // The journal's lock is held: only one agent can come here.
      this.#socket ??= await serveLocal(agentSocket(this.#options.stateDir), {
        status: () => Promise.resolve(this.status()),
        scan: (body) => this.#scan(body),
        mark: (body) => this.#mark(body),
      })
      if (isFirst) onReady()
      const over = await protection.run(stop)
      if (over !== undefined) this.#beginAfter(over, protection)
      return over === undefined || stop.aborted
    } catch (error) {
      const failure = asPacsimileError(error, 'Protecting')
      if (!ERRORS[failure.code].retryable || failure.code === 'locked' || stop.aborted) throw failure
      // A full or failing disk: what is durable is the truth, so begin from it again.
      await this.#pauseAfter(failure, stop)
      return stop.aborted
    } finally {
      await protection.close()
    }
  }

  /**
   * Undefined where the disk does not let it: the first time that is an error, later it is tried until it does. A process
   * before this one that is being killed holds its lock a moment longer.
   */
  async #openPatiently(stop: AbortSignal): Promise<Protection | undefined> {
    const isFirst = this.#protection === undefined
    for (const untilMs = performance.now() + LOCK_MS_MAX; ; ) {
      try {
        const protection = await this.#open(stop)
        this.#failure = undefined
        return protection
      } catch (error) {
        const failure = asPacsimileError(error, 'Opening the state of the agent')
        if (failure.code === 'locked' && isFirst && performance.now() < untilMs) {
          await sleep(LOCK_POLL_MS, stop)
          continue
        }
        if (isFirst || !ERRORS[failure.code].retryable || failure.code === 'locked') throw failure
        await this.#pauseAfter(failure, stop)
        return undefined
      }
    }
  }

  async #pauseAfter(failure: PacsimileError, stop: AbortSignal): Promise<void> {
    if (this.#failure?.message !== failure.message)
      this.#options.log.error('protection failed and begins again', { code: failure.code, reason: failure.message })
    this.#failure = failure
    await sleep(RETRY_MS, stop)
  }

  async #open(stop: AbortSignal): Promise<Protection> {
    const { stateDir, config, log, openWatcher } = this.#options
    const options = {
      stateDir,
      config,
      log,
      openWatcher: openWatcher ?? ((request, signal) => this.#watching.watch(request, signal)),
      onDrained: () => this.#watching.end(),
    }
    const epoch = await this.#currentEpoch()
    try {
      return await Protection.open({ ...options, epoch }, stop)
    } catch (error) {
      if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
      log.error('the journal is damaged; a new epoch begins', { reason: error.message, epoch: epoch.epoch })
      setAside(join(stateDir, LOG_DIRECTORY))
      return Protection.open({ ...options, epoch: this.#begin('damaged', epoch.epoch, undefined) }, stop)
    }
  }

  async #currentEpoch(): Promise<Epoch> {
    const { stateDir, log } = this.#options
    const epoch = readEpoch(join(stateDir, EPOCH_FILE))
    if (epoch !== undefined) return epoch
    const found = await this.#greatestEpoch()
    if (found > 0) log.error('the file that names the epoch is lost; a new epoch begins', { found })
    return this.#begin(found > 0 ? 'state-lost' : 'first', found, undefined)
  }

  async #greatestEpoch(): Promise<number> {
    const directory = join(this.#options.stateDir, LOG_DIRECTORY)
    try {
      return await greatestEpochIn(directory)
    } catch (error) {
      if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
      setAside(directory)
      return 1
    }
  }

  #begin(reason: Epoch['reason'], above: number, end: EpochEnd | undefined): Epoch {
    return beginEpoch(join(this.#options.stateDir, EPOCH_FILE), reason, above, end)
  }

  #beginAfter(over: EpochOver, protection: Protection): void {
    const { epoch } = this.#begin(over.reason, over.above, protection.journal.head)
    this.#options.log.error('the journal cannot go on; a new epoch begins with a full scan', {
      reason: over.reason,
      because: reasonOf(over),
      epoch,
    })
  }

  /** Whether every watcher has shown lately that it works. */
  get isAlive(): boolean {
    const volumes = [...(this.#protection?.volumes.values() ?? [])]
    return volumes.every(({ watcher }) => (watcher?.silentMs ?? 0) <= SILENCE_MS_MAX)
  }

  async #scan(body: unknown): Promise<{ readonly volumes: readonly AgentScanReport[] }> {
    if (this.#protection === undefined) throw new PacsimileError('agent-unreachable', 'The agent is starting')
    const isDeep = typeof body === 'object' && body !== null && 'deep' in body && body.deep === true
    return { volumes: await this.#protection.scan(isDeep) }
  }

  async #mark(body: unknown): Promise<{ readonly volumes: readonly AgentMark[] }> {
    if (this.#protection === undefined) throw new PacsimileError('agent-unreachable', 'The agent is starting')
    const { name, volume = '' } = MARK.parse(body)
    const records = await this.#protection.setMark(volume, label(name, 'The mark'))
    return { volumes: records.map(({ volume: of, epoch, seq, time }) => ({ volume: of, epoch, seq, timeMs: millisecondsOf(time) })) }
  }

  status(): AgentStatus {
    const { stateDir, config } = this.#options
    const protection = this.#protection
    if (protection === undefined) throw new PacsimileError('agent-unreachable', 'The agent is starting')
    const { journal, uplink, spool, held, settle, terms, ackedSeq, clockSkewMs } = protection
    const { state, sinceMs, lastError } = uplink.status
    const { fullInSeconds } = protection.forecast
    const journalLag = protection.lag.summary
    return {
      agent: config.name,
      collector: config.collector,
      stateDir,
      pid: process.pid,
      ...(process.env[SUPERVISED] === undefined ? {} : { supervisor: Number(process.env[SUPERVISED]) }),
      startedMs: this.#startedMs,
      link: { state, sinceMs, ...(lastError === undefined ? {} : { lastError }) },
      ...(terms === undefined ? {} : { repository: terms.repository }),
      clockSkewMs,
      epoch: journal.epoch,
      headSeq: journal.head.seq,
      ...(journal.grownMs === undefined ? {} : { headMs: journal.grownMs }),
      ackedSeq,
      pending: journal.head.seq - ackedSeq,
      dirty: settle.size,
      pinned: protection.pins.size,
      heldBytes: held.bytes,
      spoolBytes: spool.bytes,
      spoolQuotaBytes: spool.quotaBytes,
      ...(fullInSeconds === undefined ? {} : { spoolFullInSeconds: fullInSeconds }),
      ...(journalLag === undefined ? {} : { journalLag }),
      alarms: [...(this.#failure === undefined ? [] : [`nothing is protected: ${this.#failure.message}`]), ...alarmsOf(protection)],
      volumes: [...protection.volumes.values()].map((volume) => volumeStatus(volume, this.#failure)),
    }
  }
}

const SKEW_MS_MAX = 1000
const CLOCK_LEAD_MS_MAX = 2000

function alarmsOf({ journal, spool, volumes, clockSkewMs, clockLeadMs, forecast, ballast }: Protection): string[] {
  const alarms: string[] = []
  if (ballast.isBelowFloor) alarms.push('less than 5 % is free on the filesystem of the state directory')
  if (journal.failure !== undefined) alarms.push(`the journal cannot be written: ${journal.failure.message}`)
  if (spool.failure !== undefined) alarms.push(`the spool cannot be written: ${spool.failure.message}`)
  else if (spool.isFull) alarms.push('the spool has no room: content of changing files may be lost until the collector is back')
  else if ((forecast.fullInSeconds ?? Number.POSITIVE_INFINITY) < SPOOL_FULL_SOON_SECONDS)
    alarms.push(`the spool will be full in about ${Math.ceil((forecast.fullInSeconds ?? 0) / 60)} minutes`)
  for (const { name, phase, reason } of volumes.values()) if (phase === 'paused') alarms.push(`volume ${name} is not protected: ${reason}`)
  for (const { name, rotten } of volumes.values())
    if (rotten.length > 0)
      alarms.push(
        `volume ${name}: the content of ${rotten.length} ${rotten.length === 1 ? 'file' : 'files'} is not what was captured, though nothing says that anybody wrote to it: the disk may be failing`,
      )
  for (const { name, watcher } of volumes.values()) {
    const silentMs = watcher?.silentMs ?? 0
    if (silentMs > SILENCE_MS_MAX)
      alarms.push(`volume ${name}: nothing has proven for ${Math.round(silentMs / 1000)} s that its watcher works`)
  }
  if (Math.abs(clockSkewMs) > SKEW_MS_MAX) alarms.push(`the collector's clock is ${clockSkewMs} ms ahead of this host's`)
  if (clockLeadMs > CLOCK_LEAD_MS_MAX) {
    const until = new Date(Date.now() + clockLeadMs).toISOString()
    alarms.push(
      `this host's clock was ahead, or is ${Math.round(clockLeadMs / 1000)} s behind now: until it says ${until}, changes are in their order, but at times after that`,
    )
  }
  return alarms
}

function volumeStatus(volume: Volume, failure: PacsimileError | undefined): AgentVolumeStatus {
  const { name, directory, mode, phase, reason, lastScan, unannounced, gaps, unreadable, foreign } = volume
  return {
    name,
    path: showPath(directory),
    mode,
    state: failure === undefined ? phase : 'paused',
    reason: failure?.message ?? reason,
    ...(lastScan === undefined ? {} : { lastScan }),
    ...(volume.coveredMs === undefined ? {} : { coveredUntilMs: volume.coveredMs }),
    silentMs: Math.round(volume.watcher?.silentMs ?? 0),
    unannounced,
    gaps,
    unreadable: unreadable.map(({ path, reason: why }) => ({ path: showPath(path), reason: why })),
    rotten: volume.rotten.slice(0, PATHS_LISTED_MAX).map(({ path, foundMs }) => ({ path: showPath(path), foundMs })),
    foreign: foreign.map((path) => showPath(path)),
  }
}
