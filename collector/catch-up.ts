/**
 * Brings the catalog up to the repository: at once where it lacks little, else while ingest goes on.
 *
 * It folds in rounds, each what was taken in during the one before, and the last, small one between two commits. Where agents send as fast as
 * is folded, the rounds do not get smaller: then the rest is folded with ingest held back. A crash leaves an older whole
 * catalog, and the next start goes on from there. Invariant: nobody reads the catalog, or follows it, before it has everything that was
 * acknowledged. It prevents a lost index from costing either the changes of an hour, or a replica that forgets files.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { ChainEnd } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import type { Ingest } from './ingest.ts'
import { type ReplayOptions, replay } from './replay.ts'
import type { Repository } from './repository/repository.ts'
import { Unfolded } from './unfolded.ts'

const SOON_BYTES = 4 << 20
/** For showing what is done meanwhile: then the fold pauses for so many ms between two slices of work. */
const PAUSE_VARIABLE = 'PACSIMILE_TEST_FOLD_PAUSE'
/** The index of a pack takes as long as so many bytes of a segment. */
const PACK_AS_BYTES = 256 << 10
/** What is left for the last round, which nothing is committed beside. */
const LAST_BYTES = 256 << 10
/** Rounds that may not be smaller than half of the one before. */
const LONG_ROUNDS_MAX = 3

/** How far the catalog is made. */
export interface FoldProgress {
  readonly records: number
  /** Of the segments that it lacked, 0 to 100. */
  readonly percent: number
}

export interface CatchUpParts {
  readonly repository: Repository
  readonly catalog: Catalog
  readonly log: Log
  /** Segments behind the catalog of so many bytes are folded before anybody connects: by default a second's work. */
  readonly soonBytes?: number
}

export class CatchUp {
  readonly #parts: CatchUpParts
  readonly #bytes: number
  /** Undefined where the catalog has everything. */
  unfolded: Unfolded | undefined
  #records = 0

  private constructor(parts: CatchUpParts) {
    this.#parts = parts
    this.#bytes = bytesBehind(parts)
  }

  /** Folds what is soon folded. @throws io, space */
  static async begin(parts: CatchUpParts): Promise<CatchUp> {
    const catchUp = new CatchUp(parts)
    if (isSoonFolded(parts, catchUp.#bytes)) await catchUp.#fold({})
    else catchUp.unfolded = await Unfolded.find(parts.repository, parts.catalog)
    return catchUp
  }

  /** Undefined when there is nothing left to do. */
  get progress(): FoldProgress | undefined {
    if (this.unfolded === undefined) return undefined
    const done = this.#bytes === 0 ? 0 : 1 - bytesBehind(this.#parts) / this.#bytes
    return { records: this.#records, percent: Math.floor(100 * Math.min(1, Math.max(0, done))) }
  }

  /** @throws rebuilding while the catalog lacks something */
  requireDone(): void {
    const { progress } = this
    if (progress === undefined) return
    throw new PacsimileError(
      'rebuilding',
      `The catalog is being made anew from the repository, ${progress.percent} % by now; what agents send is taken in meanwhile`,
    )
  }

  /** @returns whether the catalog has everything: false when the signal was given before @throws io, space */
  async run(ingest: Ingest, signal: AbortSignal): Promise<boolean> {
    const { unfolded } = this
    if (unfolded === undefined) return true
    const { log, catalog } = this.#parts
    const startedMs = performance.now()
    log.warn('the catalog lacks what the repository holds, and is made while agents are taken in', { segmentBytes: this.#bytes })
    const pause = process.env[PAUSE_VARIABLE]
    const pauseMs = pause === undefined ? undefined : Number(pause)
    let longRounds = 0
    for (let behind = this.#bytes; ; ) {
      await this.#fold({ until: ingest.durable, retired: unfolded.retired, pauseMs, signal })
      if (signal.aborted) return false
      const left = bytesBehind(this.#parts)
      if (left > behind / 2) longRounds += 1
      if (left <= LAST_BYTES || longRounds >= LONG_ROUNDS_MAX) break
      behind = left
    }
    await ingest.endUnfolded(async () => {
      await this.#fold({ until: ingest.durable, retired: unfolded.retired })
      for (const agent of unfolded.agents) requireSame(agent, unfolded, catalog)
    })
    this.unfolded = undefined
    log.info('the catalog is made anew', { records: this.#records, seconds: (performance.now() - startedMs) / 1000 })
    return true
  }

  async #fold(options: ReplayOptions): Promise<void> {
    const { repository, catalog, log } = this.#parts
    forgetGrown(repository, catalog)
    const before = this.#records
    const { records, chunks, damage } = await replay(repository, catalog, {
      ...options,
      onProgress: (count) => {
        this.#records = before + count
      },
    })
    this.#records = before + records
    log.info('repository folded', { repository: repository.id, foldedRecords: records, foldedChunks: chunks })
    for (const { file, offset, reason } of damage) log.error('the repository is damaged', { file, offset, reason })
  }
}

function isSoonFolded({ repository, catalog, soonBytes = SOON_BYTES }: CatchUpParts, bytes: number): boolean {
  const { file } = catalog.reflected().packs
  const packs = repository.numbers('pack').filter((number) => number >= file).length
  return bytes + packs * PACK_AS_BYTES <= soonBytes
}

/** Bytes of the segments that are not in the catalog. */
function bytesBehind({ repository, catalog }: CatchUpParts): number {
  const { file, offset } = catalog.reflected().segments
  const behind = repository.numbers('segment').filter((number) => number >= file)
  const bytes = behind.reduce((sum, number) => sum + repository.sizeOf('segment', number), 0)
  return behind[0] === file ? bytes - offset : bytes
}

/** What is read of a file that grows is what was there when it was opened. */
function forgetGrown(repository: Repository, catalog: Catalog): void {
  const { packs, segments } = catalog.reflected()
  for (const number of repository.numbers('pack')) if (number >= packs.file) repository.forget('pack', number)
  for (const number of repository.numbers('segment')) if (number >= segments.file) repository.forget('segment', number)
}

/** @throws io */
function requireSame(agent: Label, unfolded: Unfolded, catalog: Catalog): void {
  const [taken, folded] = [unfolded.chainEnd(agent), catalog.chainEnd(agent)]
  if (taken?.hash === folded?.hash) return
  const where = (end: ChainEnd | undefined): string => (end === undefined ? 'nothing' : `${end.epoch}:${end.seq}`)
  throw new PacsimileError(
    'io',
    `The catalog was made up to ${where(folded)} of agent ${agent}, but up to ${where(taken)} was taken in; it is opened anew`,
  )
}
