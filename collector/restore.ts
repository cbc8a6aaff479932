/**
 * Restore: a point becomes a plan, the plan becomes a directory (restoration.ts), a new one or one with content.
 *
 * Invariant: whatever a restore is asked to do, its report says the same things of it, and names every path that was asked for. It prevents
 * a way to restore of which one knows less afterwards.
 */
import type { Label, RelativePath } from '../shared/path.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import type { InPlaceReport } from './in-place-report.ts'
import { InPlaceRestore } from './in-place-restore.ts'
import type { Shortcoming } from './metadata-writer.ts'
import { Restoration, type RestoreProgress } from './restoration.ts'
import { ContentSample, type Estimate, estimateOf } from './restore-estimate.ts'
import { restoreOutlook } from './restore-outlook.ts'
import { type Missing, makePlan, type RestorePlan, type RestoreRequest } from './restore-plan.ts'

export interface RestoreReport extends RestorePlan {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly to: string
  readonly dryRun: boolean
  readonly hardLinks: number
  readonly seconds: number
  /** Files that an interrupted run before this one had brought back already, or that were right in place. */
  readonly kept: number
  /** Files whose content was read from the replica. */
  readonly fromReplica: number
  readonly missing: readonly Missing[]
  /** Whether something is missing because stored bytes are damaged. */
  readonly damaged: boolean
  readonly shortcomings: readonly Shortcoming[]
  /** Of a dry run, and of what is shown before a restore in place. */
  readonly estimate: Estimate | undefined
  /** Of a restore in place. */
  readonly inPlace: InPlaceReport | undefined
  /** What was to be restored, and which of it was there already: for the report of every path. Undefined where that was not asked for. */
  readonly entries: readonly ListedEntry[] | undefined
  readonly keptPaths: ReadonlySet<RelativePath>
}

/**
 * Writing begins while the plan is still being made, where there is much to write. @throws not-found, outside-window, target-not-empty, io, space
 */
export async function restore(
  source: HistorySource,
  request: RestoreRequest,
  onProgress: (progress: RestoreProgress) => void = () => {},
): Promise<RestoreReport> {
  if (request.inPlace === true) {
    await using prepared = await prepareInPlace(source, request)
    return request.dryRun ? prepared.outlook : await prepared.run(onProgress)
  }
  if (request.dryRun) return restoreOutlook(source, request)
  const started = performance.now()
  await using run = new Restoration(source, request, onProgress)
  const entries: ListedEntry[] | undefined = request.namesPaths === true ? [] : undefined
  const plan = await makePlan(source, request, (entry) => {
    entries?.push(entry)
    run.take(entry)
  })
  await run.finish(plan)
  const { agent, volume, path, to, dryRun } = request
  const { hardLinks, kept, fromReplica, missing, damaged, shortcomings } = run
  return {
    agent,
    volume,
    path,
    to,
    dryRun,
    ...plan,
    hardLinks,
    kept: kept.size,
    keptPaths: kept,
    fromReplica,
    missing,
    damaged,
    shortcomings,
    entries,
    estimate: undefined,
    inPlace: undefined,
    seconds: secondsSince(started),
  }
}

/** What is known before anything is written, and what it does when it is told to. */
export interface PreparedRestore extends AsyncDisposable {
  readonly outlook: RestoreReport
  /** `onPlace` is told of the undo place as soon as there is one. @throws space, io */
  run(onProgress: (progress: RestoreProgress) => void, onPlace?: (id: string) => void): Promise<RestoreReport>
}

/** Of a restore into a directory with content. @throws not-found, unfinished, locked, usage, io */
export async function prepareInPlace(
  source: HistorySource,
  request: RestoreRequest,
  onRead: (bytes: number) => void = () => {},
): Promise<PreparedRestore> {
  const started = performance.now()
  const prepared = await InPlaceRestore.prepare({ source, request, onRead })
  const { plan, entries } = prepared
  const report = (inPlace: InPlaceReport, isDryRun: boolean, found: Partial<RestoreReport> = {}): RestoreReport => {
    const { agent, volume, path, to } = request
    const keptPaths = new Set(inPlace.kept)
    const kept = entries.filter((entry) => entry.version.kind === 'file' && keptPaths.has(entry.path)).length
    const nothing = { hardLinks: 0, fromReplica: 0, damaged: false, shortcomings: [], estimate: undefined, ...found }
    const { missing } = inPlace
    return {
      agent,
      volume,
      path,
      to,
      dryRun: isDryRun,
      ...plan,
      ...nothing,
      kept,
      keptPaths,
      entries,
      missing,
      inPlace,
      seconds: secondsSince(started),
    }
  }
  let estimate: Estimate | undefined
  try {
    const sample = new ContentSample()
    for (const file of prepared.filesToWrite) sample.add(file)
    estimate = await estimateOf(source, sample, request.bytesPerSecond)
  } catch (error) {
    await prepared[Symbol.asyncDispose]()
    throw error
  }
  return {
    outlook: report(prepared.outlook(), true, { estimate }),
    async run(onProgress, onPlace) {
      const total = { files: prepared.filesToWrite.length, bytes: prepared.outlook().bytesToWrite ?? 0 }
      let bytes = 0
      const onWritten = (more: number, files: number): void => onProgress({ files, bytes: (bytes += more), total })
      const { fromReplica, hardLinks, damaged, shortcomings, ...inPlace } = await prepared.run(onWritten, onPlace)
      return report(inPlace, false, { fromReplica, hardLinks, damaged, shortcomings })
    },
    [Symbol.asyncDispose]: () => prepared[Symbol.asyncDispose](),
  }
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000
}
