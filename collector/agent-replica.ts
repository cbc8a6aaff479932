/** The replica of one agent: how far it has got, and what is known of what is on disk. */
import type { Label } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position } from '../shared/record.ts'
import type { ReplicaVolume } from './replica-volume.ts'

export interface AgentReplica {
  /** Everything up to here is in the files. */
  applied: Position
  /** Everything up to here is in the files durably, as the cursor file says. */
  durable: Position
  /** After a start or a failure, files may be ahead of the cursor: of what was touched since, nothing is believed until the head is reached. */
  trusted: boolean
  /** What is on disk is not known: everything is compared before the next round. */
  needsWhole: boolean
  readonly volumes: Map<Label, ReplicaVolume>
  /** Whether the cursor file says that nothing is missing. */
  durableWhole: boolean
  /** Whether its volumes that do not follow are gone on with. */
  isBegun: boolean
}

/** `stored`: what the cursor file says, where that is known to be so. `head`: what there is. */
export function agentReplica(stored: Position | undefined, head: Position): AgentReplica {
  return {
    applied: stored ?? BEFORE_ALL,
    durable: stored ?? BEFORE_ALL,
    durableWhole: stored !== undefined,
    trusted: false,
    needsWhole: stored === undefined || comparePositions(stored, head) > 0,
    isBegun: false,
    volumes: new Map(),
  }
}
