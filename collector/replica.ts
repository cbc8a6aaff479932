/**
 * The live replica: plain files that follow the journal with their own durable cursor.
 *
 * Each round takes the records since the cursor, and makes every path that they touched what the newest tree says. So a
 * path that changed five times is written once, and a round that a crash cut short is simply done again.
 * Invariant: the replica is the fold of the journal up to the cursor, for every path that could be written; what could
 * not is listed. It prevents a stand-in that silently lacks files on the day it is needed.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError } from '../shared/errors.ts'
import { makeDirectory } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import type { Log } from '../shared/log.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position, type RecordSummary } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { Follow } from './follow.ts'
import type { History } from './history.ts'
import { Materializer } from './materialize.ts'
import { ReplicaCursor } from './replica-cursor.ts'
import { ReplicaProblems } from './replica-problems.ts'
import { ReplicaVolume } from './replica-volume.ts'

/** Records taken in one round. */
const ROUND_RECORDS = 2000
/** The event loop is let go at least this often while files are written. */
const SLICE_MS = 20
/** The cursor is made durable at most this often while there is work. */
const CURSOR_MS = 1000
/** What could not be written is tried again. */
const RETRY_PROBLEMS_MS = 60_000
const RETRY_MS = 5000

interface AgentReplica {
  /** Everything up to here is in the files. */
  applied: Position
  /** Everything up to here is in the files durably, as the cursor file says. */
  durable: Position
  durableAt: number
  /** After a start or a failure, files may be ahead of the cursor: of what was touched since, nothing is believed until the head is reached. */
  trusted: boolean
  /** What is on disk is not known: everything is compared before the next round. */
  needsWhole: boolean
  readonly volumes: Map<Label, ReplicaVolume>
  /** Whether the cursor file says that nothing is missing. */
  durableWhole: boolean
}

export class Replica {
  readonly directory: string
  readonly #catalog: Catalog
  readonly #history: History
  readonly #log: Log
  readonly #special: boolean
  readonly #cursor: ReplicaCursor
  readonly #agents = new Map<Label, AgentReplica>()
  readonly #problems = new ReplicaProblems()
  readonly #changes = new Follow()
  readonly progress = new Follow()
  #dirty = new Set<Label>()
  #sliceStart = 0
  #stop: AbortSignal | undefined

  /** `special`: with fifos, sockets and device nodes. */
  constructor(parts: { directory: string; catalog: Catalog; history: History; log: Log; special: boolean }) {
    this.directory = parts.directory
    this.#catalog = parts.catalog
    this.#history = parts.history
    this.#log = parts.log
    this.#special = parts.special
    makeDirectory(parts.directory)
    this.#cursor = new ReplicaCursor(parts.directory)
  }

  pathOf(agent: Label, volume: Label): string {
    return join(this.directory, agent, volume)
  }

  applied(agent: Label): Position {
    return this.#agents.get(agent)?.applied ?? this.#cursor.read(agent) ?? BEFORE_ALL
  }

  problems(agent: Label, volume: Label): ReadonlyMap<RelativePath, string> {
    return this.#problems.of(agent, volume)
  }

  /** Something of these agents was committed. */
  hint(agents: Iterable<Label>): void {
    for (const agent of agents) this.#dirty.add(agent)
    this.#changes.signal()
  }

  /** Follows until the signal is given; then makes the cursors durable. */
  async run(signal: AbortSignal): Promise<void> {
    this.#stop = signal
    this.hint(await this.#catalog.agents())
    let triedMs = performance.now()
    while (!signal.aborted) {
      const agents = this.#dirty
      this.#dirty = new Set()
      for (const agent of agents) {
        const isDone = await this.#attempt(agent, async () => !(await this.#round(agent)))
        if (!isDone) this.#dirty.add(agent)
      }
      if (this.#dirty.size > 0 || signal.aborted) continue
      await this.#settleCursors()
      await this.#changes.next(RETRY_PROBLEMS_MS, signal)
      if (performance.now() - triedMs < RETRY_PROBLEMS_MS) continue
      // A busy archive is never without changes, and an idle one still tells that it is covered.
      await this.#retryProblems()
      triedMs = performance.now()
    }
    await this.#settleCursors()
    for (const agent of this.#agents.values()) for (const volume of agent.volumes.values()) volume.close()
    this.#agents.clear()
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

  async #settleCursors(): Promise<void> {
    for (const [name, agent] of this.#agents) {
      const isDone = await this.#attempt(name, async () => {
        await this.#makeDurable(name, agent)
        return true
      })
      if (!isDone) this.#dirty.add(name)
    }
  }

  async #makeDurable(name: Label, agent: AgentReplica): Promise<void> {
    // What is on disk is not known before the comparison is done: no cursor may say otherwise.
    if (agent.needsWhole) return
    if (comparePositions(agent.applied, agent.durable) === 0 && agent.durableWhole === !this.#problems.has(name)) return
    await this.#sync(agent)
    const whole = !this.#problems.has(name)
    this.#cursor.write(name, agent.applied, whole)
    agent.durable = agent.applied
    agent.durableWhole = whole
    agent.durableAt = Date.now()
  }

  async #sync(agent: AgentReplica): Promise<void> {
    // One filesystem holds the whole replica.
    const [volume] = agent.volumes.values()
    if (volume === undefined) return
    try {
      // Whoever sends is answered meanwhile: behind what others write to the disk this may take minutes.
      await libc?.filesystemSynced(volume.rootDescriptor)
    } catch (error) {
      // The kernel reports a lost write once, and then success: what is on disk has to be looked at anew.
      for (const [name, other] of this.#agents) {
        other.needsWhole = true
        other.applied = BEFORE_ALL
        other.durable = BEFORE_ALL
        this.#dirty.add(name)
      }
      for (const name of this.#agents.keys()) this.#cursor.forget(name)
      throw error
    }
  }

  /** One round for one agent. @returns whether there is more to do */
  async #round(name: Label): Promise<boolean> {
    const head = this.#catalog.chainEnd(name)
    if (head === undefined) return false
    this.#sliceStart = performance.now()
    const agent = this.#agents.get(name) ?? this.#begin(name, head)
    if (agent.needsWhole) {
      await this.#compareWhole(name, agent, head)
      return true
    }
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
    for (const [volume, ofVolume] of records) await this.#volumeOf(name, agent, volume).apply(ofVolume, basis)
    agent.applied = last
    this.progress.signal()
    if (Date.now() - agent.durableAt > CURSOR_MS) await this.#makeDurable(name, agent)
    const more = comparePositions(last, this.#catalog.chainEnd(name) ?? last) < 0
    if (!more) agent.trusted = true
    return more
  }

  #begin(name: Label, head: Position): AgentReplica {
    const stored = this.#cursor.read(name)
    const agent: AgentReplica = {
      applied: stored ?? BEFORE_ALL,
      durable: stored ?? BEFORE_ALL,
      durableWhole: stored !== undefined,
      durableAt: 0,
      trusted: false,
      needsWhole: stored === undefined || comparePositions(stored, head) > 0,
      volumes: new Map(),
    }
    this.#agents.set(name, agent)
    return agent
  }

  #volumeOf(name: Label, agent: AgentReplica, volume: Label): ReplicaVolume {
    const known = agent.volumes.get(volume)
    if (known !== undefined) return known
    const root = this.pathOf(name, volume)
    if (!existsSync(root)) makeDirectory(root)
    const files = new Materializer(root, (digest) => this.#readChunk(digest), { setuid: false, special: this.#special })
    const parts = { agent: name, volume, files, catalog: this.#catalog, problems: this.#problems, log: this.#log }
    const opened = new ReplicaVolume({ ...parts, breathe: () => this.#breathe() })
    agent.volumes.set(volume, opened)
    return opened
  }

  async #compareWhole(name: Label, agent: AgentReplica, head: Position): Promise<void> {
    agent.trusted = false
    for (const volume of await this.#catalog.volumes(name)) await this.#volumeOf(name, agent, volume.name).compare(head)
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
    return this.#history.readChunk(digest)
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
