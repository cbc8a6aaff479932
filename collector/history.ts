/**
 * History read straight from a catalog and its repository: what the collector serves, and what an offline reader uses.
 *
 * Invariant: every answer is at a position, never at "now": what is added meanwhile does not change it.
 */
import { ByteReader } from '../shared/bytes.ts'
import { type HybridTime, millisecondsOf, TIME_ZERO } from '../shared/clock.ts'
import { type Digest, digestHex } from '../shared/digest.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { isWithin, type Label, type RelativePath } from '../shared/path.ts'
import { BEFORE_ALL, type Position, type RecordSummary } from '../shared/record.ts'
import { type ChunkRef, decodeVersion } from '../shared/version.ts'
import { type Absence, absencesOf } from './absent-content.ts'
import type { Catalog, Damage, VolumeFacts } from './catalog.ts'
import type { ChunkCache } from './chunk-cache.ts'
import {
  type ChunkResult,
  type HistorySource,
  type ListedEntry,
  type LogEntry,
  type LogQuery,
  oneByOne,
  type StoredListing,
  type TreeDepth,
  type Window,
} from './history-source.ts'
import { type Mark, markNamed, marksOf } from './marks.ts'
import { includedUntil, type Point, type PointRequest, showMoment } from './point.ts'
import type { FramePlace } from './repository/frame-file.ts'
import type { Repository } from './repository/repository.ts'

export class History implements HistorySource {
  readonly isLive: boolean = true
  readonly #damage: () => readonly Damage[]
  readonly #catalog: Catalog
  readonly #repository: Repository
  readonly #cache: ChunkCache | undefined

  /** Borrows its parts: whoever opened them closes them. */
  constructor(catalog: Catalog, repository: Repository, options: { cache?: ChunkCache; damage?: () => readonly Damage[] } = {}) {
    this.#catalog = catalog
    this.#repository = repository
    this.#cache = options.cache
    this.#damage = options.damage ?? ((): readonly Damage[] => [])
  }

  get damage(): readonly Damage[] {
    return this.#damage()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing of its own to close.
  }

  async volumes(): Promise<{ agent: Label; volume: Label }[]> {
    const found = []
    for (const agent of await this.#catalog.agents())
      for (const volume of await this.#catalog.volumes(agent)) found.push({ agent, volume: volume.name })
    return found
  }

  async #facts(agent: Label, volume: Label): Promise<VolumeFacts> {
    const facts = this.#catalog.volume(agent, volume)
    if (facts !== undefined) return facts
    const known = (await this.volumes()).map((name) => `${name.agent}:${name.volume}`)
    throw new PacsimileError('not-found', `There is no volume ${agent}:${volume}; known: ${known.length === 0 ? 'none' : known.join(', ')}`)
  }

  // ---- points ------------------------------------------------------------------------------------------------------

  async point(agent: Label, volume: Label, request: PointRequest): Promise<Point> {
    const facts = await this.#facts(agent, volume)
    const position = await this.#position(agent, volume, request)
    const time = this.#catalog.summary(agent, position)?.time
    const next = await this.#timeAfter(agent, position)
    const requestedMs = request.kind === 'time' ? request.ms : undefined
    const moment = requestedMs === undefined ? (time ?? TIME_ZERO) : includedUntil(requestedMs)
    const gaps = await this.#catalog.gaps(agent, volume)
    const coverage = (await this.#catalog.coverage(agent, volume)).findLast((span) => span.from <= moment)
    const gap = request.kind === 'head' ? undefined : gaps.find((candidate) => candidate.from < moment && moment < candidate.until)
    return {
      position,
      time,
      requestedMs,
      next,
      gap: gap === undefined ? undefined : { from: gap.from, until: gap.until, cause: gap.cause },
      whole: facts.completeAt !== undefined && (time ?? TIME_ZERO) >= facts.completeAt,
      coverage,
    }
  }

  async #position(agent: Label, volume: Label, request: PointRequest): Promise<Position> {
    const head = this.#catalog.chainEnd(agent)
    if (head === undefined) throw new PacsimileError('not-found', `Nothing was ever received from agent ${agent}`)
    switch (request.kind) {
      case 'head':
        return { epoch: head.epoch, seq: head.seq }
      case 'seq': {
        const position = { epoch: request.epoch ?? head.epoch, seq: request.seq }
        if (request.seq === 0 || this.#catalog.summary(agent, position) === undefined)
          throw new PacsimileError(
            'outside-window',
            `Agent ${agent} has no record ${position.epoch}:${position.seq}; the last is ${head.epoch}:${head.seq}`,
          )
        return position
      }
      case 'time':
        return this.#positionAtTime(agent, request.ms)
      case 'mark':
        return (await markNamed(this.#catalog, agent, volume, request.name)).position
    }
  }

  /** The same; a moment before the first record is the start. */
  async #positionOrStart(agent: Label, volume: Label, request: PointRequest): Promise<Position> {
    try {
      return await this.#position(agent, volume, request)
    } catch (error) {
      if (request.kind === 'time' && error instanceof PacsimileError && error.code === 'outside-window') return BEFORE_ALL
      throw error
    }
  }

  /** The last record not later than a moment. Where clocks of two epochs overlap, the newer epoch counts. */
  async #positionAtTime(agent: Label, ms: number): Promise<Position> {
    const until = includedUntil(ms)
    const epochs = await this.#catalog.epochs(agent)
    const epoch = epochs.findLast((candidate) => candidate.from <= until)
    if (epoch === undefined) {
      const first = epochs[0]
      throw new PacsimileError(
        'outside-window',
        `${showMoment(ms)} lies before the first record of agent ${agent}${first === undefined ? '' : `, ${showMoment(millisecondsOf(first.from))}`}`,
      )
    }
    let low = 1
    let high = await this.#catalog.lastSeq(agent, epoch.epoch)
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      const time = this.#timeNear(agent, epoch.epoch, middle, high)
      if (time !== undefined && time <= until) low = middle
      else high = middle - 1
    }
    return { epoch: epoch.epoch, seq: low }
  }

  /** Time of a record; where it is lost to damage, of the next one that is not. */
  #timeNear(agent: Label, epoch: number, seq: number, last: number): HybridTime | undefined {
    for (let at = seq; at <= last; at++) {
      const time = this.#catalog.summary(agent, { epoch, seq: at })?.time
      if (time !== undefined) return time
    }
    return undefined
  }

  async #timeAfter(agent: Label, position: Position): Promise<HybridTime | undefined> {
    const head = this.#catalog.chainEnd(agent)
    if (head === undefined) return undefined
    for await (const record of this.#catalog.summaries(agent, position, head)) return record.time
    return undefined
  }

  // ---- trees and logs ----------------------------------------------------------------------------------------------

  tree(...asked: Parameters<HistorySource['tree']>): AsyncGenerator<ListedEntry, void> {
    return oneByOne(this.treeGroups(...asked))
  }

  async *treeGroups(...asked: Parameters<HistorySource['tree']>): AsyncGenerator<readonly ListedEntry[]> {
    for await (const found of this.stored(...asked)) yield found.map(decodedEntry)
  }

  /** The same in groups, as they are stored. */
  async *stored(
    agent: Label,
    volume: Label,
    path: RelativePath,
    at: Position,
    depth: TreeDepth = 'all',
  ): AsyncGenerator<readonly StoredListing[]> {
    await this.#facts(agent, volume)
    const mayBeAbsent = await this.#catalog.hasAbsent(agent)
    for await (const found of this.#catalog.storedAt(agent, volume, path, at, depth)) {
      const absences = mayBeAbsent ? await absencesOf(this.#catalog, agent, volume, found) : []
      yield found.map((entry, i) => ({ path: entry.path, position: entry.position, version: entry.version, absent: absences[i] }))
    }
  }

  async lastWhole(agent: Label, volume: Label, path: RelativePath, at: Position): Promise<HybridTime | undefined> {
    const entry = await this.#catalog.lastWhole(agent, volume, path, at)
    return entry === undefined ? undefined : this.#catalog.summary(agent, entry.position)?.time
  }

  async *log(agent: Label, volume: Label, query: LogQuery): AsyncGenerator<LogEntry> {
    await this.#facts(agent, volume)
    const after = query.from === undefined ? BEFORE_ALL : await this.#positionOrStart(agent, volume, query.from)
    const until = await this.#position(agent, volume, query.until ?? { kind: 'head' })
    for await (const record of this.#catalog.summaries(agent, after, until)) {
      const position = { epoch: record.epoch, seq: record.seq }
      const isConcerned =
        concerns(record, volume, query.path) ||
        // What ended, moved or swept the directories above it.
        (mayReach(record, volume, query.path) && this.#catalog.changed(agent, volume, query.path, position))
      if (!isConcerned) continue
      const version = record.kind === 'put' ? this.#catalog.versionBy(agent, volume, record.path, position) : undefined
      yield { record, version, absent: record.kind === 'put' ? this.#absence(agent, position) : undefined }
    }
  }

  async *versions(agent: Label, volume: Label, path: RelativePath): AsyncGenerator<LogEntry> {
    await this.#facts(agent, volume)
    for (const { position, version } of await this.#catalog.versionsOf(agent, volume, path)) {
      const record = this.#catalog.summary(agent, position)
      // A record that damage took away; what it did to this path is still known from what follows it.
      if (record === undefined) continue
      yield { record, version, absent: version === undefined ? undefined : this.#absence(agent, position) }
    }
  }

  async marks(agent: Label, volume: Label): Promise<Mark[]> {
    await this.#facts(agent, volume)
    return marksOf(this.#catalog, agent, volume)
  }

  #absence(agent: Label, put: Position): Absence | undefined {
    if (this.#catalog.isLost(agent, put)) return 'lost'
    return this.#catalog.isExpired(agent, put) ? 'expired' : undefined
  }

  /** Whoever reads a catalog of his own has no replica that goes with it. */
  replicaDirectory(_agent: Label, _volume: Label): Promise<string | undefined> {
    return Promise.resolve(undefined)
  }

  async window(agent: Label, volume: Label): Promise<Window> {
    const facts = await this.#facts(agent, volume)
    const head = this.#catalog.chainEnd(agent)
    return {
      agent,
      volume,
      root: facts.root,
      mode: facts.mode,
      from: facts.completeAt,
      until: head?.time ?? TIME_ZERO,
      head: { epoch: head?.epoch ?? 0, seq: head?.seq ?? 0 },
      gaps: await this.#catalog.gaps(agent, volume),
      coverage: await this.#catalog.coverage(agent, volume),
    }
  }

  // ---- content -----------------------------------------------------------------------------------------------------

  async *chunks(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult> {
    for (const ref of refs) {
      try {
        yield { bytes: this.readChunk(ref.digest) }
      } catch (error) {
        if (!(error instanceof PacsimileError)) throw error
        yield { failure: reasonOf(error) }
      }
    }
  }

  /** Of each chunk; undefined where it is in no pack. */
  places(names: readonly Digest[]): (FramePlace | undefined)[] {
    return names.map((name) => this.#catalog.chunk(name))
  }

  /** Verified content. @throws damage, io, not-found */
  readChunk(name: Digest): Buffer {
    const cached = this.#cache?.get(name)
    if (cached !== undefined) return cached
    const place = this.#catalog.chunk(name)
    if (place === undefined) throw new PacsimileError('damage', `Chunk ${digestHex(name)} is in no pack`)
    return this.#repository.readChunk(place, name)
  }
}

function decodedEntry({ path, position, version, absent }: StoredListing): ListedEntry {
  return { path, position, version: decodeVersion(new ByteReader(version, 'Catalog version')), absent }
}

/** Whether a record may have changed a path by what it did to a directory above. */
function mayReach(record: RecordSummary, volume: Label, path: RelativePath): boolean {
  switch (record.kind) {
    case 'put':
    case 'remove':
      return record.volume === volume && isWithin(path, record.path)
    case 'rename':
      return record.volume === volume && (isWithin(path, record.path) || isWithin(path, record.to))
    case 'sweep':
      return record.volume === volume
    default:
      return false
  }
}

function concerns(record: RecordSummary, volume: Label, path: RelativePath): boolean {
  switch (record.kind) {
    case 'epoch':
      return path === ''
    case 'volume':
    case 'sweep':
    case 'gap':
    case 'coverage':
    case 'mark':
      return record.volume === volume && path === ''
    case 'put':
    case 'remove':
    case 'lost':
      return record.volume === volume && isWithin(record.path, path)
    case 'rename':
      return record.volume === volume && (isWithin(record.path, path) || isWithin(record.to, path))
  }
}
