/**
 * History read on any host, from a collector's port, with the certificate of a restorer.
 *
 * Content is asked for by its place (history-api.ts), so each reference to a chunk that comes out of here carries the place where it
 * was found; threads that are given references and give them back need not know of it. Invariant: whoever reads content holds it against its
 * digest, as with any other source: nothing is true because a collector said it.
 */
import { PacsimileError } from '../shared/errors.ts'
import { ASKED_CHUNKS_MAX, ASKED_FILES_MAX, QUESTION_BYTES_MAX } from '../shared/limits.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { ChunkRef, Version } from '../shared/version.ts'
import type { Damage } from './catalog.ts'
import type { ChunkResult, ListedEntry, LogEntry, LogQuery } from './history-source.ts'
import { decodeChunks } from './history-wire.ts'
import { damageSaid, type HistoryCalls, RemoteHistory } from './remote-history.ts'
import type { RestorerIdentity } from './restorer-identity.ts'
import { TlsCalls } from './tls-calls.ts'

/** A version of a file, by the record that made it what it is. */
interface ContentPlace {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly at: Position
}

/** The chunk of that number of that version. */
interface PlacedChunk extends ChunkRef {
  readonly of: ContentPlace
  readonly index: number
}

interface AskedFile {
  readonly path: RelativePath
  readonly at: Position
  readonly from: number
  count: number
}

/** Of JSON around a path whose every byte may take six characters. */
const FILE_BYTES = 120
const CHARACTER_BYTES = 6

export class TlsHistory extends RemoteHistory {
  readonly #contentCalls: HistoryCalls

  private constructor(calls: HistoryCalls, damage: readonly Damage[]) {
    super(calls, damage)
    this.#contentCalls = calls
  }

  /** @throws collector-unreachable, not-trusted */
  static async connect(identity: RestorerIdentity): Promise<TlsHistory> {
    const calls = new TlsCalls(identity)
    try {
      return new TlsHistory(calls, await damageSaid(calls))
    } catch (error) {
      calls.close()
      throw error
    }
  }

  override async *treeGroups(...asked: Parameters<RemoteHistory['treeGroups']>): AsyncGenerator<readonly ListedEntry[]> {
    const [agent, volume] = asked
    for await (const group of super.treeGroups(...asked))
      yield group.map((entry) => ({ ...entry, version: placed(entry.version, { agent, volume, path: entry.path, at: entry.position }) }))
  }

  override log(agent: Label, volume: Label, query: LogQuery): AsyncIterable<LogEntry> {
    return placedLog(super.log(agent, volume, query), (record) => ('path' in record ? { agent, volume, path: record.path } : undefined))
  }

  override versions(agent: Label, volume: Label, path: RelativePath): AsyncIterable<LogEntry> {
    return placedLog(super.versions(agent, volume, path), () => ({ agent, volume, path }))
  }

  /** The collector's replica is on another host. */
  override replicaDirectory(_agent: Label, _volume: Label): Promise<string | undefined> {
    return Promise.resolve(undefined)
  }

  override async *chunks(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult, void> {
    for (const body of questionsFor(refs)) yield* decodeChunks(this.#contentCalls.stream('content', body))
  }
}

async function* placedLog(
  entries: AsyncIterable<LogEntry>,
  placeOf: (record: LogEntry['record']) => Omit<ContentPlace, 'at'> | undefined,
): AsyncGenerator<LogEntry> {
  for await (const entry of entries) {
    const place = placeOf(entry.record)
    const at = { epoch: entry.record.epoch, seq: entry.record.seq }
    yield entry.version === undefined || place === undefined ? entry : { ...entry, version: placed(entry.version, { ...place, at }) }
  }
}

function placed(version: Version, of: ContentPlace): Version {
  if (version.kind !== 'file') return version
  return { ...version, chunks: version.chunks.map(({ digest, length }, index): PlacedChunk => ({ digest, length, of, index })) }
}

/** Chunks of one version that follow each other are asked for together; a question has as many as it may. */
function* questionsFor(refs: readonly ChunkRef[]): Generator<object> {
  let files: AskedFile[] = []
  let last: PlacedChunk | undefined
  let chunks = 0
  let bytes = 0
  const body = (): object => ({ agent: last?.of.agent, volume: last?.of.volume, files })
  for (const ref of refs) {
    if (!isPlaced(ref)) throw new PacsimileError('internal', 'A chunk is asked for that no history has named')
    const file = files.at(-1)
    const follows = file !== undefined && last !== undefined && last.index + 1 === ref.index && isSamePlace(last.of, ref.of)
    const size = FILE_BYTES + CHARACTER_BYTES * ref.of.path.length
    const isFull = chunks >= ASKED_CHUNKS_MAX || (!follows && (files.length >= ASKED_FILES_MAX || bytes + size > QUESTION_BYTES_MAX / 2))
    const isElsewhere = last !== undefined && (last.of.agent !== ref.of.agent || last.of.volume !== ref.of.volume)
    if (isFull || isElsewhere) {
      yield body()
      files = []
      chunks = 0
      bytes = 0
    }
    if (follows && files.length > 0) {
      file.count += 1
    } else {
      files.push({ path: ref.of.path, at: ref.of.at, from: ref.index, count: 1 })
      bytes += size
    }
    chunks += 1
    last = ref
  }
  if (files.length > 0) yield body()
}

function isPlaced(ref: ChunkRef): ref is PlacedChunk {
  return 'of' in ref && 'index' in ref
}

/** Between threads an object becomes another one. */
function isSamePlace(a: ContentPlace, b: ContentPlace): boolean {
  return (
    a === b || (a.path === b.path && a.at.epoch === b.at.epoch && a.at.seq === b.at.seq && a.agent === b.agent && a.volume === b.volume)
  )
}
