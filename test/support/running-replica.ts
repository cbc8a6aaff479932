/** A replica that follows a store in a scratch directory, and what a restore makes to compare it with. */
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { BreakerRule } from '../../collector/breaker.ts'
import { DriftRounds } from '../../collector/drift-rounds.ts'
import type { PointRequest } from '../../collector/point.ts'
import { Replica } from '../../collector/replica.ts'
import { ReplicaControl } from '../../collector/replica-control.ts'
import type { Stop } from '../../collector/replica-standing.ts'
import { restore } from '../../collector/restore.ts'
import { silentLog } from '../../shared/log.ts'
import { ROOT } from '../../shared/path.ts'
import { comparePositions } from '../../shared/record.ts'
import { type JournalWriter, VOLUME } from './journal-writer.ts'
import { scratchDirectory } from './scratch.ts'
import type { Store } from './store.ts'
import { walkTree } from './tree-walk.ts'

export interface ReplicaOptions {
  readonly special?: boolean
  readonly rule?: BreakerRule
  readonly isKept?: () => boolean
  readonly driftBytesMax?: number
}

export class RunningReplica {
  readonly replica: Replica
  readonly drift: DriftRounds
  readonly control: ReplicaControl
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor(
    store: Store,
    directory: string,
    { special = false, rule, isKept = (): boolean => true, driftBytesMax = 1e9 }: ReplicaOptions = {},
  ) {
    const { catalog, history } = store
    this.replica = new Replica({ directory, catalog, history, log: silentLog, special, rule, isKept })
    this.drift = new DriftRounds({
      catalog,
      history,
      replica: this.replica,
      rule: { everyMs: 0, bytesMax: driftBytesMax },
      special,
      log: silentLog,
    })
    this.control = new ReplicaControl({ catalog, history, replica: this.replica, drift: this.drift })
    this.#running = this.replica.run(this.#stop.signal)
    onTestFinished(() => this.stop())
  }

  async reach(writer: JournalWriter): Promise<void> {
    this.replica.hint([writer.agent])
    while (comparePositions(this.replica.applied(writer.agent), writer.end) < 0) await this.replica.progress.next(50)
  }

  /** What is done with the writer's volume, when what was written is in what follows. */
  async phase(writer: JournalWriter): Promise<Stop['phase'] | undefined> {
    await this.reach(writer)
    return this.replica.standing(writer.agent, VOLUME).stop?.phase
  }

  async following(writer: JournalWriter): Promise<void> {
    await this.reach(writer)
    while (this.replica.standing(writer.agent, VOLUME).stop !== undefined) await this.replica.progress.next(50)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }
}

/** The newest tree as a restore makes it. */
export function restoredHead(store: Store, writer: JournalWriter, special = false): Promise<ReturnType<typeof walkTree>> {
  return restoredAt(store, writer, { kind: 'head' }, special)
}

/** The tree of a moment as a restore makes it. */
export async function restoredAt(
  store: Store,
  writer: JournalWriter,
  at: PointRequest,
  special = false,
): Promise<ReturnType<typeof walkTree>> {
  const to = join(scratchDirectory(), 'restored')
  const point = await store.history.point(writer.agent, VOLUME, at)
  const how = { dryRun: false, setuid: false, special, torn: false }
  await restore(store.history, { agent: writer.agent, volume: VOLUME, path: ROOT, point, to, ...how })
  return walkTree(to)
}
