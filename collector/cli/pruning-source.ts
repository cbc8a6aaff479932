/** Where prune and holds are done: by the running collector, or on the data directory of one that does not run. */
import { PacsimileError } from '../../shared/errors.ts'
import type { Label } from '../../shared/path.ts'
import type { PruneReport } from '../prune.ts'
import type { PrunePlan } from '../prune-plan.ts'
import type { PruneOptions, Pruning } from '../pruning.ts'
import type { Hold } from '../repository/ledger-entry.ts'
import { askCollector } from './admin-call.ts'
import { note } from './output.ts'
import { openRepository } from './source.ts'

export interface PruningOptions {
  readonly data: string
  readonly keyFile: string | undefined
}

/** @throws what the collector throws, or not-found, key-missing, key-wrong, locked, io */
export async function usePruning<Result>(options: PruningOptions, use: (pruning: Pruning) => Promise<Result>): Promise<Result> {
  const { data } = options
  if (await isRunning(data)) return use(new RemotePruning(data))
  const { dataKey } = await openRepository({ ...options, repository: undefined })
  note(`No collector runs on ${data}; its directory is opened directly.`)
  const [{ withPruning }, { readCollectorConfig }, { silentLog }] = await Promise.all([
    import('../pruning.ts'),
    import('../config.ts'),
    import('../../shared/log.ts'),
  ])
  return withPruning({ dataDir: data, config: readCollectorConfig(data), dataKey, log: silentLog }, use)
}

async function isRunning(data: string): Promise<boolean> {
  try {
    await askCollector(data, 'volumes', {})
    return true
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'collector-unreachable') return false
    throw error
  }
}

/** The collector is of this very release: its answers are of these types. */
class RemotePruning implements Pruning {
  readonly #data: string

  constructor(data: string) {
    this.#data = data
  }

  async plan(): Promise<PrunePlan> {
    return (await askCollector(this.#data, 'prunePlan', {})) as PrunePlan
  }

  async run({ isDespiteDoubts = false }: PruneOptions = {}): Promise<PruneReport> {
    return (await askCollector(this.#data, 'prune', { isDespiteDoubts })) as PruneReport
  }

  async hold(hold: Hold): Promise<void> {
    await askCollector(this.#data, 'hold', hold)
  }

  async release(name: Label): Promise<void> {
    await askCollector(this.#data, 'release', { name })
  }

  async holds(): Promise<Hold[]> {
    return (await askCollector(this.#data, 'holds', {})) as Hold[]
  }
}
