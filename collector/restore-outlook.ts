/**
 * What a restore into an empty directory would do: its plan, what cannot be brought back, and how long it takes.
 *
 * Entries are looked at as they come and not kept, so that the memory needed follows what is missing, not what is there. Invariant: nothing is written, and
 * what is said to be missing is what a restore would not even try. It prevents a look at a plan that costs as much as the restore.
 */
import type { RelativePath } from '../shared/path.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import type { RestoreReport } from './restore.ts'
import { ContentSample, estimateOf } from './restore-estimate.ts'
import {
  type Missing,
  PlanCount,
  plannedGroups,
  planOf,
  type RefusalCause,
  type RestoreRequest,
  reasonRefused,
  refusalOf,
} from './restore-plan.ts'

/** @throws not-found, outside-window */
export async function restoreOutlook(source: HistorySource, request: RestoreRequest): Promise<RestoreReport> {
  const started = performance.now()
  const count = new PlanCount()
  const sample = new ContentSample()
  const refused: { readonly entry: ListedEntry; readonly cause: RefusalCause }[] = []
  for await (const group of plannedGroups(source, request)) {
    for (const entry of group) {
      count.add(entry.version)
      const cause = refusalOf(request, entry)
      if (cause !== undefined) refused.push({ entry, cause })
      if (entry.version.kind === 'file' && entry.absent === undefined) sample.add(entry.version)
    }
  }
  const missing: Missing[] = []
  for (const { entry, cause } of refused)
    missing.push({ path: entry.path, cause, reason: await reasonRefused(source, request, entry, cause) })
  const estimate = await estimateOf(source, sample, request.bytesPerSecond)
  return {
    agent: request.agent,
    volume: request.volume,
    path: request.path,
    to: request.to,
    dryRun: true,
    ...planOf(request, count),
    hardLinks: 0,
    kept: 0,
    fromReplica: 0,
    damaged: false,
    shortcomings: [],
    inPlace: undefined,
    keptPaths: new Set<RelativePath>(),
    estimate,
    entries: undefined,
    seconds: (performance.now() - started) / 1000,
    missing,
  }
}
