/**
 * What `pacsimile agent status` shows: the agent's own word on how it stands.
 *
 * Invariant: paths are given as people can type them, counts are exact, lists are bounded. It prevents a status that is too
 * large to be read on the day on which everything is wrong.
 */
import type { JournalLagSummary } from './journal-lag.ts'
import type { ScanMethod } from './scan-task.ts'
import type { VolumePhase } from './volume.ts'

export interface AgentStatus {
  readonly agent: string
  readonly collector: string
  readonly stateDir: string
  readonly pid: number
  /** The process that starts the agent again and keeps its descriptors; absent under systemd, which does it itself. */
  readonly supervisor?: number
  /** ms since 1970. */
  readonly startedMs: number
  readonly link: { readonly state: 'connecting' | 'up' | 'down'; readonly sinceMs: number; readonly lastError?: string }
  /** Of the repository that the collector serves; absent before the first connection. */
  readonly repository?: string
  /** How far the collector's clock is ahead of this host's, in ms. */
  readonly clockSkewMs: number
  readonly epoch: number
  readonly headSeq: number
  /** When the last record became durable, ms since 1970; absent before the first since the agent was started. */
  readonly headMs?: number
  readonly ackedSeq: number
  /** Records that are not acknowledged. */
  readonly pending: number
  /** Paths that wait to be looked at or captured. */
  readonly dirty: number
  /** Closed versions held open until they are captured. */
  readonly pinned: number
  readonly heldBytes: number
  readonly spoolBytes: number
  readonly spoolQuotaBytes: number
  /** If it goes on growing as in the last minutes; absent while it does not. */
  readonly spoolFullInSeconds?: number
  /** From a change to its record in the journal, for the last changes that events told of; absent before the first. */
  readonly journalLag?: JournalLagSummary
  /** What needs a person, in words; empty when all is well. */
  readonly alarms: readonly string[]
  readonly volumes: readonly AgentVolumeStatus[]
}

export interface AgentVolumeStatus {
  readonly name: string
  readonly path: string
  readonly mode: 'complete' | 'best-effort'
  readonly state: VolumePhase
  readonly reason: string
  readonly lastScan?: { readonly endedMs: number; readonly durationMs: number; readonly differences: number; readonly unannounced: number }
  /** Everything that changed until then is journalled, as far as is proven; ms since 1970. */
  readonly coveredUntilMs?: number
  /** For how long a proof that the watcher works has been waited for in vain. */
  readonly silentMs: number
  /** Changes since the agent started that no event announced and a scan found. */
  readonly unannounced: number
  /** Gaps recorded since the agent started. */
  readonly gaps: number
  /** At most 100 are listed. */
  readonly unreadable: readonly { readonly path: string; readonly reason: string }[]
  /** Files whose content is not what was captured, though nothing says that they were written; at most 100 are listed. */
  readonly rotten: readonly { readonly path: string; readonly foundMs: number }[]
  /** Mount points of other filesystems, which are not protected. */
  readonly foreign: readonly string[]
}

/** What `pacsimile agent mark` shows of a volume. */
export interface AgentMark {
  readonly volume: string
  readonly epoch: number
  readonly seq: number
  readonly timeMs: number
}

/** What `pacsimile agent scan` shows of a volume. */
export interface AgentScanReport {
  readonly name: string
  readonly method: ScanMethod
  /** Why it was a walk; '' where it was not. */
  readonly reason: string
  /** Paths that were compared. */
  readonly entries: number
  /** Until everything that it found was looked at and recorded. */
  readonly seconds: number
  readonly differences: number
  /** Of these, changes that no event had told of. */
  readonly unannounced: number
}
