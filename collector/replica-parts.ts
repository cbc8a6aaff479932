/** What a replica is made of, and what is asked of it. */
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { BreakerRule } from './breaker.ts'
import type { Catalog } from './catalog.ts'
import type { History } from './history.ts'

export interface ReplicaParts {
  readonly directory: string
  readonly catalog: Catalog
  readonly history: History
  readonly log: Log
  /** With fifos, sockets and device nodes. */
  readonly special: boolean
  /** What stops a volume; undefined: nothing does by itself. */
  readonly rule: BreakerRule | undefined
  /** Whether a volume has a replica. */
  readonly isKept: (agent: Label, volume: Label) => boolean
}
