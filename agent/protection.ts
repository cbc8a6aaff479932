/**
 * The agent's parts for the life of one epoch: opened in order, run together, closed in reverse.
 *
 * Order at open: the epoch's number, the journal, the state (folded up to the journal's head), the content that unacknowledged
 * records still need. At a stop: no more events, what is dirty is captured and journalled, acks are awaited for a while.
 * Invariant: nothing is captured before the state stands at the journal's head. It prevents a restarted agent from comparing
 * the disk with a past that it has already reported on. A journal that cannot go on ends this life, and a new epoch begins.
 */
import { join } from 'node:path'
import { HybridClock, millisecondsOf, startOfMillisecond, systemClock } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { byteString, type Label, showPath } from '../shared/path.ts'
import type { Change } from '../shared/record.ts'
import type { ChainHead } from '../shared/wire.ts'
import { Ballast } from './ballast.ts'
import { Capture } from './capture.ts'
import type { AgentConfig } from './config.ts'
import { type Epoch, epochRecord } from './epoch.ts'
import { fetchChunk } from './fetch.ts'
import { Forecast } from './forecast.ts'
import type { Guard } from './guard.ts'
import { dirtyPathsMax, guardOf } from './guarding.ts'
import { EpochOver } from './handshake.ts'
import { Held } from './held.ts'
import { tlsOptions } from './identity.ts'
import { Journal } from './journal.ts'
import { JournalLag } from './journal-lag.ts'
import { Moves } from './moves.ts'
import { Order } from './order.ts'
import { Pins } from './pins.ts'
import type { Place } from './place.ts'
import { type MarkRecord, prove, setMark } from './proof.ts'
import { Pursuit } from './pursuit.ts'
import { Recorder } from './recorder.ts'
import { Renames } from './renames.ts'
import { replay } from './replay.ts'
import { RottenFiles } from './rotten-files.ts'
import type { SessionParts } from './session.ts'
import { Settle } from './settle.ts'
import { Spool } from './spool.ts'
import { State } from './state.ts'
import type { AgentScanReport } from './status.ts'
import { readTerms, type Terms, writeTerms } from './terms.ts'
import { Thrift } from './thrift.ts'
import { Upkeep } from './upkeep.ts'
import { Uplink } from './uplink.ts'
import { Volume } from './volume.ts'
import { volumeReport } from './volume-report.ts'
import { VolumeRoots } from './volume-roots.ts'
import { allEnded, ended, sleep, Waiters } from './waiting.ts'
import { IgnoreRules, ignoredPaths } from './watch/ignore.ts'
import type { OpenWatcher } from './watch/watcher.ts'

export interface ProtectionOptions {
  readonly stateDir: string
  readonly config: AgentConfig
  readonly epoch: Epoch
  readonly openWatcher: OpenWatcher
  /** Called at a stop, when what was told is journalled as far as time allowed, and before volumes are let go. */
  readonly onDrained: () => Promise<void>
  readonly log: Log
}

/** The first connection is given this long before captures begin without one, and go to the spool. */
const FIRST_ATTEMPT_MS = 2000
/** How long a stop waits for looks under way, and for acks. */
const DRAIN_MS = 5000

export class Protection {
  readonly journal: Journal
  readonly held: Held
  readonly spool: Spool
  readonly settle = new Settle((volume) => this.#guardOf(volume)?.collapsed(), dirtyPathsMax())
  readonly pins = new Pins()
  readonly lag = new JournalLag()
  readonly volumes: ReadonlyMap<Label, Volume>
  readonly uplink: Uplink
  readonly ballast: Ballast
  readonly forecast = new Forecast()
  readonly #options: ProtectionOptions
  readonly #clock: HybridClock
  readonly #state: State
  readonly #capture: Capture
  readonly #recorder: Recorder
  readonly #pursuit: Pursuit
  readonly #guards: readonly Guard[]
  readonly #renames = new Renames()
  readonly #acks = new Waiters()
  readonly #volumesNoted = Promise.withResolvers<void>()
  readonly #watching = new AbortController()
  readonly #running = new AbortController()
  readonly #over = Promise.withResolvers<EpochOver | undefined>()
  #terms: Terms | undefined
  #skewMs = 0

  private constructor(
    options: ProtectionOptions,
    clock: HybridClock,
    opened: { journal: Journal; state: State; spool: Spool; held: Held; ballast: Ballast; terms: Terms | undefined },
  ) {
    const { config, log, stateDir } = options
    this.#options = options
    this.#clock = clock
    this.journal = opened.journal
    this.held = opened.held
    this.spool = opened.spool
    this.ballast = opened.ballast
    this.#state = opened.state
    this.#terms = opened.terms
    const rotten = new RottenFiles(join(stateDir, ROTTEN_FILE))
    this.volumes = new Map(
      config.volume.map(({ name, path, ignore }) => {
        const rules = new IgnoreRules({ paths: ignoredPaths(path, stateDir), patterns: ignore })
        return [name, new Volume(name, byteString(path), rules, rotten)]
      }),
    )
    this.#capture = new Capture(log, () => this.#pursuit.wake())
    const { settle, pins, volumes, journal, held } = this
    const [state, renames] = [this.#state, this.#renames]
    this.#recorder = new Recorder({
      journal,
      state,
      held,
      order: new Order({ volumes, pins, renames }),
      moves: new Moves({
        journal,
        state,
        volumes,
        settle,
        pins,
        renames,
        onMoved: (move) => this.#guardOf(move.volume)?.moved(move),
      }),
      lag: this.lag,
      lookAt: (place) => this.#lookAt(place),
    })
    this.#pursuit = new Pursuit({
      settle,
      pins,
      volumes,
      state,
      renames,
      held,
      log,
      capture: this.#capture,
      recorder: this.#recorder,
      chunkSizes: () => this.#terms?.chunkSizes,
      onReplaced: ({ volume, path }) => this.#guardOf(volume)?.rescanWithin(path),
      onRotten: ({ volume, path }) => log.error('the content of a file decayed on its disk', { volume, path: showPath(path) }),
      onFailure: (error) => this.#fail(error),
    })
    const guarding = {
      config,
      epoch: options.epoch,
      openWatcher: options.openWatcher,
      clock,
      settle,
      pursuit: this.#pursuit,
      state,
      recorder: this.#recorder,
      pins,
      renames,
      roots: new VolumeRoots(join(stateDir, ROOTS_FILE)),
      volumesNoted: this.#volumesNoted.promise,
      lookAt: (place: Place) => this.#lookAt(place),
      log,
      signal: this.#watching.signal,
    }
    this.#guards = config.volume.flatMap((about) => {
      const volume = this.volumes.get(about.name)
      return volume === undefined ? [] : [guardOf(guarding, volume, about)]
    })
    this.uplink = new Uplink({
      url: config.collector,
      tls: () => tlsOptions(stateDir),
      session: this.#sessionParts(),
      onLink: (isUp) => held.setLink(isUp),
      log,
    })
  }

  /** @throws damage: begin a new epoch; locked, io; space, io where the signal is given before a journal that is new can be begun */
  static async open(options: ProtectionOptions, stop: AbortSignal): Promise<Protection> {
    const { stateDir, config, epoch, log } = options
    const clock = new HybridClock(systemClock)
    clock.atLeast(epoch.previousTime)
    await using undo = new AsyncDisposableStack()
    const ballast = Ballast.open(stateDir, log)
    const [makeRoom, isRoomToWrite] = [(): boolean => ballast.release(), (): boolean => ballast.isRoomToWrite]
    const journal = undo.use(
      await Journal.open({ directory: join(stateDir, 'log'), epoch: epoch.epoch, clock, log, makeRoom, isRoomToWrite }),
    )
    if (journal.head.seq === 0) await journal.appendUnless(stop, [epochRecord(config.name, epoch)])
    const state = undo.use(await State.open(join(stateDir, 'state'), epoch.epoch, journal, makeRoom))
    if (state.applied > journal.head.seq)
      throw new PacsimileError('damage', `The journal ends at ${journal.head.seq}, but held ${state.applied} records before`)
    const terms = readTerms(join(stateDir, TERMS_FILE))
    const spool = Spool.open(join(stateDir, 'spool'), config.spool.quotaBytes, log)
    undo.defer(() => spool.close())
    const held = new Held(spool)
    await replay(journal, state, held, terms === undefined ? 0 : journal.acked(terms.repository).seq)
    const protection = new Protection(options, clock, { journal, state, spool, held, ballast, terms })
    undo.move()
    return protection
  }

  get terms(): Terms | undefined {
    return this.#terms
  }

  get clockSkewMs(): number {
    return this.#skewMs
  }

  /** How far the times of this history are ahead of the clock, because it was set back, in ms. */
  get clockLeadMs(): number {
    return Math.max(0, millisecondsOf(this.#clock.last) - systemClock.now())
  }

  get ackedSeq(): number {
    return this.#terms === undefined ? 0 : this.journal.acked(this.#terms.repository).seq
  }

  #guardOf(volume: Label): Guard | undefined {
    return this.#guards.find((guard) => guard.volume.name === volume)
  }

  #lookAt(place: Place): void {
    this.settle.found(place, 'event', { answered() {} }, performance.now(), { isUrgent: true })
    this.#pursuit.wake()
  }

  #sessionParts(): SessionParts {
    const { journal, held, volumes } = this
    return {
      agent: this.#options.config.name,
      journal,
      clock: this.#clock,
      read: async (source) => (await held.read(source.chunk.digest)) ?? (await fetchChunk(this.#capture, volumes, source)),
      declareLost: async (versions) => {
        await this.#recorder.note(versions.map(({ volume, path, seq }): Change => ({ kind: 'lost', volume, path, lostSeq: seq })))
        this.#options.log.error('content changed before it could be delivered, and is lost', { versions: versions.length })
        for (const place of versions) this.#lookAt(place)
      },
      onWelcome: ({ repository, chunkSizes }, leadMs) => {
        this.#skewMs = leadMs
        if (Math.abs(leadMs) > SKEW_MS_MAX) this.#options.log.warn('the clocks of agent and collector differ', { collectorAheadMs: leadMs })
        this.#takeTerms({ repository, chunkSizes })
      },
      onAck: (repository, head) => this.#takeAck(repository, head),
      prove: async (volume) => void (await prove(this.#guards, volume)),
      setMark: (volume, name) => this.setMark(volume, name),
      report: () => this.#report(),
    }
  }

  #takeTerms(terms: Terms): void {
    if (JSON.stringify(terms) !== JSON.stringify(this.#terms)) writeTerms(join(this.#options.stateDir, TERMS_FILE), terms)
    this.#terms = terms
    this.#pursuit.wake()
  }

  #takeAck(repository: string, head: ChainHead): void {
    this.journal.ack(repository, head)
    this.held.release(head.seq)
    this.#acks.wake()
    this.#pursuit.wake()
  }

  /** Resolves when all volumes have been scanned. @throws incomplete */
  scan(isDeep: boolean): Promise<AgentScanReport[]> {
    return Promise.all(this.#guards.map((guard) => guard.scan(isDeep)))
  }

  /** One in each volume, or in the one that is named, behind everything that changed before. @throws incomplete, not-found */
  setMark(volume: string, name: Label): Promise<readonly MarkRecord[]> {
    return setMark(this.#guards, this.#recorder, volume, name)
  }

  #report(): ReturnType<SessionParts['report']> {
    const { journal, spool, volumes } = this
    const covered = [...volumes.values()].map(({ name, coveredMs }) => {
      const recorded = this.#state.facts(name)?.coveredUntil ?? NEVER
      const proven = coveredMs === undefined ? NEVER : startOfMillisecond(coveredMs)
      return proven > recorded ? proven : recorded
    })
    return {
      until: covered.reduce((earliest, time) => (time < earliest ? time : earliest)),
      head: journal.head.seq,
      pending: journal.head.seq - this.ackedSeq,
      spoolBytes: spool.bytes,
      volumes: [...volumes.values()].map(volumeReport),
    }
  }

  #fail(error: unknown): void {
    if (this.#running.signal.aborted) return
    if (error instanceof EpochOver) this.#over.resolve(error)
    else if (error instanceof PacsimileError && error.code === 'damage')
      this.#over.resolve(new EpochOver('damaged', this.journal.epoch, error.message))
    else this.#over.reject(error)
  }

  /**
   * Until `stop` is given and what was noticed is delivered.
   * @returns the end of the epoch, if that is why @throws what made it impossible to go on
   */
  async run(stop: AbortSignal): Promise<EpochOver | undefined> {
    const { signal } = this.#running
    const upkeep = new Upkeep({
      protection: this,
      state: this.#state,
      clock: this.#clock,
      ballast: this.ballast,
      forecast: this.forecast,
      thrift: new Thrift(byteString(this.#options.stateDir)),
      note: (changes) => this.#recorder.note(changes),
      repair: (gap) => {
        for (const guard of this.#guards) guard.repair(gap)
      },
      rescan: () => {
        for (const guard of this.#guards) guard.rescan()
      },
      onFailure: (error) => this.#fail(error),
      log: this.#options.log,
    })
    const guarding = this.#guards.map((guard) => guard.run())
    const running = [this.#start(signal), upkeep.run(signal), ...guarding]
    for (const part of running) part.catch((error: unknown) => this.#fail(error))
    const stopped = new Promise<undefined>((resolve) => {
      if (stop.aborted) resolve(undefined)
      stop.addEventListener('abort', () => resolve(undefined), { once: true })
    })
    try {
      const over = await Promise.race([this.#over.promise, stopped])
      if (over === undefined) await this.#drain(guarding)
      return over
    } finally {
      this.#watching.abort()
      this.#running.abort()
      await allEnded(running, () => this.journal.closeIfFailed())
    }
  }

  async #start(signal: AbortSignal): Promise<void> {
    await this.#recorder.note(this.#volumeRecords())
    this.#volumesNoted.resolve()
    await Promise.all(this.#guards.map((guard) => guard.hasLooked))
    const connecting = this.uplink.run(signal)
    await Promise.race([connecting, this.uplink.firstAttempt(FIRST_ATTEMPT_MS, signal)])
    await Promise.all([connecting, this.#pursuit.run(signal)])
  }

  /** Volumes of which the journal does not speak yet, or with another directory. How they are watched is said when it is known. */
  #volumeRecords(): Change[] {
    return [...this.volumes.values()].flatMap(({ name, directory, mode }): Change[] => {
      const facts = this.#state.facts(name)
      return facts?.root === directory ? [] : [{ kind: 'volume', volume: name, root: directory, mode: facts?.mode ?? mode }]
    })
  }

  /** What is not done in time stays with the descriptors that outlive this process, or is found by the next start's scan. */
  async #drain(guarding: readonly Promise<void>[]): Promise<void> {
    const limit = AbortSignal.timeout(DRAIN_MS)
    await ended(
      this.#guards.map((guard) => guard.drain(limit)),
      limit,
    )
    await ended([this.#options.onDrained()], limit)
    await ended(
      this.#guards.map((guard) => guard.finishVersions(limit)),
      limit,
    )
    this.#watching.abort()
    await ended(guarding, limit)
    // Of a completely watched volume nothing new can be recorded when nothing is read: the next process hears of it again.
    if ([...this.volumes.values()].some(({ mode }) => mode !== 'complete')) await this.#pursuit.drained(limit)
    while (this.ackedSeq < this.journal.head.seq && this.uplink.status.state === 'up' && !limit.aborted) {
      await Promise.race([this.#acks.wait(limit), sleep(100, limit)])
    }
  }

  async close(): Promise<void> {
    await this.#capture.close()
    await this.journal.closeIfFailed()
    await this.#recorder.close()
    await this.#state.close()
    await this.journal.close()
    await this.spool.close()
    await this.ballast.close()
  }
}

const TERMS_FILE = 'collector.json'
const ROOTS_FILE = 'roots.json'
const ROTTEN_FILE = 'rotten.json'
const SKEW_MS_MAX = 1000
const NEVER = new HybridClock(systemClock).last
