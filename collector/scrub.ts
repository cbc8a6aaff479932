/**
 * Scrubs a repository: every file of it, from the disk itself, repaired where it has parity, with a word in `heals.jsonl` for
 * every repair.
 *
 * Invariant: a repair that cannot be noted down has been made all the same, and is told. It prevents a disk that fails little by
 * little from being mended in silence.
 */
import { closeSync, constants, fchownSync, fsyncSync, openSync, statSync, writeSync } from 'node:fs'
import { join, relative } from 'node:path'
import { type Digest, digestHex } from '../shared/digest.ts'
import { asPacsimileError } from '../shared/errors.ts'
import { isPresent, readIfPresent, syncDirectory } from '../shared/files.ts'
import type { Damage } from './catalog.ts'
import type { ChunkSource } from './chunk-heal.ts'
import { isRemoved, missingDamage, passedOver, type RepositoryFile } from './missing-files.ts'
import { supersededBy } from './needed-chunks.ts'
import { replay } from './replay.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { Repository } from './repository/repository.ts'
import { ScratchCatalog } from './scratch-catalog.ts'
import type { ScrubbedFile, ScrubOptions } from './scrub-file.ts'
import { ScrubThread } from './scrub-thread.ts'

/** Segments first: without records nothing is found of what packs hold. */
export const SCRUBBED_KINDS = ['segment', 'pack'] as const satisfies readonly FrameFileKind[]
const HEALS_FILE = 'heals.jsonl'

export interface ScrubReport {
  readonly repository: string
  readonly files: number
  readonly bytes: number
  readonly seconds: number
  /** Sealed files that have no parity, and files that are not sealed. */
  readonly unprotected: number
  readonly found: readonly Damage[]
  readonly healed: readonly HealedFile[]
  /** Damage that is there still, and concerns something. */
  readonly left: readonly Damage[]
  /** Damage that is there still in packs from which nothing that is damaged is read any more. */
  readonly superseded: readonly Damage[]
}

/** A line of `heals.jsonl`. */
export interface HealedFile {
  /** ISO 8601. */
  readonly time: string
  /** Below the repository's directory. */
  readonly file: string
  /** Who gave what parity could not repair: what is in `chunks` was stored once more, in another pack; without any, the file is that copy's now. */
  readonly source: 'parity' | ChunkSource
  readonly blocks: readonly { readonly offset: number; readonly length: number; readonly before: string; readonly after: string }[]
  /** Parity, index or footer were damaged, and were written anew. */
  readonly end: boolean
  /** Digests of what was stored once more, in hex. */
  readonly chunks: readonly string[]
}

export interface ScrubProgress {
  readonly bytes: number
  readonly totalBytes: number
}

export interface RepositoryScrub extends ScrubOptions {
  readonly onProgress?: (progress: ScrubProgress) => void
  /** Has these files scrubbed by the collector that runs, which may know who has what is not to be had here. */
  readonly help?: (files: readonly RepositoryFile[]) => Promise<void>
}

/** @throws io, space, format-unknown */
export async function scrubRepository(repository: Repository, dataKey: Buffer, options: RepositoryScrub): Promise<ScrubReport> {
  const { parity, bytesPerSecond, onProgress, help } = options
  const startedMs = Date.now()
  await using thread = new ScrubThread(dataKey, { parity, bytesPerSecond })
  const files = SCRUBBED_KINDS.flatMap((kind) => repository.numbers(kind).map((number) => ({ kind, number })))
  const totalBytes = files.reduce((sum, { kind, number }) => sum + repository.sizeOf(kind, number), 0)
  const [found, healed]: [Damage[], HealedFile[]] = [[], []]
  const left = new LeftDamage(repository)
  let bytes = 0
  let unprotected = 0
  for (const file of files) {
    const { scrubbed, heal } = await scrubOne(repository, thread, file.kind, file.number)
    bytes += scrubbed.bytes
    found.push(...scrubbed.found)
    left.set(file, scrubbed.left)
    if (scrubbed.protection !== 'parity') unprotected += 1
    if (heal !== undefined) healed.push(heal)
    onProgress?.({ bytes, totalBytes })
  }
  found.push(...(await left.addMissing()))
  const concerned = await left.concerned()
  if (concerned.length > 0 && help !== undefined) {
    await help(concerned)
    for (const { kind, number } of concerned) {
      const isThere = repository.extentOf(kind, number) !== undefined
      const identity = { kind, number, repository: repository.id }
      const again = isThere ? (await thread.scrub(repository.pathOf(kind, number), identity, false)).left : undefined
      repository.forget(kind, number)
      left.set({ kind, number }, again ?? [missingDamage(repository, { kind, number })])
    }
    healed.push(...healsSince(repository.directory, startedMs).filter(({ source }) => source !== 'parity'))
  }
  const { concerning, superseded } = await left.judged()
  const seconds = (Date.now() - startedMs) / 1000
  return { repository: repository.id, files: files.length, bytes, seconds, unprotected, found, healed, left: concerning, superseded }
}

/** Damage that is there still, by file. */
class LeftDamage {
  readonly #repository: Repository
  readonly #left = new Map<string, { readonly file: RepositoryFile; readonly damage: readonly Damage[] }>()

  constructor(repository: Repository) {
    this.#repository = repository
  }

  set(file: RepositoryFile, damage: readonly Damage[]): void {
    const key = `${file.kind} ${file.number}`
    if (damage.length > 0) this.#left.set(key, { file, damage })
    else this.#left.delete(key)
  }

  /** @returns what was found */
  async addMissing(): Promise<Damage[]> {
    const repository = this.#repository
    const gaps = SCRUBBED_KINDS.flatMap((kind) => passedOver(repository.numbers(kind)).map((number) => ({ kind, number })))
    if (gaps.length === 0) return []
    await using scratch = await folded(repository)
    const missing = gaps.filter((file) => !isRemoved(scratch.catalog, file))
    for (const file of missing) this.set(file, [missingDamage(repository, file)])
    return missing.map((file) => missingDamage(repository, file))
  }

  async judged(): Promise<{ readonly concerning: Damage[]; readonly superseded: Damage[] }> {
    const all = [...this.#left.values()].flatMap(({ damage }) => damage)
    if (all.length === 0) return { concerning: [], superseded: [] }
    await using scratch = await folded(this.#repository)
    const superseded = await supersededBy(scratch.catalog, this.#repository, all)
    return { concerning: all.filter((damage) => !superseded.includes(damage)), superseded }
  }

  /** The files of which something concerns somebody. */
  async concerned(): Promise<RepositoryFile[]> {
    const { concerning } = await this.judged()
    const paths = new Set(concerning.map(({ file }) => file))
    return [...this.#left.values()].flatMap(({ file, damage }) => (damage.some((found) => paths.has(found.file)) ? [file] : []))
  }
}

async function folded(repository: Repository): Promise<ScratchCatalog> {
  const scratch = await ScratchCatalog.open()
  await replay(repository, scratch.catalog)
  return scratch
}

/** What was repaired since then, by whomever. */
function healsSince(directory: string, sinceMs: number): HealedFile[] {
  const text = readIfPresent(join(directory, HEALS_FILE))?.toString('utf8') ?? ''
  const lines = text.split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line) as HealedFile).filter(({ time }) => Date.parse(time) >= sinceMs)
}

/** Scrubs a file, and notes down what was repaired in it. */
export async function scrubOne(
  repository: Repository,
  thread: ScrubThread,
  kind: FrameFileKind,
  number: number,
): Promise<{ readonly scrubbed: ScrubbedFile; readonly heal: HealedFile | undefined }> {
  const scrubbed = await thread.scrub(repository.pathOf(kind, number), { kind, repository: repository.id, number })
  const heal = healOf(repository, scrubbed)
  if (heal === undefined) return { scrubbed, heal }
  // What was opened before is the damaged file still.
  repository.forget(kind, number)
  noteDown(repository.directory, heal)
  return { scrubbed, heal }
}

function healOf(repository: Repository, { path, repair }: ScrubbedFile): HealedFile | undefined {
  if (repair === undefined) return undefined
  const file = relative(repository.directory, path)
  return { time: new Date().toISOString(), file, source: 'parity', blocks: repair.healed, end: repair.isEndHealed, chunks: [] }
}

/** Notes down that chunks of a file were stored once more. */
export function noteChunkHeal(repository: Repository, path: string, source: ChunkSource, digests: readonly Digest[]): void {
  const file = relative(repository.directory, path)
  const chunks = digests.map((digest) => digestHex(digest))
  noteDown(repository.directory, { time: new Date().toISOString(), file, source, blocks: [], end: false, chunks })
}

/** Notes down that a file was replaced by a copy's. */
export function noteCopyHeal(repository: Repository, path: string, copy: string): void {
  const file = relative(repository.directory, path)
  noteDown(repository.directory, { time: new Date().toISOString(), file, source: `copy ${copy}`, blocks: [], end: false, chunks: [] })
}

function noteDown(directory: string, heal: HealedFile): void {
  const path = join(directory, HEALS_FILE)
  try {
    const isNew = !isPresent(path)
    const fd = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT, 0o600)
    try {
      // Whoever repairs may be root, and the collector is not.
      const { uid, gid } = statSync(directory)
      if (isNew) fchownSync(fd, uid, gid)
      writeSync(fd, `${JSON.stringify(heal)}\n`)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    if (isNew) syncDirectory(directory)
  } catch (error) {
    throw asPacsimileError(error, `Noting a repair of ${heal.file} in ${path}`)
  }
}
