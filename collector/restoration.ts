/**
 * Making a new directory of a plan, entry by entry as the plan is made.
 *
 * Invariant: what is reported as restored has, byte for byte, the digests that its records name; what could not be
 * restored is listed with its reason, and everything else is restored all the same. It prevents a restore that is
 * silently partial, and one that stops at the first bad file. Order: directories, files (in threads, restore-threads.ts), what needs files
 * to be there, and the directories' times last.
 */
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { childOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import { type FileVersion, hardLinkKey } from '../shared/version.ts'
import { FileBatches } from './file-batches.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { Materializer } from './materialize.ts'
import type { Shortcoming } from './metadata-writer.ts'
import type { FilesDone, FileTask } from './restore-files.ts'
import { batchesOf, type LinkedFile, linkedFiles, newestFirst } from './restore-order.ts'
import {
  type Missing,
  placeOf,
  type RefusalCause,
  type RestorePlan,
  type RestoreRequest,
  reasonRefused,
  refusalOf,
} from './restore-plan.ts'
import { completeTarget, prepareTarget, RESTORE_NOTE } from './restore-target.ts'
import { WriterThreads, type WritingParts } from './restore-threads.ts'

export interface RestoreProgress {
  readonly files: number
  readonly bytes: number
  /** Of all of it; undefined while the plan is being made. */
  readonly total: { readonly files: number; readonly bytes: number } | undefined
}

/**
 * As much as a disk writes in a second or two: what is brought to it while more is written need not be waited for in the end. Of many small files
 * each sync holds up those that make others.
 */
const SYNC_BYTES = 256 << 20

/** The directory, once something is written to it. */
interface Target {
  readonly tree: Materializer
  /** Whether an earlier run of this restore has begun there. */
  readonly isResumed: boolean
}

export class Restoration implements AsyncDisposable {
  readonly shortcomings: Shortcoming[] = []
  damaged = false
  hardLinks = 0
  readonly kept = new Set<RelativePath>()
  fromReplica = 0
  readonly #source: HistorySource
  readonly #request: RestoreRequest
  readonly #onProgress: (progress: RestoreProgress) => void
  readonly #threads = new WriterThreads()
  #target: Target | undefined

  // What was taken, and is to be done.
  readonly #directories: ListedEntry[] = []
  /** Files with one name, which need not wait for the rest of the plan. */
  readonly #batches = new FileBatches()
  /** Files for which the whole plan must be known. */
  readonly #files: ListedEntry[] = []
  readonly #others: ListedEntry[] = []
  readonly #toRefuse: { readonly entry: ListedEntry; readonly cause: RefusalCause }[] = []

  // What was done.
  readonly #made: ListedEntry[] = []
  readonly #refused: Missing[] = []
  readonly #failed: Missing[] = []
  readonly #failedFiles = new Set<RelativePath>()
  /** Of the batches, while the plan is being made; ends well in any case. */
  #writing: Promise<void> | undefined
  #writingFailure: { readonly error: unknown } | undefined
  #total: RestoreProgress['total']
  #filesDone = 0
  #bytesDone = 0
  /** Of what is written, that which no sync was begun behind. */
  #unsynced = 0
  /** Ends well in any case. */
  #syncing: Promise<void> | undefined
  /** The system tells of it once. */
  #syncFailure: { readonly error: unknown } | undefined

  constructor(source: HistorySource, request: RestoreRequest, onProgress: (progress: RestoreProgress) => void) {
    this.#source = source
    this.#request = request
    this.#onProgress = onProgress
  }

  get missing(): Missing[] {
    return [...this.#refused, ...this.#failed]
  }

  /** The next entry of the plan: depth first, so that a directory comes before what is in it. @throws target-not-empty, space, io, what the source throws */
  take(entry: ListedEntry): void {
    if (this.#writingFailure !== undefined) throw this.#writingFailure.error
    const { version } = entry
    const cause = version.kind === 'directory' ? undefined : refusalOf(this.#request, entry)
    if (cause !== undefined) {
      this.#toRefuse.push({ entry, cause })
    } else if (version.kind === 'directory') {
      this.#directories.push(entry)
      if (this.#target !== undefined) this.#makeDirectory(this.#target, entry)
    } else if (version.kind !== 'file') {
      this.#others.push(entry)
    } else if (this.#request.priority === 'newest' || hardLinkKey(version) !== undefined) {
      this.#files.push(entry)
    } else {
      this.#batches.add(this.#task(entry.path, version))
      if (this.#batches.waiting > 1) this.#writing ??= this.#writeBatches(this.#begin())
    }
  }

  /** There is no more than that: everything is written, and durable. @throws target-not-empty, space, io, what the source throws */
  async finish({ files, bytes }: RestorePlan): Promise<void> {
    this.#total = { files, bytes }
    const target = this.#begin()
    const linked = linkedFiles(this.#files)
    const groups = this.#request.priority === 'newest' ? newestFirst(linked) : linked
    for (const task of this.#firstsOf(groups)) this.#batches.add(task)
    this.#batches.end()
    for (const { entry, cause } of this.#toRefuse)
      this.#refused.push({ path: entry.path, cause, reason: await reasonRefused(this.#source, this.#request, entry, cause) })
    if (this.#writing === undefined) await this.#threads.write(this.#batches.rest(), await this.#parts(target))
    else await this.#writing
    if (this.#writingFailure !== undefined) throw this.#writingFailure.error
    await this.#writeOtherNames(target, groups)
    for (const group of linkedFiles(this.#others)) await this.#writeLinked(target.tree, group)
    // Deepest first: writing into a directory changes its times, and its mode may forbid it.
    for (const entry of this.#made.toReversed()) this.#finishDirectory(target.tree, entry)
    await this.#sync(target.tree)
    // What the target itself is, where it stands for a directory: once more, after something in it has changed.
    const root = this.#made.find((entry) => this.#placeOf(entry.path) === ROOT)
    completeTarget(this.#request.to, () => root !== undefined && this.#finishDirectory(target.tree, root))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#batches.abandon()
    await this.#threads[Symbol.asyncDispose]()
    await this.#writing
    // It has the descriptor.
    await this.#syncing
    this.#target?.tree.close()
  }

  #begin(): Target {
    if (this.#target !== undefined) return this.#target
    const { to, setuid, special, owner } = this.#request
    const isResumed = prepareTarget(this.#request)
    const noContent = (): never => {
      throw new PacsimileError('internal', 'Files are written by threads')
    }
    const onShortcoming = (shortcoming: Shortcoming): void => void this.shortcomings.push(shortcoming)
    const tree = new Materializer(to, noContent, { setuid, special, owner, onShortcoming })
    this.#target = { tree, isResumed }
    for (const entry of this.#directories) this.#makeDirectory(this.#target, entry)
    return this.#target
  }

  #makeDirectory({ tree, isResumed }: Target, entry: ListedEntry): void {
    const at = this.#placeOf(entry.path)
    const isMade = this.#attempt(entry, () => {
      tree.makeDirectory(at)
      if (!isResumed) return
      for (const { name, isDirectory } of tree.list(at))
        if (!isDirectory && name.startsWith(TEMPORARY_PREFIX) && name !== RESTORE_NOTE) tree.removeAll(childOf(at, name))
    })
    if (isMade) this.#made.push(entry)
  }

  #finishDirectory(tree: Materializer, entry: ListedEntry): void {
    this.#attempt(entry, () => tree.finishDirectory(this.#placeOf(entry.path), entry.version))
  }

  async #writeBatches(target: Target): Promise<void> {
    try {
      await this.#threads.writeComing(() => this.#batches.next(), await this.#parts(target))
    } catch (error) {
      this.#writingFailure = { error }
    }
  }

  /** Of what has a first name now. Where that cannot be written, the next one may be. */
  async #writeOtherNames(target: Target, groups: readonly LinkedFile[]): Promise<void> {
    for (let left = groups; left.length > 0; ) {
      left = left.flatMap(({ names: [first, ...more] }) => {
        if (first === undefined || more.length === 0) return []
        if (this.#failedFiles.has(first.path)) return [{ names: more }]
        for (const entry of more) this.#link(target.tree, first, entry)
        return []
      })
      await this.#threads.write(batchesOf(this.#firstsOf(left)), await this.#parts(target))
    }
  }

  /** Each file under its first name. */
  #firstsOf(groups: readonly LinkedFile[]): FileTask[] {
    return groups.flatMap(({ names: [first] }) => (first?.version.kind === 'file' ? [this.#task(first.path, first.version)] : []))
  }

  #task(path: RelativePath, version: FileVersion): FileTask {
    return { path, at: this.#placeOf(path), version }
  }

  async #parts({ tree, isResumed }: Target): Promise<WritingParts> {
    const { agent, volume, to, setuid, owner, bytesPerSecond } = this.#request
    return {
      source: this.#source,
      place: { to, replica: await this.#source.replicaDirectory(agent, volume), setuid, owner, isResumed, bytesPerSecond },
      onWritten: (bytes) => {
        this.#bytesDone += bytes
        this.#syncBeside(tree, bytes)
        this.#report()
      },
      onDone: (done, count) => this.#note(done, count),
    }
  }

  /** Has the disk begin with what is written, one time after the other. */
  #syncBeside(tree: Materializer, bytes: number): void {
    this.#unsynced += bytes
    if (libc === undefined || this.#unsynced < SYNC_BYTES || this.#syncing !== undefined) return
    this.#unsynced = 0
    this.#syncing = libc
      .filesystemSynced(tree.rootDescriptor)
      .catch((error: unknown) => void (this.#syncFailure ??= { error }))
      .then(() => void (this.#syncing = undefined))
  }

  /** Everything written is durable. */
  async #sync(tree: Materializer): Promise<void> {
    await this.#syncing
    try {
      if (this.#syncFailure !== undefined) throw this.#syncFailure.error
      libc?.syncFilesystem(tree.rootDescriptor)
      syncDirectory(this.#request.to)
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${this.#request.to}`)
    }
  }

  #note(done: FilesDone, count: number): void {
    for (const { path, reason, isDamaged } of done.failed) {
      this.#failedFiles.add(path)
      this.#failed.push({ path, cause: isDamaged ? 'damage' : 'refused', reason })
      this.damaged ||= isDamaged
    }
    this.shortcomings.push(...done.shortcomings)
    for (const path of done.kept) this.kept.add(path)
    this.fromReplica += done.near
    this.#filesDone += count - done.failed.length
    this.#report()
  }

  #link(tree: Materializer, existing: ListedEntry, entry: ListedEntry): void {
    const isMade = this.#attempt(entry, () => tree.link(this.#placeOf(existing.path), this.#placeOf(entry.path)))
    if (!isMade) return
    this.hardLinks += 1
    this.#filesDone += 1
    this.#report()
  }

  /** Of what is no regular file. */
  async #writeLinked(tree: Materializer, { names }: LinkedFile): Promise<void> {
    let first: ListedEntry | undefined
    for (const entry of names) {
      try {
        if (first === undefined) {
          await tree.put(this.#placeOf(entry.path), entry.version)
          first = entry
        } else {
          tree.link(this.#placeOf(first.path), this.#placeOf(entry.path))
          this.hardLinks += 1
        }
      } catch (error) {
        this.#fail(entry, error)
      }
    }
  }

  /** Where an entry goes in the target. The directories above it were taken before it. */
  #placeOf(path: RelativePath): RelativePath {
    return placeOf(path, this.#request, { directories: this.#directories.length })
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
    this.#failed.push({ path: entry.path, cause: isDamage ? 'damage' : 'refused', reason: reasonOf(error) })
  }

  #report(): void {
    this.#onProgress({ files: this.#filesDone, bytes: this.#bytesDone, total: this.#total })
  }
}
