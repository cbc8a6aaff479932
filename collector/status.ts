/** What `pacsimile status` shows: one document, made by the running collector. */

import type { Position } from '../shared/record.ts'
import type { FoldProgress } from './catch-up.ts'
import type { CopyReport } from './copier.ts'
import type { Standing } from './replica-standing.ts'
import type { RestorerEnd } from './restorers.ts'
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
  /** Undefined where none is kept. */
  readonly replicaPath: string | undefined
  readonly replica: ReplicaStatus
  /** Paths that the replica could not be given. */
  readonly replicaProblems: number
}

export interface ReplicaStatus {
  /** What is done with it; `following` where it is kept and nothing is the matter. */
  readonly state: 'following' | NonNullable<Standing['stop']>['phase']
  /** Why it is stopped; may be empty. */
  readonly reason: string
  readonly sinceMs: number | undefined
  /** Everything up to here is in the files; undefined where it follows. */
  readonly at: Position | undefined
  /** Of a mass change: the last point before it. */
  readonly clean: Position | undefined
  /** Until when a mass change is expected, and why. */
  readonly expectedUntilMs: number | undefined
  readonly expectedReason: string | undefined
  /** How often others' writing was found and put aside, and where it is; undefined where nothing was. */
  readonly drifts: number
  readonly driftPath: string | undefined
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
  /** That were not revoked. */
  readonly restorers: readonly RestorerEnd[]
  readonly agents: readonly AgentReport[]
}
