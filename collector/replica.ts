/**
 * The live replica: plain files that follow the journal with their own durable cursor.
 *
 * Each round takes the records since the cursor, and makes every path that they touched what the newest tree says. So a
 * path that changed five times is written once, and a round that a crash cut short is simply done again.
 * Invariant: the replica is the fold of the journal up to the cursor, for every path that could be written; what could
 * not is listed. It prevents a stand-in that silently lacks files on the day it is needed.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { makeDirectory } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position, type RecordSummary } from '../shared/record.ts'
import { type AgentReplica, agentReplica } from './agent-replica.ts'
import { branchesDirectory } from './branch.ts'
import type { MassChange } from './breaker.ts'
import type { Catalog } from './catalog.ts'
import type { DriftWork } from './drift.ts'
import { Follow } from './follow.ts'
import type { History } from './history.ts'
import { Materializer } from './materialize.ts'
import { ReplicaCursor } from './replica-cursor.ts'
import { ReplicaJudge } from './replica-judge.ts'
import type { ReplicaParts } from './replica-parts.ts'
import { ReplicaProblems } from './replica-problems.ts'
import { ReplicaStandings, type Standing } from './replica-standing.ts'
import { ReplicaSync } from './replica-sync.ts'
import { ReplicaVolume, type ReplicaVolumeParts } from './replica-volume.ts'
import { RoundGap } from './round-gap.ts'
import { StoppedVolume } from './stopped-volume.ts'
import { StoppedVolumes } from './stopped-volumes.ts'

/** Records taken in one round. */
const ROUND_RECORDS = 2000
/** The event loop is let go at least this often while files are written. */
const SLICE_MS = 20
/** What could not be written is tried again. */
const RETRY_PROBLEMS_MS = 60_000
const RETRY_MS = 5000

export class Replica {
  readonly directory: string
  readonly #catalog: Catalog
  readonly #history: History
  readonly #log: Log
  readonly #special: boolean
  readonly #cursor: ReplicaCursor
  readonly #standings: ReplicaStandings
  readonly #judge: ReplicaJudge | undefined
  readonly #stopped: StoppedVolumes
  readonly #sync: ReplicaSync
  /** Between two rounds: where something is done that must not meet one half way. */
  readonly gap: RoundGap
  readonly #agents = new Map<Label, AgentReplica>()
  readonly #problems = new ReplicaProblems()
  readonly #changes = new Follow()
  readonly progress = new Follow()
  readonly isKept: ReplicaParts['isKept']
  /** Whoever looks for what others wrote. */
  drift: DriftWork | undefined
  #dirty = new Set<Label>()
  #sliceStart = 0
  #stop: AbortSignal | undefined

  constructor(parts: ReplicaParts) {
    this.directory = parts.directory
    this.#catalog = parts.catalog
    this.#history = parts.history
    this.#log = parts.log
    this.#special = parts.special
    this.isKept = parts.isKept
    makeDirectory(parts.directory)
    this.#cursor = new ReplicaCursor(parts.directory)
    this.#standings = new ReplicaStandings(parts.directory)
    this.#sync = new ReplicaSync({
      agents: this.#agents,
      cursor: this.#cursor,
      problems: this.#problems,
      log: parts.log,
      onLoss: () => this.hint(this.#agents.keys()),
      onEnd: () => this.#changes.signal(),
    })
    this.gap = new RoundGap(() => this.#changes.signal())
    this.#stopped = new StoppedVolumes({
      standings: this.#standings,
      log: parts.log,
      open: (agent, volume) => this.#openStopped(agent, volume),
      isKnown: (agent) => this.#agents.get(agent)?.needsWhole === false,
      onEnd: () => this.progress.signal(),
    })
    const { rule, catalog, history } = parts
    this.#judge =
      rule === undefined
        ? undefined
        : new ReplicaJudge({ catalog, history, standings: this.#standings, rule, breathe: () => this.#breathe() })
  }

  pathOf(agent: Label, volume: Label): string {
    return join(this.directory, agent, volume)
  }

  applied(agent: Label): Position {
    return this.#agents.get(agent)?.applied ?? this.#cursor.read(agent) ?? BEFORE_ALL
  }

  standing(agent: Label, volume: Label): Standing {
    return this.#standings.of(agent, volume)
  }

  problems(agent: Label, volume: Label): ReadonlyMap<RelativePath, string> {
    return this.#problems.of(agent, volume)
  }

  /** Something of these agents was committed. */
  hint(agents: Iterable<Label>): void {
    for (const agent of agents) this.#dirty.add(agent)
    this.#changes.signal()
  }

  /**
   * Changes how a volume stands as `decide` says of how it does, undefined for not at all, and begins with what is to be done then. Only
   * between two rounds. @throws what `decide` throws
   */
  async stand(agent: Label, volume: Label, decide: (standing: Standing) => Partial<Standing> | undefined): Promise<void> {
    // What is in the files is durable before it is said where they are.
    await this.#sync.flush()
    const change = decide(this.#standings.of(agent, volume))
    if (change === undefined) return
    this.#standings.set(agent, volume, change)
    if (change.accepted !== undefined || change.stop?.clean !== undefined) this.#judge?.forget(agent, volume)
    if (change.stop !== undefined) {
      const volumes = this.#agents.get(agent)?.volumes
      volumes?.get(volume)?.close()
      volumes?.delete(volume)
    }
    if (this.#stop !== undefined) this.#stopped.wake(agent, volume, this.#stop)
    this.progress.signal()
  }

  /** Follows until the signal is given; then makes the cursors durable. */
  async run(signal: AbortSignal): Promise<void> {
    this.#stop = signal
    this.hint(await this.#catalog.agents())
    let triedMs = performance.now()
    while (!signal.aborted) {
      await this.gap.open()
      const agents = this.#dirty
      this.#dirty = new Set()
      for (const agent of agents) {
        const isDone = await this.#attempt(agent, async () => !(await this.#round(agent)))
        if (!isDone) this.#dirty.add(agent)
      }
      await this.#sync.pass()
      // What was hinted at meanwhile has woken nobody.
      if (this.#dirty.size > 0 || this.gap.isAwaited || signal.aborted) continue
      await this.#changes.next(this.#sync.dueMs ?? RETRY_PROBLEMS_MS, signal)
      if (performance.now() - triedMs < RETRY_PROBLEMS_MS) continue
      // A busy archive is never without changes, and an idle one still tells that it is covered.
      await this.#retryProblems()
      triedMs = performance.now()
    }
    this.gap.close()
    await this.#stopped.end()
    await this.#flushLast()
    for (const agent of this.#agents.values()) for (const volume of agent.volumes.values()) volume.close()
    this.#agents.clear()
    this.#sync.close()
  }

  /** What cannot be made durable any more is applied again at the next start, or compared. */
  async #flushLast(): Promise<void> {
    try {
      await this.#sync.flush()
    } catch (error) {
      const { code, message } = asPacsimileError(error, 'Making the replica durable')
      this.#log.error('the replica is not durable', { code, reason: message })
    }
  }

  /** Does a piece of work for an agent. A failure is logged, costs the trust in what is on disk, and is followed by a pause. */
  async #attempt(agent: Label, work: () => Promise<boolean>): Promise<boolean> {
    try {
      return await work()
    } catch (error) {
      if (this.#stop?.aborted === true) return false
      const failure = asPacsimileError(error, `Writing the replica of ${agent}`)
      this.#log.error('the replica cannot follow', { agent, code: failure.code, reason: failure.message })
      const known = this.#agents.get(agent)
      if (known !== undefined) known.trusted = false
      await this.#changes.next(RETRY_MS, this.#stop)
      return false
    }
  }

  /** One round for one agent. @returns whether there is more to do */
  async #round(name: Label): Promise<boolean> {
    const head = this.#catalog.chainEnd(name)
    if (head === undefined) return false
    this.#sync.requireSound()
    this.#sliceStart = performance.now()
    const agent = this.#agents.get(name) ?? this.#begin(name, head)
    const lost = await this.#judge?.judge(name, agent.needsWhole ? this.#cursor.place(name) : agent.applied, head)
    for (const [volume, change] of lost ?? []) await this.#stopLost(name, volume, change)
    if (agent.needsWhole) {
      await this.#compareWhole(name, agent, head)
      return true
    }
    if (!agent.isBegun) await this.#beginStopped(name, agent)
    if (comparePositions(agent.applied, head) >= 0) {
      agent.trusted = true
      return false
    }
    const records = new Map<Label, RecordSummary[]>()
    let last: Position = agent.applied
    let count = 0
    for await (const record of this.#catalog.summaries(name, agent.applied, head)) {
      if (record.kind !== 'epoch') {
        const ofVolume = records.get(record.volume)
        if (ofVolume === undefined) records.set(record.volume, [record])
        else ofVolume.push(record)
      }
      last = { epoch: record.epoch, seq: record.seq }
      if (++count >= ROUND_RECORDS) break
    }
    const basis = { applied: agent.applied, until: last, trusted: agent.trusted }
    for (const [volume, ofVolume] of records)
      if (this.#follows(name, volume)) await this.#volumeOf(name, agent, volume).apply(ofVolume, basis)
    this.#sync.requireSound()
    agent.applied = last
    this.progress.signal()
    const more = comparePositions(last, this.#catalog.chainEnd(name) ?? last) < 0
    if (!more) agent.trusted = true
    return more
  }

  #begin(name: Label, head: Position): AgentReplica {
    const agent = agentReplica(this.#cursor.read(name), head)
    this.#agents.set(name, agent)
    return agent
  }

  /** Whether the volume is to be given what is recorded; begins with what is to be done with it where its configuration has changed. */
  #follows(agent: Label, volume: Label): boolean {
    const { stop } = this.#standings.of(agent, volume)
    const at = { at: BEFORE_ALL, head: BEFORE_ALL, isKnown: false }
    if (!this.isKept(agent, volume)) {
      if (stop === undefined) this.#standings.set(agent, volume, { stop: { phase: 'off', reason: '', sinceMs: Date.now(), ...at } })
      return false
    }
    if (stop?.phase === 'off') {
      this.#standings.set(agent, volume, { stop: { ...stop, phase: 'catching-up', ...at } })
      if (this.#stop !== undefined) this.#stopped.wake(agent, volume, this.#stop)
    }
    return stop === undefined
  }

  /** Before anything of it is applied. */
  async #stopLost(agent: Label, volume: Label, { clean, gone, unreadable, files }: MassChange): Promise<void> {
    const reason = `of ${files} files ${gone} are gone and ${unreadable} cannot be read as DICOM any more, within a minute`
    await this.stand(agent, volume, ({ stop }) => {
      // What is being done with it ends first; it does not go on from there.
      if (stop !== undefined && stop.phase !== 'catching-up') return undefined
      const { epoch, seq } = this.#catalog.chainEnd(agent) ?? clean
      const [at, isKnown] = [stop?.at ?? this.applied(agent), stop?.isKnown ?? true]
      this.#log.error('a mass change: the replica of a volume is paused', { agent, volume, files, gone, unreadable, clean })
      return { stop: { phase: 'paused', reason, sinceMs: Date.now(), at, head: { epoch, seq }, isKnown, clean } }
    })
  }

  /** What is on disk of this agent is known again: goes on with its volumes that do not follow. */
  async #beginStopped(name: Label, agent: AgentReplica): Promise<void> {
    for (const { name: volume } of await this.#catalog.volumes(name))
      if (!this.#follows(name, volume) && this.#stop !== undefined) this.#stopped.wake(name, volume, this.#stop)
    agent.isBegun = true
  }

  #openStopped(agent: Label, volume: Label): StoppedVolume {
    const isStale = (): boolean => this.#agents.get(agent)?.needsWhole !== false
    const breathe = async (): Promise<void> => {
      if (isStale()) throw new PacsimileError('io', 'A lost write was reported: everything is looked at anew')
      await this.#breathe()
    }
    const shared = { agent, volume, catalog: this.#catalog, problems: this.#problems, log: this.#log, breathe }
    return new StoppedVolume({
      ...shared,
      standings: this.#standings,
      root: this.pathOf(agent, volume),
      branchOf: (name) => join(branchesDirectory(dirname(this.directory), agent, volume), name),
      drift: this.drift,
      isHeldBack: () => {
        const isLost = this.#judge?.hasFound(agent, volume) === true
        // The next round stops it.
        if (isLost) this.hint([agent])
        return isLost
      },
      openFiles: () => this.#openFiles(agent, volume),
      openVolume: () => this.#openVolume(shared),
      applied: () => this.applied(agent),
      between: (act) => this.gap.in(act),
      progress: () => this.progress.next(RETRY_MS, this.#stop),
      handOver: (opened) => this.#agents.get(agent)?.volumes.set(volume, opened),
      sync: () => this.#sync.filesystems(),
      isStale,
    })
  }

  #volumeOf(name: Label, agent: AgentReplica, volume: Label): ReplicaVolume {
    const known = agent.volumes.get(volume)
    if (known !== undefined) return known
    const shared = { agent: name, volume, catalog: this.#catalog, problems: this.#problems, log: this.#log }
    const opened = this.#openVolume({ ...shared, breathe: () => this.#breathe() })
    agent.volumes.set(volume, opened)
    return opened
  }

  #openVolume(parts: Omit<ReplicaVolumeParts, 'files' | 'keepAside'>): ReplicaVolume {
    const { agent, volume } = parts
    const keepAside = async (path: RelativePath): Promise<void> => this.drift?.keep(agent, volume, path)
    return new ReplicaVolume({ ...parts, files: this.#openFiles(agent, volume), keepAside })
  }

  #openFiles(agent: Label, volume: Label): Materializer {
    const root = this.pathOf(agent, volume)
    if (!existsSync(root)) makeDirectory(root)
    this.#sync.cover(root)
    return new Materializer(root, (digest) => this.#readChunk(digest), { setuid: false, special: this.#special })
  }

  async #compareWhole(name: Label, agent: AgentReplica, head: Position): Promise<void> {
    // Whoever works on one of its volumes ends first, for what he knows is no more so.
    if (this.#stopped.isBusy(name)) {
      await this.progress.next(RETRY_MS, this.#stop)
      return
    }
    agent.trusted = false
    agent.isBegun = false
    for (const { name: volume } of await this.#catalog.volumes(name)) {
      const { stop } = this.#standings.of(name, volume)
      if (stop !== undefined) this.#standings.set(name, volume, { stop: { ...stop, isKnown: false } })
      if (this.#follows(name, volume)) await this.#volumeOf(name, agent, volume).compare(head)
    }
    this.#sync.requireSound()
    agent.applied = { epoch: head.epoch, seq: head.seq }
    agent.needsWhole = false
    this.progress.signal()
  }

  async #retryProblems(): Promise<void> {
    for (const [name, agent] of this.#agents) {
      if (!this.#problems.has(name)) continue
      await this.#attempt(name, async () => {
        for (const volume of agent.volumes.values()) await volume.retry(agent.applied)
        return true
      })
    }
  }

  /** A large file is many chunks: the event loop is let go between them. */
  async #readChunk(digest: Digest): Promise<Buffer> {
    await this.#breathe()
    const bytes = this.#history.readChunk(digest)
    this.#sync.wrote(bytes.length)
    return bytes
  }

  /** @throws when it is time to stop: what was begun is done again at the next start */
  async #breathe(): Promise<void> {
    if (performance.now() - this.#sliceStart < SLICE_MS) return
    await new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
    this.#sliceStart = performance.now()
    this.#stop?.throwIfAborted()
  }
}
