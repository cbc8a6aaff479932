/** A repository that is fed as ingest feeds it, and copiers of it to places that a test can break. */
import { onTestFinished } from 'vitest'
import { Copier, type CopierParts } from '../../collector/copier.ts'
import { FsCopy } from '../../collector/repository/copy-fs.ts'
import { Lease, type Writer } from '../../collector/repository/copy-lease.ts'
import { SmallFiles } from '../../collector/small-files.ts'
import { silentLog } from '../../shared/log.ts'
import type { Store } from './store.ts'

export const INSTANCE = '1'.repeat(32)

/** Makes a directory a copy of the store's repository. */
export async function beginFsCopy(store: Store, directory: string, instance = INSTANCE): Promise<Writer> {
  const writer = { repository: store.repository.id, instance }
  const copy = await FsCopy.begin(directory)
  await Lease.take(copy, writer)
  await new SmallFiles(store.repositoryDirectory).bring(copy)
  return writer
}

export function startCopier(store: Store, parts: Pick<CopierParts, 'open' | 'writer'> & Partial<CopierParts>): Copier {
  const copier = new Copier({
    name: 'copy',
    url: 'fs:/copy',
    repository: store.repository,
    committed: () => store.ingest.durable,
    removals: { pending: [], done: () => {} },
    log: silentLog,
    lingerMs: 0,
    probeMs: 0,
    onHeld: () => {},
    backoffMs: { first: 10, most: 50 },
    ...parts,
  })
  const stop = new AbortController()
  const running = copier.run(stop.signal)
  onTestFinished(async () => {
    stop.abort()
    await running
  })
  return copier
}
