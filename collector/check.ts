/**
 * Check: reads every frame of a repository, and proves that what the records name is there.
 *
 * Every header, CRC, authentication tag and digest; every chain, from the first record of each epoch; every chunk of every
 * version. Invariant: a repository is called whole only when every byte of it was read and matched; what is not whole
 * is named by agent, path and time. It prevents a verifier that reports health for what it did not look at.
 */
import { setImmediate } from 'node:timers/promises'
import { release } from '../shared/bytes.ts'
import { millisecondsOf } from '../shared/clock.ts'
import { type Digest, digestHex } from '../shared/digest.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { ChunkRef } from '../shared/version.ts'
import { absenceOfContent } from './absent-content.ts'
import type { AccessEnd } from './access-chain.ts'
import type { Catalog, ChunkPlace, Damage } from './catalog.ts'
import { CHUNKS_AT_ONCE, chunkPlaces } from './chunk-places.ts'
import { accessAnchors, retirementOf } from './ledger-view.ts'
import { brokenChunks, supersededBy } from './needed-chunks.ts'
import { RecordMarks } from './record-marks.ts'
import { replay } from './replay.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { FRAME_HEADER_BYTES, isBare } from './repository/frame.ts'
import type { FrameFile, ScannedFrame } from './repository/frame-file.ts'
import { Repository } from './repository/repository.ts'
import { ScratchCatalog } from './scratch-catalog.ts'

/** A version that cannot be restored, or not with certainty. */
export interface Affected {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  /** When it became the path's version, in ms since 1970. */
  readonly timeMs: number
  readonly epoch: number
  readonly seq: number
  readonly reason: string
}

export interface CheckReport {
  readonly repository: string
  readonly agents: number
  readonly records: number
  readonly versions: number
  /** Whole, where they are to be read from. */
  readonly chunks: number
  readonly packs: number
  readonly segments: number
  /** Bytes read. */
  readonly bytes: number
  readonly seconds: number
  readonly damage: readonly Damage[]
  readonly affected: readonly Affected[]
  /** Versions whose content the agent declared lost: known, and no damage. */
  readonly lostByAgent: number
  /** Versions whose content has expired, as the retention says: known, and no damage. */
  readonly expired: number
  /** What is worth knowing and no damage. */
  readonly notes: readonly string[]
  /** What the ledger says of the access log, oldest first. */
  readonly access: readonly AccessEnd[]
}

export interface CheckProgress {
  readonly bytes: number
  readonly totalBytes: number
}

/** @throws not-found, format-unknown, io */
export async function checkRepository(
  directory: string,
  dataKey: Buffer,
  onProgress: (progress: CheckProgress) => void = () => {},
): Promise<CheckReport> {
  const started = performance.now()
  await using stack = new AsyncDisposableStack()
  const repository = stack.adopt(Repository.open(directory, dataKey), (opened) => opened.close())
  const { catalog } = stack.use(await ScratchCatalog.open())

  const folded = await replay(repository, catalog)
  const reading = new Reading(repository, catalog, onProgress)
  await reading.run()
  const { affected, versions, lostByAgent, expired } = await affectedVersions(catalog, reading.whyBroken)
  const damage = unique([...folded.damage, ...reading.damage])
  const superseded = await supersededBy(catalog, repository, damage)
  return {
    repository: repository.id,
    agents: (await catalog.agents()).length,
    records: folded.records,
    versions,
    chunks: reading.chunks,
    packs: repository.numbers('pack').length,
    segments: repository.numbers('segment').length,
    bytes: reading.bytes,
    seconds: (performance.now() - started) / 1000,
    damage: damage.filter((found) => !superseded.includes(found)),
    affected,
    lostByAgent,
    expired,
    access: await accessAnchors(catalog),
    notes: [
      ...reading.notes,
      ...superseded.map(({ file, offset, reason }) => `${file}, byte ${offset}: ${reason}; what was there is stored elsewhere`),
    ],
  }
}

function unique(damage: readonly Damage[]): Damage[] {
  return [...new Map(damage.map((found) => [`${found.file}:${found.offset}`, found])).values()]
}

/** Reads every file front to back. */
class Reading {
  readonly damage: Damage[] = []
  readonly notes: string[] = []
  /** Those that do not open where they are to be read from. */
  readonly #badChunks = new Map<Digest, string>()
  /** Packs in which bytes are no frames: of which frames they were, only the catalog knows. */
  readonly #damagedPacks = new Set<number>()
  readonly #repository: Repository
  readonly #catalog: Catalog
  readonly #onProgress: (progress: CheckProgress) => void
  bytes = 0
  chunks = 0

  constructor(repository: Repository, catalog: Catalog, onProgress: (progress: CheckProgress) => void) {
    this.#repository = repository
    this.#catalog = catalog
    this.#onProgress = onProgress
  }

  /** Why a chunk cannot be restored as it is named; undefined when it can. `places`: of all that are known of those that are asked for. */
  whyBroken: WhyBroken = ({ digest, length }, places) => {
    const bad = this.#badChunks.get(digest)
    if (bad !== undefined) return bad
    const found = places.get(digest)?.plainLength
    if (found === length) return undefined
    const chunk = `chunk ${digestHex(digest).slice(0, 16)}`
    return found === undefined ? `${chunk} is in no pack` : `${chunk} has ${found} bytes, the record says ${length}`
  }

  async run(): Promise<void> {
    const files = (['segment', 'pack'] as const).flatMap((kind) => this.#repository.numbers(kind).map((number) => ({ kind, number })))
    const totalBytes = files.reduce((sum, { kind, number }) => sum + this.#sizeOf(kind, number), 0)
    for (const { kind, number } of files) {
      const isLast = number === this.#repository.numbers(kind).at(-1)
      try {
        await this.#readFile(kind, number, isLast)
      } catch (error) {
        if (this.#isRetiredAndGone(kind, number)) continue
        if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
        this.damage.push({ file: this.#repository.pathOf(kind, number), offset: 0, reason: error.message })
      }
      this.#onProgress({ bytes: this.bytes, totalBytes })
      await setImmediate()
    }
    for (const pack of this.#damagedPacks)
      for (const name of await brokenChunks(this.#catalog, this.#repository, pack))
        if (!this.#badChunks.has(name)) this.#badChunks.set(name, `chunk ${digestHex(name).slice(0, 16)} cannot be read from its pack`)
  }

  /** A prune beside this may have removed it: nothing was to be read from it for the whole quarantine. */
  #isRetiredAndGone(kind: FrameFileKind, number: number): boolean {
    return kind === 'pack' && this.#repository.sizeOf(kind, number) === 0 && retirementOf(this.#catalog, number) !== undefined
  }

  #sizeOf(kind: FrameFileKind, number: number): number {
    try {
      return this.#repository.file(kind, number).size
    } catch {
      // It is met again, and reported, when it is read.
      return 0
    }
  }

  async #readFile(kind: FrameFileKind, number: number, isLast: boolean): Promise<void> {
    const file = this.#repository.file(kind, number)
    let isSealed = false
    let index: ReadFrame | undefined
    let chunks: ReadChunk[] = []
    try {
      for (const found of file.scan()) {
        if (found.kind === 'damage') {
          if (found.tail && !isSealed)
            this.notes.push(
              `${file.path}: the last ${found.length} bytes hold no whole frame: an append that was cut short${isLast ? ', or is under way' : ''}. Had it been acknowledged, the collector says so when it starts`,
            )
          else {
            this.damage.push({ file: file.path, offset: found.offset, reason: found.reason })
            if (kind === 'pack') this.#damagedPacks.add(number)
          }
          continue
        }
        this.bytes += found.storedLength + FRAME_HEADER_BYTES
        if (found.type === 'index') {
          isSealed = true
          // It is read below, as what it is: of many frames it is large.
          if (index === undefined) {
            index = found
            continue
          }
        }
        if (isBare(found.type)) continue
        const reason = this.#whyUnreadable(file, found)
        if (found.type === 'chunk') chunks.push({ name: found.digest, offset: found.offset, reason })
        if (chunks.length < CHUNKS_AT_ONCE) continue
        this.#count(number, chunks)
        chunks = []
        // What native code has handed out, digests and places, is given back between turns only.
        await setImmediate()
      }
    } finally {
      this.#count(number, chunks)
    }
    if (!isSealed || file.sealedIndex() !== undefined) return
    if (index !== undefined) this.#whyUnreadable(file, index)
    this.damage.push({ file: file.path, offset: file.size, reason: 'the footer of this sealed file is damaged' })
  }

  #whyUnreadable(file: FrameFile, { offset, storedLength, digest }: ReadFrame): string | undefined {
    try {
      release(file.read(offset, storedLength, digest))
      return undefined
    } catch (error) {
      const reason = reasonOf(error)
      this.damage.push({ file: file.path, offset, reason })
      return reason
    }
  }

  /** Those that are to be read from where they were met. */
  #count(pack: number, chunks: readonly ReadChunk[]): void {
    const places = chunkPlaces(
      this.#catalog,
      chunks.map(({ name }) => name),
    )
    for (const { name, offset, reason } of chunks) {
      const place = places.get(name)
      if (place?.file !== pack || place.offset !== offset) continue
      if (reason === undefined) this.chunks += 1
      else this.#badChunks.set(name, reason)
    }
  }
}

interface ReadChunk {
  readonly name: Digest
  readonly offset: number
  /** Why it does not open. */
  readonly reason: string | undefined
}

type ReadFrame = Extract<ScannedFrame, { kind: 'frame' }>
type WhyBroken = (chunk: ChunkRef, places: ReadonlyMap<Digest, ChunkPlace>) => string | undefined

interface FileEntry {
  readonly path: RelativePath
  readonly position: Position
  readonly chunks: readonly ChunkRef[]
}

async function affectedVersions(
  catalog: Catalog,
  whyBroken: WhyBroken,
): Promise<Pick<CheckReport, 'affected' | 'versions' | 'lostByAgent' | 'expired'>> {
  const affected: Affected[] = []
  let [versions, lostByAgent, expired] = [0, 0, 0]
  for (const agent of await catalog.agents()) {
    const marks = (await catalog.hasAbsent(agent)) ? await RecordMarks.read(catalog, agent) : undefined
    for (const { name: volume, since } of await catalog.volumes(agent)) {
      const look = async (files: readonly FileEntry[]): Promise<void> => {
        const places = chunkPlaces(catalog, namesIn(files))
        for (const { path, position, chunks } of files) {
          const absence = marks === undefined ? undefined : await absenceOfContent(catalog, agent, volume, { path, position }, marks)
          const reason = chunks.map((chunk) => whyBroken(chunk, places)).find((found) => found !== undefined)
          // Whether its content happens to be there still does not matter any more.
          if (absence === 'expired') expired += 1
          else if (reason === undefined) continue
          else if (absence === 'lost') lostByAgent += 1
          else {
            const timeMs = millisecondsOf(catalog.summary(agent, position)?.time ?? since)
            affected.push({ agent, volume, path, timeMs, epoch: position.epoch, seq: position.seq, reason })
          }
        }
      }
      let files: FileEntry[] = []
      let named = 0
      for await (const { path, position, version } of catalog.allVersions(agent, volume)) {
        if (version === undefined) continue
        versions += 1
        if (version.kind !== 'file') continue
        files.push({ path, position, chunks: version.chunks })
        named += version.chunks.length + 1
        if (named < CHUNKS_AT_ONCE) continue
        await look(files)
        files = []
        named = 0
      }
      await look(files)
    }
  }
  return { affected, versions, lostByAgent, expired }
}

function* namesIn(files: readonly FileEntry[]): Generator<Digest> {
  for (const { chunks } of files) for (const { digest } of chunks) yield digest
}
