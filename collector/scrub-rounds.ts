/**
 * Scrubbing in rounds beside everything else that a collector does: one file after the other, spread over the days of a round.
 *
 * The place in the round is kept in DATA/scrub.json, so that a restart goes on there. Invariant: a file counts as verified in a
 * round only after it was read in it. It prevents a collector that is restarted every night from verifying the same files for ever,
 * and calling that a coverage.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { z } from 'zod'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { writeFileDurably } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import type { Catalog, Damage } from './catalog.ts'
import { distrust } from './catalog-opening.ts'
import { faultOfTables } from './catalog-tables.ts'
import type { ChunkHealer } from './chunk-heal.ts'
import type { Damages } from './damages.ts'
import { retirementOf } from './ledger-view.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { Repository } from './repository/repository.ts'
import { noteCopyHeal, noteReplicaHeal, SCRUBBED_KINDS, scrubOne } from './scrub.ts'
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
  readonly healer: ChunkHealer
  /** Of the catalog. */
  readonly catalogDirectory: string
  /** The catalog cannot be believed: it is made anew when the collector starts again. */
  readonly onCatalogDamage: (error: PacsimileError) => void
  /** Puts a copy's file in the place of a damaged one. @returns the copy's name */
  readonly healFromCopy: (kind: FrameFileKind, number: number) => Promise<string | undefined>
  /** What a round takes. */
  readonly roundMs: number
  readonly log: Log
}

/** A file of the repository. */
interface Surveyed {
  readonly kind: FrameFileKind
  readonly number: number
  readonly bytes: number
}

const DAY_MS = 24 * 3_600_000
/** Looking for the files and their sizes takes its time where there are a million. */
const SURVEY_MS = 600_000
/** Before a file that could not be read is tried again. */
const RETRY_MS = 60_000
/** After so many attempts it is called damaged, and the others have their turn. */
const ATTEMPTS_MAX = 5
/** A round ends before the next one is due. */
const SHARE = 0.9

export class ScrubRounds {
  readonly #parts: ScrubRoundsParts
  #state: State
  /** To scrub the next file, in vain. */
  #attempts = 0
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
      const waitMs = Math.min(this.#state.nextMs - Date.now(), DAY_MS)
      // A pause that is broken off is over.
      if (waitMs > 0) await setTimeout(waitMs, undefined, { signal }).catch(() => {})
      else await this.#step(signal)
    }
  }

  #survey(ageMs: number): readonly Surveyed[] {
    const { repository } = this.#parts
    if (this.#surveyed === undefined || performance.now() - this.#surveyed.atMs > ageMs) {
      const files = SCRUBBED_KINDS.flatMap((kind) =>
        repository.numbers(kind).map((number) => ({ kind, number, bytes: repository.sizeOf(kind, number) })),
      )
      this.#surveyed = { atMs: performance.now(), files }
    }
    return this.#surveyed.files
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
    const { repository, thread, roundMs, log } = this.#parts
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
    if (repository.sizeOf(kind, number) === 0 && this.#isDeleted(kind, number)) {
      this.#keep({ ...this.#state, roundStartedMs, kind, number })
      return
    }
    try {
      const { scrubbed, heal } = await scrubOne(repository, thread, kind, number)
      if (heal !== undefined)
        log.warn('a file of the repository was damaged and is repaired', { file: heal.file, blocks: heal.blocks.length })
      const copy = scrubbed.left.length > 0 ? await this.#healFromCopy(scrubbed, kind, number) : undefined
      const mended = copy === undefined ? scrubbed : { ...scrubbed, left: [] }
      const left = kind === 'pack' && mended.left.length > 0 ? await this.#healFromReplica(mended, number) : mended.left
      for (const { file, offset, reason } of left) log.error('the repository is damaged', { file, offset, reason })
      const isFolded = await this.#fold(scrubbed.path, kind, number, left)
      await this.#parts.damages.scrubbed(scrubbed.path, left, isFolded)
      const restMs = (scrubbed.bytes / Math.max(1, totalBytes)) * roundMs * SHARE
      this.#keep({
        ...this.#state,
        roundStartedMs,
        kind,
        number,
        nextMs: Date.now() + restMs,
        repaired: this.#state.repaired + Number(heal !== undefined || copy !== undefined),
      })
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

  /** Whether prune has removed it since the files were looked for. */
  #isDeleted(kind: FrameFileKind, number: number): boolean {
    return kind === 'pack' && (retirementOf(this.#parts.catalog, number)?.deletedBy ?? 0) > 0
  }

  async #healFromCopy({ path }: ScrubbedFile, kind: FrameFileKind, number: number): Promise<string | undefined> {
    const { repository, healFromCopy, log } = this.#parts
    const copy = await healFromCopy(kind, number)
    if (copy === undefined) return undefined
    log.warn('a file of the repository was damaged beyond its parity and is replaced by that of a copy', { file: path, copy })
    noteCopyHeal(repository, path, copy)
    return copy
  }

  /** @returns what concerns something still */
  async #healFromReplica({ path, left }: ScrubbedFile, pack: number): Promise<readonly Damage[]> {
    const { repository, healer, log } = this.#parts
    const { healed, lost } = await healer.heal(pack)
    if (healed.length > 0) {
      log.warn('content of a damaged pack was stored once more, from the replica', { file: path, chunks: healed.length, lost: lost.length })
      noteReplicaHeal(repository, path, healed)
    }
    return lost.length === 0 ? [] : left
  }

  /** What is right again in a pack may have been missing when the catalog was made. */
  async #fold(path: string, kind: FrameFileKind, number: number, left: readonly Damage[]): Promise<boolean> {
    const { damages, healer } = this.#parts
    if (!damages.wasMet(path)) return true
    if (kind !== 'pack' || left.length > 0) return false
    await healer.fold(number)
    return true
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
