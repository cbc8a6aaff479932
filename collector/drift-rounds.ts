/**
 * When the files of each volume are looked at for what others wrote, and what was found is known of.
 *
 * A volume is held against its tree beside the rounds; only what looks wrong then is looked at while the volume is stopped, which is short.
 * Invariant: what is found is moved aside before it is replaced, within bounds; beyond them it stays where it is and is listed. It prevents a
 * repair that destroys what somebody had put there for a reason.
 */
import { dirname, join } from 'node:path'
import { PacsimileError } from '../shared/errors.ts'
import { makeDirectory } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import { type Label, type RelativePath, showPath } from '../shared/path.ts'
import { type BranchEntry, branchNames, driftsDirectory, freshName, readBranch, stateOf, writeBranch } from './branch.ts'
import { keepEntries } from './branch-keep.ts'
import type { Catalog } from './catalog.ts'
import { type DriftParts, driftOf, suspectsOf } from './drift.ts'
import { Follow } from './follow.ts'
import type { History } from './history.ts'
import { lookAt } from './live-tree.ts'
import type { Replica } from './replica.ts'

export interface DriftRule {
  /** 0: never by itself. */
  readonly everyMs: number
  /** Of all that is put aside of a volume. */
  readonly bytesMax: number
}

export interface DriftFound {
  /** Paths that were put aside by this look. */
  readonly paths: number
  /** Where, if there were any. */
  readonly directory: string | undefined
}

/** Looked at whether a volume's time has come. */
const TICK_MS = 60_000
const SLICE_MS = 10
/** Of the time, while a volume is looked at. */
const IDLE_SHARE = 0.5

export class DriftRounds {
  readonly #catalog: Catalog
  readonly #history: History
  readonly #replica: Replica
  readonly #rule: DriftRule
  readonly #special: boolean
  readonly #log: Log
  /** By AGENT:VOLUME, what may be wrong on disk. */
  readonly #suspects = new Map<string, readonly RelativePath[]>()
  #busyMs = performance.now()

  constructor(parts: { catalog: Catalog; history: History; replica: Replica; rule: DriftRule; special: boolean; log: Log }) {
    this.#catalog = parts.catalog
    this.#history = parts.history
    this.#replica = parts.replica
    this.#rule = parts.rule
    this.#special = parts.special
    this.#log = parts.log
    parts.replica.drift = {
      of: (agent, volume, at) => driftOf(this.#parts(agent, volume), at, this.#suspects.get(`${agent}:${volume}`) ?? []),
      keep: (agent, volume, path) => this.#keep(agent, volume, path),
      directoryOf: (agent, volume, name) => join(this.#directory(agent, volume), name),
      hasRoomFor: (agent, volume, entries) => this.#hasRoomFor(agent, volume, entries),
    }
  }

  /** Until the signal is given. */
  async run(signal: AbortSignal): Promise<void> {
    const { everyMs } = this.#rule
    if (everyMs === 0) return
    while (!signal.aborted) {
      for (const agent of await this.#catalog.agents()) {
        for (const { name: volume } of await this.#catalog.volumes(agent)) {
          const { stop, checkedMs } = this.#replica.standing(agent, volume)
          if (stop !== undefined || !this.#replica.isKept(agent, volume)) continue
          if (checkedMs === undefined)
            await this.#replica.gap.in(() => this.#replica.stand(agent, volume, () => ({ checkedMs: Date.now() })))
          else if (Math.abs(Date.now() - checkedMs) >= everyMs) await this.check(agent, volume, signal)
          if (signal.aborted) return
        }
      }
      await new Follow().next(TICK_MS, signal)
    }
  }

  /** Looks at a volume now. @throws replica-stopped */
  async check(agent: Label, volume: Label, signal: AbortSignal): Promise<DriftFound> {
    const replica = this.#replica
    const { stop, checkedMs } = replica.standing(agent, volume)
    if (stop !== undefined) throw new PacsimileError('replica-stopped', `The replica of ${agent}:${volume} is ${stop.phase}`)
    const before = branchNames(this.#directory(agent, volume)).length
    const begunMs = Date.now()
    const suspects = await suspectsOf(this.#parts(agent, volume, signal), replica.applied(agent), checkedMs ?? 0)
    await replica.gap.in(() => this.#begin(agent, volume, suspects, begunMs))
    while (isLookedAt(replica.standing(agent, volume).stop?.phase)) {
      signal.throwIfAborted()
      await replica.progress.next(200, signal)
    }
    const name = branchNames(this.#directory(agent, volume))[before]
    if (name === undefined) return { paths: 0, directory: undefined }
    const directory = join(this.#directory(agent, volume), name)
    return { paths: readBranch(directory)?.entries.length ?? 0, directory }
  }

  /** The suspects are looked at while nothing is written. */
  async #begin(agent: Label, volume: Label, suspects: readonly RelativePath[], checkedMs: number): Promise<void> {
    this.#suspects.set(`${agent}:${volume}`, suspects)
    await this.#replica.stand(agent, volume, ({ stop }) => {
      const head = this.#catalog.chainEnd(agent)
      // Somebody stopped it meanwhile: it is looked at another time.
      if (stop !== undefined || head === undefined) return undefined
      if (suspects.length === 0) return { checkedMs }
      const about = { reason: 'looked at for what others wrote', sinceMs: Date.now(), isKnown: true }
      const at = this.#replica.applied(agent)
      return { checkedMs, stop: { phase: 'checking', ...about, at, head: { epoch: head.epoch, seq: head.seq } } }
    })
  }

  async #keep(agent: Label, volume: Label, path: RelativePath): Promise<void> {
    const replica = this.#replica.pathOf(agent, volume)
    const side = await lookAt(replica, path)
    if (side === undefined) return
    const entries: BranchEntry[] = [{ path, before: null, after: stateOf(side), isTimeOnly: false }]
    if (!this.#hasRoomFor(agent, volume, entries))
      throw new PacsimileError('space', 'Others wrote here, and there is no room to keep that aside')
    const now = Date.now()
    const directory = join(this.#directory(agent, volume), freshName(this.#directory(agent, volume)))
    makeDirectory(directory)
    const { epoch, seq } = this.#replica.applied(agent)
    writeBranch(directory, { agent, volume, at: { epoch, seq }, sinceMs: now, endedMs: now, disposition: 'discarded', entries })
    keepEntries(entries, replica, directory)
    this.#log.error('others wrote into the replica where something else has come: it is put aside', {
      agent,
      volume,
      path: showPath(path),
      directory,
    })
  }

  #hasRoomFor(agent: Label, volume: Label, entries: readonly BranchEntry[]): boolean {
    return bytesOf(entries) + this.#keptBytes(agent, volume) <= this.#rule.bytesMax
  }

  #parts(agent: Label, volume: Label, signal?: AbortSignal): DriftParts {
    const directory = this.#replica.pathOf(agent, volume)
    const breathe = (): Promise<void> => this.#breathe(signal)
    return { source: this.#history, agent, volume, directory, special: this.#special, catalog: this.#catalog, breathe }
  }

  async #breathe(signal: AbortSignal | undefined): Promise<void> {
    const ms = performance.now() - this.#busyMs
    if (ms < SLICE_MS) return
    await new Promise((resolve) => {
      setTimeout(resolve, Math.min(ms, SLICE_MS) * (IDLE_SHARE / (1 - IDLE_SHARE)))
    })
    signal?.throwIfAborted()
    this.#busyMs = performance.now()
  }

  #directory(agent: Label, volume: Label): string {
    return driftsDirectory(dirname(this.#replica.directory), agent, volume)
  }

  #keptBytes(agent: Label, volume: Label): number {
    const above = this.#directory(agent, volume)
    return branchNames(above).reduce((sum, name) => sum + bytesOf(readBranch(join(above, name))?.entries ?? []), 0)
  }
}

function isLookedAt(phase: string | undefined): boolean {
  return phase === 'checking' || phase === 'closing'
}

function bytesOf(entries: readonly BranchEntry[]): number {
  return entries.reduce((sum, { after }) => sum + (after?.size ?? 0), 0)
}
