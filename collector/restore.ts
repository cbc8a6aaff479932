/**
 * Restore: a point becomes a plan, the plan becomes a directory.
 *
 * Invariant: what is reported as restored has, byte for byte, the digests that its records name; what could not be
 * restored is listed with its reason, and everything else is restored all the same. It prevents a restore that is
 * silently partial, and one that stops at the first bad file.
 */
import { mkdirSync, readdirSync } from 'node:fs'
import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { type Digest, digestOf } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { syncDirectory } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { childOf, type Label, nameOf, type RelativePath, ROOT, rebase, showPath } from '../shared/path.ts'
import { type ChunkRef, hardLinkKey, type Version } from '../shared/version.ts'
import type { Absence } from './absent-content.ts'
import type { ChunkResult, HistorySource, ListedEntry } from './history-source.ts'
import { Materializer, type Shortcoming } from './materialize.ts'
import { type Point, showMoment } from './point.ts'

export interface RestoreRequest {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  /** As `source.point` understood what was asked for. */
  readonly point: Point
  /** An empty or new directory. The content of a directory goes right into it; a file becomes TO/NAME. */
  readonly to: string
  readonly dryRun: boolean
  /** Give files their setuid and setgid bits, and capabilities. */
  readonly setuid: boolean
  /** Make fifos, sockets and device nodes. */
  readonly special: boolean
  /** Restore also what was torn when it was captured. */
  readonly torn: boolean
}

export interface RestorePlan {
  readonly point: Point
  /** The state's moment in ms since 1970: what was asked for, or the time of its last record. */
  readonly momentMs: number
  readonly files: number
  readonly directories: number
  readonly symlinks: number
  readonly others: number
  readonly bytes: number
  /** Versions that may not have existed as a whole, and ones that surely did not. */
  readonly unverified: number
  readonly torn: number
}

export interface Missing {
  readonly path: RelativePath
  readonly reason: string
}

export interface RestoreReport extends RestorePlan {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly to: string
  readonly dryRun: boolean
  readonly hardLinks: number
  readonly seconds: number
  readonly missing: readonly Missing[]
  /** Whether something is missing because stored bytes are damaged. */
  readonly damaged: boolean
  readonly shortcomings: readonly Shortcoming[]
}

export interface RestoreProgress {
  readonly files: number
  readonly bytes: number
  readonly totalFiles: number
  readonly totalBytes: number
}

/** Content asked for in one request. */
const BATCH_BYTES = 32 << 20
const BATCH_CHUNKS = 4096

async function planRestore(
  source: HistorySource,
  request: Pick<RestoreRequest, 'agent' | 'volume' | 'path' | 'point'>,
): Promise<{ plan: RestorePlan; entries: ListedEntry[] }> {
  const { point } = request
  const entries: ListedEntry[] = []
  const count = { files: 0, directories: 0, symlinks: 0, others: 0, bytes: 0, unverified: 0, torn: 0 }
  for await (const entry of source.tree(request.agent, request.volume, request.path, point.position)) {
    entries.push(entry)
    const { version } = entry
    if (version.kind === 'file') {
      count.files += 1
      count.bytes += version.size
      if (version.consistency === 'torn') count.torn += 1
      if (version.consistency === 'unverified') count.unverified += 1
    } else if (version.kind === 'directory') {
      count.directories += 1
    } else if (version.kind === 'symlink') {
      count.symlinks += 1
    } else {
      count.others += 1
    }
  }
  // A volume that holds nothing is a state like any other; a path below it that is not there is a mistake.
  if (entries.length === 0 && request.path !== ROOT) {
    throw new PacsimileError('not-found', `${request.agent}:${request.volume}/${showPath(request.path)} did not exist at that moment`)
  }
  return { plan: { point, momentMs: momentOf(point), ...count }, entries }
}

function momentOf(point: Point): number {
  return point.requestedMs ?? millisecondsOf(point.time ?? (0n as HybridTime))
}

/** @throws not-found, outside-window, target-not-empty, io, space */
export async function restore(
  source: HistorySource,
  request: RestoreRequest,
  onProgress: (progress: RestoreProgress) => void = () => {},
): Promise<RestoreReport> {
  const started = performance.now()
  const { plan, entries } = await planRestore(source, request)
  const about = { agent: request.agent, volume: request.volume, path: request.path, to: request.to, dryRun: request.dryRun, ...plan }
  if (request.dryRun) {
    const missing: Missing[] = []
    for (const entry of entries) {
      const reason = await whyRefused(source, request, entry)
      if (reason !== undefined) missing.push({ path: entry.path, reason })
    }
    return { ...about, hardLinks: 0, seconds: (performance.now() - started) / 1000, missing, damaged: false, shortcomings: [] }
  }
  prepareTarget(request.to)
  const run = new Restoration(source, request, plan, onProgress)
  try {
    await run.write(entries)
    run.sync()
  } finally {
    run.close()
  }
  return {
    ...about,
    hardLinks: run.hardLinks,
    seconds: (performance.now() - started) / 1000,
    missing: run.missing,
    damaged: run.damaged,
    shortcomings: run.shortcomings,
  }
}

const ABSENCES: Readonly<Record<Absence, string>> = {
  lost: 'the agent could not keep this content until it was acknowledged',
  expired: 'this content has expired: the retention did not ask for it any more',
}
const TORN = 'its content was torn when captured (parts of several moments); --torn restores it all the same'

/** Why a path is not even tried; undefined where it is. */
async function whyRefused(source: HistorySource, request: RestoreRequest, entry: ListedEntry): Promise<string | undefined> {
  const { path, version, absent } = entry
  if (absent !== undefined) return ABSENCES[absent]
  if (isRefusedAsTorn(request, version)) {
    const whole = await source.lastWhole(request.agent, request.volume, path, entry.position)
    return whole === undefined ? TORN : `${TORN}; the last whole version is of ${showMoment(millisecondsOf(whole))}`
  }
  const isSpecial = version.kind !== 'file' && version.kind !== 'directory' && version.kind !== 'symlink'
  return isSpecial && !request.special ? `a ${version.kind} is recorded; --special recreates it` : undefined
}

function isRefusedAsTorn({ torn }: RestoreRequest, version: Version): boolean {
  return !torn && version.kind === 'file' && version.consistency === 'torn'
}

function prepareTarget(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    if (readdirSync(directory).length > 0) throw new PacsimileError('target-not-empty', `${directory} is not empty`)
  } catch (error) {
    throw asPacsimileError(error, `Preparing ${directory}`)
  }
}

class Restoration {
  readonly missing: Missing[] = []
  readonly shortcomings: Shortcoming[] = []
  damaged = false
  hardLinks = 0
  readonly #source: HistorySource
  readonly #request: RestoreRequest
  readonly #plan: RestorePlan
  readonly #onProgress: (progress: RestoreProgress) => void
  readonly #target: Materializer
  readonly #directories: { at: RelativePath; entry: ListedEntry }[] = []
  /** By what makes hard links equal: where one of them was written. */
  readonly #linked = new Map<string, RelativePath>()
  #contents: AsyncIterator<ChunkResult> | undefined
  /** Chunks of the file being written that are still to come from `#contents`. */
  #left = 0
  #files = 0
  #bytes = 0

  constructor(source: HistorySource, request: RestoreRequest, plan: RestorePlan, onProgress: (progress: RestoreProgress) => void) {
    this.#source = source
    this.#request = request
    this.#plan = plan
    this.#onProgress = onProgress
    this.#target = new Materializer(request.to, (name, length) => this.#nextChunk(name, length), {
      setuid: request.setuid,
      special: request.special,
      onShortcoming: (shortcoming) => this.shortcomings.push(shortcoming),
    })
  }

  close(): void {
    this.#target.close()
  }

  /** Everything written is durable. */
  sync(): void {
    try {
      libc?.syncFilesystem(this.#target.rootDescriptor)
      syncDirectory(this.#request.to)
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${this.#request.to}`)
    }
  }

  async write(entries: readonly ListedEntry[]): Promise<void> {
    let batch: ListedEntry[] = []
    let bytes = 0
    let chunks = 0
    for (const entry of entries) {
      batch.push(entry)
      if (entry.version.kind !== 'file') continue
      bytes += entry.version.size
      chunks += entry.version.chunks.length
      if (bytes >= BATCH_BYTES || chunks >= BATCH_CHUNKS) {
        await this.#writeBatch(batch)
        batch = []
        bytes = 0
        chunks = 0
      }
    }
    await this.#writeBatch(batch)
    // Deepest first: writing into a directory changes its times, and its mode may forbid it.
    for (const { at, entry } of this.#directories.reverse()) this.#attempt(entry, () => this.#target.finishDirectory(at, entry.version))
  }

  async #writeBatch(batch: readonly ListedEntry[]): Promise<void> {
    const refsOf = ({ version, absent }: ListedEntry): readonly ChunkRef[] =>
      version.kind === 'file' && absent === undefined && !isRefusedAsTorn(this.#request, version) && this.#linkFor(version) === undefined
        ? version.chunks
        : []
    const plan = batch.map((entry) => ({ entry, refs: refsOf(entry) }))
    this.#contents = this.#source.chunks(plan.flatMap(({ refs }) => refs))[Symbol.asyncIterator]()
    for (const { entry, refs } of plan) {
      this.#left = refs.length
      await this.#writeEntry(entry)
      // A file that failed in its middle, or became a link of one in this batch, leaves chunks in the stream.
      while (this.#left > 0) {
        this.#left -= 1
        await this.#contents.next()
      }
    }
    await this.#contents.return?.()
  }

  /** A path that was written and is the same file. */
  #linkFor(version: Version): RelativePath | undefined {
    const key = hardLinkKey(version)
    return key === undefined ? undefined : this.#linked.get(key)
  }

  async #nextChunk(name: Digest, length: number): Promise<Buffer> {
    this.#left -= 1
    const result = await this.#contents?.next()
    if (result === undefined || result.done === true) throw new PacsimileError('internal', 'The stream of content ended early')
    if ('failure' in result.value) throw new PacsimileError('damage', result.value.failure)
    const { bytes } = result.value
    if (bytes.length !== length || digestOf(bytes) !== name)
      throw new PacsimileError('damage', 'Content arrived that is not what its digest names')
    this.#bytes += length
    this.#report()
    return bytes
  }

  async #writeEntry(entry: ListedEntry): Promise<void> {
    const at = this.#placeOf(entry.path)
    const { version } = entry
    if (version.kind === 'directory') {
      this.#attempt(entry, () => {
        this.#target.makeDirectory(at)
        this.#directories.push({ at, entry })
      })
      return
    }
    const refused = await whyRefused(this.#source, this.#request, entry)
    if (refused !== undefined) {
      this.missing.push({ path: entry.path, reason: refused })
      return
    }
    try {
      const existing = this.#linkFor(version)
      if (existing === undefined) {
        await this.#target.put(at, version)
        const key = hardLinkKey(version)
        if (key !== undefined) this.#linked.set(key, at)
      } else {
        this.#target.link(existing, at)
        this.hardLinks += 1
      }
      if (version.kind === 'file') this.#files += 1
      this.#report()
    } catch (error) {
      this.#fail(entry, error)
    }
  }

  /** Where an entry goes in the target. */
  #placeOf(path: RelativePath): RelativePath {
    const isSingle = this.#plan.directories === 0 && path === this.#request.path && path !== ROOT
    return isSingle ? childOf(ROOT, nameOf(path)) : rebase(path, this.#request.path, ROOT)
  }

  #attempt(entry: ListedEntry, act: () => void): void {
    try {
      act()
    } catch (error) {
      this.#fail(entry, error)
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
    this.missing.push({ path: entry.path, reason: reasonOf(error) })
  }

  #report(): void {
    this.#onProgress({ files: this.#files, bytes: this.#bytes, totalFiles: this.#plan.files, totalBytes: this.#plan.bytes })
  }
}
