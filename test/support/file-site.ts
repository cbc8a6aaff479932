/** A store with a replica that follows it, and restores of its head: what becomes of one file by either. */
import { join } from 'node:path'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { ROOT } from '../../shared/path.ts'
import { JournalWriter, VOLUME } from './journal-writer.ts'
import { RunningReplica } from './running-replica.ts'
import { scratchDirectory } from './scratch.ts'
import { Store } from './store.ts'

export interface FileSite {
  readonly store: Store
  readonly writer: JournalWriter
  /** The volume in the replica. */
  readonly root: string
  readonly follow: () => Promise<void>
}

export async function site({ special = false } = {}): Promise<FileSite> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const directory = join(scratchDirectory(), 'replica')
  const running = new RunningReplica(store, directory, { special })
  const follow = async (): Promise<void> => {
    await store.send(writer)
    await running.reach(writer)
  }
  return { store, writer, root: join(directory, writer.agent, VOLUME), follow }
}

export async function restored(
  { store, writer }: FileSite,
  change: Partial<RestoreRequest> = {},
): Promise<{ to: string; report: RestoreReport; reasonOf: (path: string) => string | undefined }> {
  const to = join(scratchDirectory(), 'out')
  const point = await store.history.point(writer.agent, VOLUME, { kind: 'head' })
  const how = { dryRun: false, setuid: false, special: false, torn: false }
  const report = await restore(store.history, { agent: writer.agent, volume: VOLUME, path: ROOT, point, to, ...how, ...change })
  return { to, report, reasonOf: (path) => report.missing.find((found) => found.path === path)?.reason }
}
