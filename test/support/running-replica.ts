/** A replica that follows a store in a scratch directory, and what a restore of the head makes to compare it with. */
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Replica } from '../../collector/replica.ts'
import { restore } from '../../collector/restore.ts'
import { silentLog } from '../../shared/log.ts'
import { ROOT } from '../../shared/path.ts'
import { comparePositions } from '../../shared/record.ts'
import { type JournalWriter, VOLUME } from './journal-writer.ts'
import { scratchDirectory } from './scratch.ts'
import type { Store } from './store.ts'
import { walkTree } from './tree-walk.ts'

export class RunningReplica {
  readonly replica: Replica
  readonly #stop = new AbortController()
  readonly #running: Promise<void>

  constructor(store: Store, directory: string, special = false) {
    this.replica = new Replica({ directory, catalog: store.catalog, history: store.history, log: silentLog, special })
    this.#running = this.replica.run(this.#stop.signal)
    onTestFinished(() => this.stop())
  }

  async reach(writer: JournalWriter): Promise<void> {
    this.replica.hint([writer.agent])
    while (comparePositions(this.replica.applied(writer.agent), writer.end) < 0) await this.replica.progress.next(50)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }
}

/** The newest tree as a restore makes it. */
export async function restoredHead(store: Store, writer: JournalWriter, special = false): Promise<ReturnType<typeof walkTree>> {
  const to = join(scratchDirectory(), 'restored')
  const point = await store.history.point(writer.agent, VOLUME, { kind: 'head' })
  const how = { dryRun: false, setuid: false, special, torn: false }
  await restore(store.history, { agent: writer.agent, volume: VOLUME, path: ROOT, point, to, ...how })
  return walkTree(to)
}
