/** What `pacsimile status` shows: one document, made by the running collector. */
import type { FoldProgress } from './catch-up.ts'
import type { CopyReport } from './copier.ts'
import type { ScrubStatus } from './scrub-rounds.ts'

export interface VolumeStatus {
  readonly name: string
  /** Directory on the agent's host, as bytes. */
  readonly root: string
  readonly mode: 'complete' | 'best-effort'
  /** The agent's last word; 'unknown' while it is not connected. */
  readonly state: 'scanning' | 'watching' | 'paused' | 'unknown'
  readonly reason: string
  readonly gaps: number
  readonly lastGapMs: number | undefined
  readonly replicaPath: string | undefined
  /** Paths that the replica could not be given. */
  readonly replicaProblems: number
}

export interface AgentReport {
  readonly name: string
  readonly connected: boolean
  /** Since when it is connected, in ms since 1970; undefined while it is not. */
  readonly sinceMs: number | undefined
  /** How far its clock is ahead of the collector's. */
  readonly clockSkewMs: number | undefined
  readonly epoch: number
  /** Last seq that the agent says it has journalled; at least `acked`. */
  readonly head: number
  /** Last seq that is durable here. */
  readonly acked: number
  /** Last seq that is in the replica. */
  readonly applied: number
  /** Paths that the agent knows are changed and has not journalled yet. */
  readonly pending: number
  readonly spoolBytes: number
  /** Age of the oldest change that is not in the replica yet, in ms; undefined where that is not known: with no replica, or while the agent is away. */
  readonly lagMs: number | undefined
  readonly volumes: readonly VolumeStatus[]
}

export interface CollectorStatus {
  readonly repository: string
  readonly dataDir: string
  readonly listen: string
  readonly startedMs: number
  /** Why nothing can be taken in; undefined when all is well. */
  readonly failure: string | undefined
  /** How far the catalog is made anew; undefined when it has everything. */
  readonly rebuilding: FoldProgress | undefined
  /** Places in the repository that did not read as written when the collector started. */
  readonly damage: number
  /** Undefined where it is switched off. */
  readonly scrub: ScrubStatus | undefined
  readonly copies: readonly CopyReport[]
  readonly agents: readonly AgentReport[]
}
