/**
 * Prune and holds as a command sees them: of the running collector, or of the data directory of one that does not run.
 *
 * Invariant: there is one writer. A stopped collector's directory is opened as the collector opens it, under the same lock.
 */
import { join } from 'node:path'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { openCatalog } from './catalog-opening.ts'
import { ChunkCache } from './chunk-cache.ts'
import { type CollectorConfig, parityShape } from './config.ts'
import { definitionsIn } from './copy-definition.ts'
import { CopyStateFile } from './copy-state.ts'
import { Ingest } from './ingest.ts'
import { endOfLedger } from './ledger-view.ts'
import { Prune, type PruneReport } from './prune.ts'
import type { PrunePlan } from './prune-plan.ts'
import { replay } from './replay.ts'
import { nameOf } from './repository/copy.ts'
import type { Hold } from './repository/ledger-entry.ts'
import { Repository } from './repository/repository.ts'
import { policyOf, quarantineMs } from './retention.ts'
import { RunningTime } from './running-time.ts'
import { Ticks } from './ticks.ts'

export interface Pruning {
  /** What a run would do now. Changes nothing. */
  plan(): Promise<PrunePlan>
  /** @throws damage where something is damaged; locked while another one runs; held, io, space: what was done by then is whole */
  run(options?: PruneOptions): Promise<PruneReport>
  /** Whatever has not expired by now, and is of it, is kept until it is released. @throws already-exists, not-found, io, space */
  hold(hold: Hold): Promise<void>
  /** @throws not-found, io, space */
  release(name: Label): Promise<void>
  holds(): Promise<Hold[]>
}

export interface PruneOptions {
  /** Although something is damaged, and what only damaged records name goes with it. */
  readonly isDespiteDoubts?: boolean
}

export interface PruningParts {
  readonly dataDir: string
  readonly config: CollectorConfig
  readonly dataKey: Buffer
  readonly log: Log
}

/** Calls `use` with the history of a collector that does not run. @throws locked where it does; io, space */
export async function withPruning<Result>(parts: PruningParts, use: (pruning: Pruning) => Promise<Result>): Promise<Result> {
  const { dataDir, config, dataKey, log } = parts
  await using stack = new AsyncDisposableStack()
  const catalog = stack.adopt(await openCatalog(join(dataDir, 'catalog'), log), (opened) => opened.close())
  const repository = stack.adopt(
    Repository.openForAppending(config.repository, dataKey, catalog.reflected(), { parity: parityShape(config) }),
    async (opened) => {
      await opened.sealed()
      opened.close()
    },
  )
  await replay(repository, catalog)
  const age = new RunningTime(endOfLedger(catalog).ageMs)
  const ingest = new Ingest({ repository, catalog, cache: new ChunkCache(0), log, age, onCommit() {} })
  const policy = policyOf(config.retention)
  // Copies lose it when the collector runs again.
  const onDeleting = (pack: number): void => {
    for (const { name } of definitionsIn(dataDir)) new CopyStateFile(dataDir, name).add(nameOf('pack', pack))
  }
  const ticks = new Ticks({ catalog, repository, ingest, policy })
  const prune = new Prune({
    directory: join(dataDir, 'catalog'),
    catalog,
    repository,
    ingest,
    ticks,
    policy,
    age,
    quarantineMs: quarantineMs(config.retention),
    log,
    onDeleting,
  })
  const stop = new AbortController()
  const running = ingest.run(stop.signal)
  try {
    // Where the loop fails, what waits for it would wait for ever.
    return await Promise.race([use(prune), running.then(() => Promise.reject(new Error('the loop of commits has ended')))])
  } finally {
    stop.abort()
    await running
  }
}
