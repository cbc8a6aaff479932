/**
 * Scrubbing in rounds beside everything else that a collector does: one file after the other, spread over the days of a round.
 *
 * The place in the round is kept in DATA/scrub.json, so that a restart goes on there. Invariant: a file counts as verified in a
 * round only after it was read in it. It prevents a collector that is restarted every night from verifying the same files for ever,
 * and calling that a coverage.
 */
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { z } from 'zod'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { writeFileDurably } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Catalog, Damage } from './catalog.ts'
import { distrust } from './catalog-opening.ts'
import { faultOfTables } from './catalog-tables.ts'
import type { ChunkHealer } from './chunk-heal.ts'
import type { Damages } from './damages.ts'
import type { FileHealer } from './file-heal.ts'
import { Follow } from './follow.ts'
import { isRemoved, missingDamage, passedOver, type RepositoryFile } from './missing-files.ts'
import { fileOf } from './repository/copy.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { Repository } from './repository/repository.ts'
import { SCRUBBED_KINDS, scrubOne } from './scrub.ts'
import type { ScrubbedFile } from './scrub-file.ts'
import type { ScrubThread } from './scrub-thread.ts'

/** What `status` shows of it. */
export interface ScrubStatus {
  /** Of this round. */
  readonly startedMs: number
  readonly verifiedBytes: number
  readonly totalBytes: number
  /** Every byte that is older than the round before was verified since then; undefined before the first whole round. */
  readonly allVerifiedSinceMs: number | undefined
  /** Files repaired since the data directory was made. */
  readonly repaired: number
}

const STATE = z.object({
  roundStartedMs: z.number(),
  /** The last file that was verified in this round. */
  kind: z.enum(['segment', 'pack']).optional(),
  number: z.number().int().min(0),
  nextMs: z.number(),
  lastRoundStartedMs: z.number().optional(),
  repaired: z.number().int().min(0),
})
type State = z.output<typeof STATE>

export interface ScrubRoundsParts {
  readonly dataDir: string
  readonly repository: Repository
  readonly catalog: Catalog
  readonly thread: ScrubThread
  readonly damages: Damages
  readonly chunks: ChunkHealer
  readonly files: FileHealer
  /** Of the catalog. */
  readonly catalogDirectory: string
  /** The catalog cannot be believed: it is made anew when the collector starts again. */
  readonly onCatalogDamage: (error: PacsimileError) => void
  /** What a round takes. */
  readonly roundMs: number
  readonly log: Log
}

/** A file of the repository. */
interface Surveyed extends RepositoryFile {
  readonly bytes: number
}

const DAY_MS = 24 * 3_600_000
/** Looking for the files and their sizes takes its time where there are a million. */
const SURVEY_MS = 600_000
/** Before a file that could not be read is tried again. */
const RETRY_MS = 60_000
/** After so many attempts it is called damaged, and the others have their turn. */
const ATTEMPTS_MAX = 5
/** After the start: by then agents are connected, and copies looked at. */
const AGENTS_COME_MS = 30_000
/** What is damaged is tried again so often. */
const AGAIN_MS = 3_600_000
/** A round ends before the next one is due. */
const SHARE = 0.9

export class ScrubRounds {
  readonly #parts: ScrubRoundsParts
  #state: State
  /** To scrub the next file, in vain. */
  #attempts = 0
  readonly #follow = new Follow()
  readonly #asked: ((running: AbortSignal) => Promise<void>)[] = []
  /** Packs that prune is known to have removed. */
  readonly #removed = new Set<number>()
  #againMs = Date.now() + AGENTS_COME_MS
  #surveyed: { readonly atMs: number; readonly files: readonly Surveyed[] } | undefined

  constructor(parts: ScrubRoundsParts) {
    this.#parts = parts
    const nowMs = Date.now()
    const state = readState(parts.dataDir) ?? { roundStartedMs: nowMs, number: 0, nextMs: nowMs, repaired: 0 }
    // A round may have been longer then, and the clock another one.
    this.#state = { ...state, nextMs: Math.min(state.nextMs, nowMs + parts.roundMs) }
  }

  get status(): ScrubStatus {
    const { roundStartedMs, lastRoundStartedMs, repaired } = this.#state
    let [verifiedBytes, totalBytes] = [0, 0]
    for (const { kind, number, bytes } of this.#survey(SURVEY_MS)) {
      totalBytes += bytes
      if (this.#isVerified(kind, number)) verifiedBytes += bytes
    }
    return { startedMs: roundStartedMs, verifiedBytes, totalBytes, allVerifiedSinceMs: lastRoundStartedMs, repaired }
  }

  /** Until the signal is given. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const asked = this.#asked.shift()
      const waitMs = Math.min(this.#state.nextMs, this.#againMs) - Date.now()
      if (asked !== undefined) await asked(signal)
      else if (waitMs > 0) await this.#follow.next(Math.min(waitMs, DAY_MS), signal)
      else if (this.#againMs <= Date.now()) await this.#scrubDamaged(signal)
      else await this.#step(signal)
    }
  }

  /** These files at once, before the round goes on. Resolves when that is done, or the signal is given. */
  async scrub(files: readonly RepositoryFile[], signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    await new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true })
      this.#asked.push(async (running) => {
        for (const { kind, number } of files) if (!running.aborted && !signal.aborted) await this.#scrubAgain(kind, number, running)
        resolve()
      })
      this.#follow.signal()
    })
  }

  /** Who could not help then may be there by now: an agent, a copy. */
  async #scrubDamaged(signal: AbortSignal): Promise<void> {
    const { damages, repository } = this.#parts
    const names = new Set(damages.list.map(({ file }) => relative(repository.directory, file)))
    for (const found of [...names].map(fileOf))
      if (found !== undefined && !signal.aborted) await this.#scrubAgain(found.kind, found.number, signal)
    this.#againMs = Date.now() + AGAIN_MS
  }

  async #scrubAgain(kind: FrameFileKind, number: number, signal: AbortSignal): Promise<void> {
    try {
      const { isRepaired } = await this.#scrubFile(kind, number)
      if (isRepaired) this.#keep({ ...this.#state, repaired: this.#state.repaired + 1 })
    } catch (error) {
      if (signal.aborted) return
      const { code, message } = asPacsimileError(error, 'Scrubbing')
      this.#parts.log.error('a damaged file of the repository cannot be scrubbed', { code, reason: message })
    }
  }

  #survey(ageMs: number): readonly Surveyed[] {
    const { repository } = this.#parts
    if (this.#surveyed === undefined || performance.now() - this.#surveyed.atMs > ageMs) {
      const files = SCRUBBED_KINDS.flatMap((kind) =>
        this.#numbers(kind).map((number) => ({ kind, number, bytes: repository.sizeOf(kind, number) })),
      )
      this.#surveyed = { atMs: performance.now(), files }
    }
    return this.#surveyed.files
  }

  /** Also of files that should be there. */
  #numbers(kind: FrameFileKind): number[] {
    const there = this.#parts.repository.numbers(kind)
    const missing = passedOver(there).filter((number) => {
      if (kind === 'pack' && this.#removed.has(number)) return false
      const isMissing = !isRemoved(this.#parts.catalog, { kind, number })
      if (!isMissing) this.#removed.add(number)
      return isMissing
    })
    return [...there, ...missing].sort((one, other) => one - other)
  }

  /** The next file of this round. */
  #next(): Surveyed | undefined {
    const isDue = ({ kind, number }: Surveyed): boolean => !this.#isVerified(kind, number)
    return this.#survey(SURVEY_MS).find(isDue) ?? this.#survey(0).find(isDue)
  }

  #isVerified(kind: FrameFileKind, number: number): boolean {
    const { kind: lastKind, number: lastNumber } = this.#state
    if (lastKind === undefined) return false
    const [at, last] = [SCRUBBED_KINDS.indexOf(kind), SCRUBBED_KINDS.indexOf(lastKind)]
    return at < last || (at === last && number <= lastNumber)
  }

  async #step(signal: AbortSignal): Promise<void> {
    const { repository, catalog, roundMs, log } = this.#parts
    const next = this.#next()
    const files = this.#survey(SURVEY_MS)
    if (files.length === 0) {
      this.#state = { ...this.#state, nextMs: Date.now() + RETRY_MS }
      return
    }
    if (next === undefined) {
      await this.#verifyCatalog(signal)
      this.#endRound()
      return
    }
    const { kind, number } = next
    const roundStartedMs = this.#state.kind === undefined ? Date.now() : this.#state.roundStartedMs
    const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0)
    // Since the files were looked for.
    if (repository.sizeOf(kind, number) === 0 && isRemoved(catalog, { kind, number })) {
      this.#keep({ ...this.#state, roundStartedMs, kind, number })
      return
    }
    try {
      const { bytes, isRepaired } = await this.#scrubFile(kind, number)
      const restMs = (bytes / Math.max(1, totalBytes)) * roundMs * SHARE
      const nextMs = Date.now() + restMs
      this.#keep({ ...this.#state, roundStartedMs, kind, number, nextMs, repaired: this.#state.repaired + Number(isRepaired) })
    } catch (error) {
      if (signal.aborted) return
      const { code, message } = asPacsimileError(error, 'Scrubbing')
      log.error('a file of the repository cannot be scrubbed', { code, reason: message, attempt: this.#attempts + 1 })
      const isGivenUp = ++this.#attempts >= ATTEMPTS_MAX
      this.#state = { ...this.#state, ...(isGivenUp ? { roundStartedMs, kind, number } : {}), nextMs: Date.now() + RETRY_MS }
      if (!isGivenUp) return
      const file = repository.pathOf(kind, number)
      await this.#parts.damages.scrubbed(file, [{ file, offset: 0, reason: `it could not be scrubbed: ${message}` }], true)
    }
    this.#attempts = 0
  }

  /** Reads it, and heals it as far as that can be. */
  async #scrubFile(kind: FrameFileKind, number: number): Promise<{ readonly bytes: number; readonly isRepaired: boolean }> {
    const { repository, catalog, thread, files, damages, log } = this.#parts
    const { packs, segments } = catalog.reflected()
    const isMissing = repository.extentOf(kind, number) === undefined
    if (isMissing && isRemoved(catalog, { kind, number })) return { bytes: 0, isRepaired: false }
    const { scrubbed, heal } = isMissing
      ? { scrubbed: missing(missingDamage(repository, { kind, number })), heal: undefined }
      : await scrubOne(repository, thread, kind, number)
    if (heal !== undefined)
      log.warn('a file of the repository was damaged and is repaired', { file: heal.file, blocks: heal.blocks.length })
    const { left, isReplaced } = await files.heal(scrubbed, kind, number, kind === 'pack' ? packs : segments)
    for (const { file, offset, reason } of left) log.error('the repository is damaged', { file, offset, reason })
    const isRepaired = heal !== undefined || isReplaced
    const isFolded = await this.#fold(scrubbed.path, kind, number, { left, isRepaired })
    await damages.scrubbed(scrubbed.path, left, isFolded)
    return { bytes: scrubbed.bytes, isRepaired }
  }

  /** What is right again in a file may have been missing when the catalog was made. */
  async #fold(
    path: string,
    kind: FrameFileKind,
    number: number,
    { left, isRepaired }: { readonly left: readonly Damage[]; readonly isRepaired: boolean },
  ): Promise<boolean> {
    const { repository, damages, chunks } = this.#parts
    if (!damages.wasMet(path)) return true
    if (left.length > 0) return false
    if (kind === 'pack') {
      if (repository.extentOf(kind, number) !== undefined) await chunks.fold(number)
      return true
    }
    // What else has met that damage, a record after it, is no reason: then the next catalog would lack the same.
    if (isRepaired) this.#makeCatalogAnew(`${path} was damaged when it was made, and is whole again`)
    return false
  }

  /** By the next start. */
  #makeCatalogAnew(reason: string): void {
    const { catalogDirectory, onCatalogDamage, log } = this.#parts
    log.warn('the catalog lacks something; the collector starts anew, and makes it from the repository', { reason })
    distrust(catalogDirectory, reason)
    onCatalogDamage(new PacsimileError('damage', `The catalog lacks something: ${reason}`))
  }

  async #verifyCatalog(signal: AbortSignal): Promise<void> {
    const { catalogDirectory, onCatalogDamage, log } = this.#parts
    const fault = await faultOfTables(catalogDirectory, signal)
    if (fault === undefined) return
    log.error('the catalog is damaged; the collector starts anew, and makes it from the repository', { reason: fault })
    distrust(catalogDirectory, fault)
    onCatalogDamage(new PacsimileError('damage', `The catalog is damaged: ${fault}`))
  }

  #endRound(): void {
    const { roundStartedMs, repaired } = this.#state
    this.#parts.log.info('every file of the repository was scrubbed', { since: new Date(roundStartedMs).toISOString() })
    const nextMs = Math.max(Date.now(), roundStartedMs + this.#parts.roundMs)
    this.#keep({ roundStartedMs: nextMs, number: 0, nextMs, lastRoundStartedMs: roundStartedMs, repaired })
  }

  #keep(state: State): void {
    this.#state = state
    writeFileDurably(stateFile(this.#parts.dataDir), `${JSON.stringify(state)}\n`)
  }
}

/** A file that should be there, and is not. */
function missing(damage: Damage): ScrubbedFile {
  const nothing = { bytes: 0, protection: 'sealed', frames: undefined, repair: undefined, torn: undefined } as const
  return { ...nothing, path: damage.file, found: [damage], left: [damage] }
}

function stateFile(dataDir: string): string {
  return join(dataDir, 'scrub.json')
}

/** Undefined: a round begins from the start, which costs nothing but reading. */
function readState(dataDir: string): State | undefined {
  try {
    return STATE.safeParse(JSON.parse(readFileSync(stateFile(dataDir), 'utf8'))).data
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw asPacsimileError(error, `Reading ${stateFile(dataDir)}`)
  }
}
