/**
 * The collector's view of itself and its agents, put together when somebody asks.
 *
 * It reports what it knows and says 'unknown' where it does not: an agent that is not connected has no current state.
 */
import { millisecondsOf } from '../shared/clock.ts'
import type { Label } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import { branchNames, driftsDirectory } from './branch.ts'
import type { Catalog, VolumeFacts } from './catalog.ts'
import type { CatchUp } from './catch-up.ts'
import type { Copies } from './copies.ts'
import type { Damages } from './damages.ts'
import type { EnrolledAgents } from './enrolled-agents.ts'
import type { Ingest } from './ingest.ts'
import type { Receiver } from './receiver.ts'
import type { Replica } from './replica.ts'
import type { Standing } from './replica-standing.ts'
import type { Restorers } from './restorers.ts'
import type { ScrubRounds } from './scrub-rounds.ts'
import type { Session } from './session.ts'
import type { AgentReport, CollectorStatus, ReplicaStatus, VolumeStatus } from './status.ts'

export interface OverviewParts {
  readonly dataDir: string
  readonly listen: string
  readonly repository: string
  readonly damages: Damages
  readonly copies: Copies
  readonly scrub: ScrubRounds | undefined
  readonly catalog: Catalog
  readonly catchUp: CatchUp
  readonly enrolled: EnrolledAgents
  readonly restorers: Restorers
  readonly ingest: Ingest
  readonly receiver: Receiver
  readonly replica: Replica | undefined
}

export class Overview {
  readonly #parts: OverviewParts
  readonly #startedMs = Date.now()

  constructor(parts: OverviewParts) {
    this.#parts = parts
  }

  async report(): Promise<CollectorStatus> {
    const { dataDir, listen, repository, damages, copies, scrub, catalog, ingest } = this.#parts
    const agents: AgentReport[] = []
    const names = new Set([...(await catalog.agents()), ...this.#parts.enrolled.names()])
    for (const agent of [...names].sort()) agents.push(await this.#agent(agent))
    return {
      repository,
      dataDir,
      listen,
      startedMs: this.#startedMs,
      failure: ingest.failure?.message,
      rebuilding: this.#parts.catchUp.progress,
      damage: damages.list.length,
      scrub: scrub?.status,
      copies: copies.status,
      restorers: this.#parts.restorers.ends(Date.now()),
      agents,
    }
  }

  async #agent(agent: Label): Promise<AgentReport> {
    const { catalog, ingest, receiver, replica } = this.#parts
    const session = receiver.session(agent)
    const connected = session?.isReady === true
    const end = ingest.chainEnd(agent) ?? { epoch: 0, seq: 0 }
    const applied = replica?.applied(agent) ?? { epoch: 0, seq: 0 }
    const volumes: VolumeStatus[] = []
    for (const facts of await catalog.volumes(agent)) volumes.push(await this.#volume(agent, facts, connected ? session : undefined))
    return {
      name: agent,
      connected,
      sinceMs: connected ? session.since : undefined,
      clockSkewMs: connected ? session.skewMs : undefined,
      epoch: end.epoch,
      head: Math.max(end.seq, session?.coverage?.head ?? 0),
      acked: end.seq,
      applied: applied.epoch === end.epoch ? applied.seq : 0,
      pending: session?.coverage?.pending ?? 0,
      spoolBytes: session?.coverage?.spoolBytes ?? 0,
      // What an agent that is away has seen meanwhile is not known here.
      lagMs: replica === undefined || !connected ? undefined : this.#lag(agent, applied, end),
      volumes,
    }
  }

  #lag(agent: Label, applied: Position, end: Position): number | undefined {
    if (comparePositions(applied, end) >= 0) return 0
    const oldest = this.#parts.catalog.summary(agent, { epoch: applied.epoch, seq: applied.seq + 1 })
    return oldest === undefined ? undefined : Math.max(0, Date.now() - millisecondsOf(oldest.time))
  }

  #replica(agent: Label, volume: Label): ReplicaStatus {
    const { dataDir, replica } = this.#parts
    const isKept = replica?.isKept(agent, volume) === true
    return replicaStatus(isKept ? replica.standing(agent, volume) : undefined, driftsDirectory(dataDir, agent, volume))
  }

  async #volume(agent: Label, facts: VolumeFacts, session: Session | undefined): Promise<VolumeStatus> {
    const { catalog, replica } = this.#parts
    const said = session?.coverage?.volumes.find((volume) => volume.name === facts.name)
    const gaps = await catalog.gaps(agent, facts.name)
    const lastGap = gaps.at(-1)
    return {
      name: facts.name,
      root: facts.root,
      mode: said?.mode ?? facts.mode,
      state: said?.state ?? 'unknown',
      reason: said?.reason ?? '',
      gaps: gaps.length,
      lastGapMs: lastGap === undefined ? undefined : millisecondsOf(lastGap.until),
      replicaPath: replica?.isKept(agent, facts.name) === true ? replica.pathOf(agent, facts.name) : undefined,
      replica: this.#replica(agent, facts.name),
      replicaProblems: replica?.problems(agent, facts.name).size ?? 0,
    }
  }
}

/** `standing`: undefined where no replica is kept. `drifts`: directory of what others wrote. */
function replicaStatus(standing: Standing | undefined, drifts: string): ReplicaStatus {
  const found = branchNames(drifts).length
  const { stop, expected } = standing ?? {}
  const isExpected = expected !== undefined && expected.untilMs > Date.now()
  return {
    state: standing === undefined ? 'off' : (stop?.phase ?? 'following'),
    reason: stop?.reason ?? '',
    sinceMs: stop?.sinceMs,
    at: stop?.at,
    clean: stop?.clean,
    expectedUntilMs: isExpected ? expected.untilMs : undefined,
    expectedReason: isExpected ? expected.reason : undefined,
    drifts: found,
    driftPath: found === 0 ? undefined : drifts,
  }
}
