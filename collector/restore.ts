/**
 * Restore: a point becomes a plan, the plan becomes a directory.
 *
 * Invariant: what is reported as restored has, byte for byte, the digests that its records name; what could not be
 * restored is listed with its reason, and everything else is restored all the same. It prevents a restore that is
 * silently partial, and one that stops at the first bad file. Order: directories, files (in threads, restore-threads.ts), what needs files
 * to be there, and the directories' times last.
 */
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { childOf, type Label, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import type { InPlaceReport } from './in-place-report.ts'
import { InPlaceRestore } from './in-place-restore.ts'
import { Materializer } from './materialize.ts'
import type { Shortcoming } from './metadata-writer.ts'
import { ContentSample, type Estimate, estimateOf } from './restore-estimate.ts'
import type { FilesDone, FileTask } from './restore-files.ts'
import { batchesOf, type LinkedFile, linkedFiles, ManyFiles, newestFirst } from './restore-order.ts'
import { restoreOutlook } from './restore-outlook.ts'
import { type Missing, placeOf, planRestore, type RestorePlan, type RestoreRequest, reasonRefused, refusalOf } from './restore-plan.ts'
import { completeTarget, prepareTarget, RESTORE_NOTE } from './restore-target.ts'
import { WriterThreads } from './restore-threads.ts'

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
  /** What was to be restored, and which of it was there already: for the report of every path. Of a dry run into an empty directory none are kept. */
  readonly entries: readonly ListedEntry[]
  readonly keptPaths: ReadonlySet<RelativePath>
}

export interface RestoreProgress {
  readonly files: number
  readonly bytes: number
  readonly totalFiles: number
  readonly totalBytes: number
}

/** @throws not-found, outside-window, target-not-empty, io, space */
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
  await using threads = new WriterThreads()
  const many = new ManyFiles()
  const { plan, entries } = await planRestore(source, request, (entry) => {
    if (many.add(entry)) threads.start()
  })
  const about = { agent: request.agent, volume: request.volume, path: request.path, to: request.to, dryRun: request.dryRun, ...plan }
  const isResumed = prepareTarget(request)
  const run = new Restoration(source, request, { plan, isResumed, threads, onProgress })
  try {
    await run.write(entries)
    await run.sync()
    completeTarget(request.to, () => run.finishRoot())
  } finally {
    await run.close()
  }
  const { hardLinks, kept, fromReplica, missing, damaged, shortcomings } = run
  const found = { hardLinks, kept: kept.size, keptPaths: kept, fromReplica, missing, damaged, shortcomings }
  return { ...about, ...found, entries, estimate: undefined, inPlace: undefined, seconds: secondsSince(started) }
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
      const totals = { totalFiles: plan.files, totalBytes: prepared.outlook().bytesToWrite ?? 0 }
      let bytes = 0
      const onWritten = (more: number, files: number): void => onProgress({ files, bytes: (bytes += more), ...totals })
      const { fromReplica, hardLinks, damaged, shortcomings, ...inPlace } = await prepared.run(onWritten, onPlace)
      return report(inPlace, false, { fromReplica, hardLinks, damaged, shortcomings })
    },
    [Symbol.asyncDispose]: () => prepared[Symbol.asyncDispose](),
  }
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000
}

interface RestorationParts {
  readonly plan: RestorePlan
  readonly isResumed: boolean
  readonly threads: WriterThreads
  readonly onProgress: (progress: RestoreProgress) => void
}

/**
 * As much as a disk writes in a second or two: what is brought to it while more is written need not be waited for in the end. Of many small files
 * each sync holds up those that make others.
 */
const SYNC_BYTES = 256 << 20

class Restoration {
  readonly missing: Missing[] = []
  readonly shortcomings: Shortcoming[] = []
  damaged = false
  hardLinks = 0
  readonly kept = new Set<RelativePath>()
  fromReplica = 0
  readonly #source: HistorySource
  readonly #request: RestoreRequest
  readonly #plan: RestorePlan
  readonly #isResumed: boolean
  readonly #threads: WriterThreads
  readonly #onProgress: (progress: RestoreProgress) => void
  readonly #target: Materializer
  /** What the target itself is, where it stands for a directory. */
  #root: ListedEntry | undefined
  #files = 0
  #bytes = 0
  /** Of what is written, that which no sync was begun behind. */
  #unsynced = 0
  /** Ends well in any case. */
  #syncing: Promise<void> | undefined
  /** The system tells of it once. */
  #syncFailure: { readonly error: unknown } | undefined

  constructor(source: HistorySource, request: RestoreRequest, { plan, isResumed, threads, onProgress }: RestorationParts) {
    this.#source = source
    this.#request = request
    this.#plan = plan
    this.#isResumed = isResumed
    this.#threads = threads
    this.#onProgress = onProgress
    const noContent = (): never => {
      throw new PacsimileError('internal', 'Files are written by threads')
    }
    this.#target = new Materializer(request.to, noContent, {
      setuid: request.setuid,
      special: request.special,
      owner: request.owner,
      onShortcoming: (shortcoming) => this.shortcomings.push(shortcoming),
    })
  }

  async close(): Promise<void> {
    // It has the descriptor.
    await this.#syncing
    this.#target.close()
  }

  /** Everything written is durable. */
  async sync(): Promise<void> {
    await this.#syncing
    try {
      if (this.#syncFailure !== undefined) throw this.#syncFailure.error
      libc?.syncFilesystem(this.#target.rootDescriptor)
      syncDirectory(this.#request.to)
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${this.#request.to}`)
    }
  }

  /** Once more, after something in it has changed. */
  finishRoot(): void {
    const root = this.#root
    if (root !== undefined) this.#attempt(root, () => this.#target.finishDirectory(ROOT, root.version))
  }

  async write(entries: readonly ListedEntry[]): Promise<void> {
    const directories: ListedEntry[] = []
    const others: ListedEntry[] = []
    const files: ListedEntry[] = []
    for (const entry of entries) {
      const { version } = entry
      const cause = version.kind === 'directory' ? undefined : refusalOf(this.#request, entry)
      if (cause !== undefined)
        this.missing.push({ path: entry.path, cause, reason: await reasonRefused(this.#source, this.#request, entry, cause) })
      else (version.kind === 'directory' ? directories : version.kind === 'file' ? files : others).push(entry)
    }
    const made = directories.filter((entry) => this.#attempt(entry, () => this.#makeDirectory(this.#placeOf(entry.path))))
    await this.#writeFiles(files)
    for (const group of linkedFiles(others)) await this.#writeLinked(group)
    this.#root = made.find((entry) => this.#placeOf(entry.path) === ROOT)
    // Deepest first: writing into a directory changes its times, and its mode may forbid it.
    for (const entry of made.reverse()) this.#attempt(entry, () => this.#target.finishDirectory(this.#placeOf(entry.path), entry.version))
  }

  #makeDirectory(at: RelativePath): void {
    this.#target.makeDirectory(at)
    if (!this.#isResumed) return
    for (const { name, isDirectory } of this.#target.list(at))
      if (!isDirectory && name.startsWith(TEMPORARY_PREFIX) && name !== RESTORE_NOTE) this.#target.removeAll(childOf(at, name))
  }

  async #writeFiles(files: readonly ListedEntry[]): Promise<void> {
    const groups = this.#request.priority === 'newest' ? newestFirst(linkedFiles(files)) : linkedFiles(files)
    // Where the first name of a file cannot be written, the next one may be.
    for (let left = groups; left.length > 0; ) {
      const failed = new Set<RelativePath>()
      await this.#writeOnce(left, failed)
      left = left.flatMap(({ names: [first, ...more] }) => {
        if (first === undefined || more.length === 0) return []
        if (failed.has(first.path)) return [{ names: more }]
        for (const entry of more) this.#link(first, entry)
        return []
      })
    }
  }

  /** Each file under its first name. */
  async #writeOnce(groups: readonly LinkedFile[], failed: Set<RelativePath>): Promise<void> {
    const { source, request } = { source: this.#source, request: this.#request }
    const tasks = groups.flatMap(({ names: [entry] }): FileTask[] =>
      entry?.version.kind === 'file' ? [{ path: entry.path, at: this.#placeOf(entry.path), version: entry.version }] : [],
    )
    await this.#threads.write(batchesOf(tasks), {
      source,
      place: {
        to: request.to,
        replica: await source.replicaDirectory(request.agent, request.volume),
        setuid: request.setuid,
        owner: request.owner,
        isResumed: this.#isResumed,
        bytesPerSecond: request.bytesPerSecond,
      },
      onWritten: (bytes) => {
        this.#bytes += bytes
        this.#syncBeside(bytes)
        this.#report()
      },
      onDone: (done, count) => this.#note(done, count, failed),
    })
  }

  /** Has the disk begin with what is written, one time after the other. */
  #syncBeside(bytes: number): void {
    this.#unsynced += bytes
    if (libc === undefined || this.#unsynced < SYNC_BYTES || this.#syncing !== undefined) return
    this.#unsynced = 0
    this.#syncing = libc
      .filesystemSynced(this.#target.rootDescriptor)
      .catch((error: unknown) => void (this.#syncFailure ??= { error }))
      .then(() => void (this.#syncing = undefined))
  }

  #note(done: FilesDone, count: number, failed: Set<RelativePath>): void {
    for (const { path, reason, isDamaged } of done.failed) {
      failed.add(path)
      this.missing.push({ path, cause: isDamaged ? 'damage' : 'refused', reason })
      this.damaged ||= isDamaged
    }
    this.shortcomings.push(...done.shortcomings)
    for (const path of done.kept) this.kept.add(path)
    this.fromReplica += done.near
    this.#files += count - done.failed.length
    this.#report()
  }

  #link(existing: ListedEntry, entry: ListedEntry): void {
    const isMade = this.#attempt(entry, () => this.#target.link(this.#placeOf(existing.path), this.#placeOf(entry.path)))
    if (!isMade) return
    this.hardLinks += 1
    this.#files += 1
  }

  /** Of what is no regular file. */
  async #writeLinked({ names }: LinkedFile): Promise<void> {
    let first: ListedEntry | undefined
    for (const entry of names) {
      try {
        if (first === undefined) {
          await this.#target.put(this.#placeOf(entry.path), entry.version)
          first = entry
        } else {
          this.#target.link(this.#placeOf(first.path), this.#placeOf(entry.path))
          this.hardLinks += 1
        }
      } catch (error) {
        this.#fail(entry, error)
      }
    }
  }

  /** Where an entry goes in the target. */
  #placeOf(path: RelativePath): RelativePath {
    return placeOf(path, this.#request, this.#plan)
  }

  #attempt(entry: ListedEntry, act: () => void): boolean {
    try {
      act()
      return true
    } catch (error) {
      this.#fail(entry, error)
      return false
    }
  }

  #fail(entry: ListedEntry, error: unknown): void {
    const errno = errnoOf(error)
    // No later file can succeed either: better to stop with one clear error than to list them all.
    if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EROFS' || errno === 'EIO')
      throw asPacsimileError(error, `Writing ${showPath(entry.path)} to ${this.#request.to}`)
    if (error instanceof PacsimileError) {
      // The source is gone, or we are wrong: no later file can succeed either.
      if (error.code !== 'damage' && error.code !== 'io' && error.code !== 'format-invalid') throw error
      if (error.code === 'damage') this.damaged = true
    } else if (errno === undefined) {
      throw error
    }
    const isDamage = error instanceof PacsimileError && error.code === 'damage'
    this.missing.push({ path: entry.path, cause: isDamage ? 'damage' : 'refused', reason: reasonOf(error) })
  }

  #report(): void {
    this.#onProgress({ files: this.#files, bytes: this.#bytes, totalFiles: this.#plan.files, totalBytes: this.#plan.bytes })
  }
}
