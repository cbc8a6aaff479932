/**
 * The catalog: a LevelDB index over the repository, multi-version by path and time. The only door to LevelDB here.
 *
 * Never the truth: it is a fold of the segments up to the place it says it reflects, and can be deleted. Writes are
 * batches that carry that place along, so a crash leaves an older whole state and the rest is folded again from there.
 * It prevents an index from claiming what the repository does not hold.
 */
import { ClassicLevel } from 'classic-level'
import { ByteReader } from '../shared/bytes.ts'
import { type HybridTime, hybridTime } from '../shared/clock.ts'
import { DIGEST_BYTES, type Digest, digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { type Label, pathFromKey, type RelativePath } from '../shared/path.ts'
import { type ChainEnd, comparePositions, decodeSummary, type Position, type RecordSummary, type WatchMode } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { hardLinkKey, type Version } from '../shared/version.ts'
import { levelError } from './catalog-error.ts'
import { type KeyRange, keys, ranges, readNewestKey, readPosition, readVersionKey } from './catalog-keys.ts'
import { type Cursor, type CursorOptions, cursorOver, type FoundRow, type Row, type Rows, readOrFail } from './catalog-rows.ts'
import { readEntry, readStored, readTree, type StoredEntry } from './catalog-tree.ts'
import { readChunkPlace, readCoverage, readVersion, readVolume } from './catalog-values.ts'
import type { TreeDepth } from './history-source.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { READ_FROM_START, type ReadPosition } from './repository/repository.ts'

/** How far the repository's files are reflected. */
export interface Reflected {
  readonly packs: ReadPosition
  readonly segments: ReadPosition
}

export interface ChunkPlace extends FramePlace {
  readonly plainLength: number
}

export interface VolumeFacts {
  readonly name: Label
  /** Directory on the agent's host, as bytes. */
  readonly root: string
  readonly mode: WatchMode
  /** When it was first declared. */
  readonly since: HybridTime
  /** When it was first known to be whole (first full scan done); undefined before. */
  readonly completeAt: HybridTime | undefined
}

export interface Span {
  readonly from: HybridTime
  readonly until: HybridTime
}

export interface Gap extends Span {
  readonly cause: string
  readonly position: Position
}

export interface Coverage extends Span {
  readonly mode: WatchMode
}

/** Something in the repository that is not as it was written. */
export interface Damage {
  /** Path of the file. */
  readonly file: string
  readonly offset: number
  readonly reason: string
}

export type Operation =
  | { readonly type: 'put'; readonly key: Buffer; readonly value: Buffer }
  | { readonly type: 'del'; readonly key: Buffer }

/** What LevelDB may hold, whatever the size of the catalog. */
const MEMORY = { writeBufferSize: 32 << 20, cacheSize: 16 << 20 }
/** Tables of 2 MiB that are mapped at the same time, and so may count as resident; fewer LevelDB does not take. */
const OPEN_TABLES_MIN = 64
/** Read ahead at once; what LevelDB would take, 16 KiB, is some hundred entries. */
const READ_BYTES = 64 << 10
const BATCH = 1000

export class Catalog implements Rows {
  readonly #db: ClassicLevel<Buffer, Buffer>

  private constructor(db: ClassicLevel<Buffer, Buffer>) {
    this.#db = db
  }

  /** With more tables open, to look something up anywhere in a large one costs no opening. @throws locked, io */
  static async open(directory: string, openTables = OPEN_TABLES_MIN): Promise<Catalog> {
    const db = new ClassicLevel<Buffer, Buffer>(directory, {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
      ...MEMORY,
      maxOpenFiles: openTables,
    })
    try {
      await db.open()
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined
      if (cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED') {
        throw new PacsimileError('locked', `${directory} is in use by another process: a collector runs on this data directory`, {
          cause: error,
        })
      }
      throw levelError(cause ?? error, `Opening the catalog ${directory}`)
    }
    return new Catalog(db)
  }

  close(): Promise<void> {
    return this.#db.close()
  }

  async write(operations: readonly Operation[]): Promise<void> {
    try {
      await this.#db.batch([...operations])
    } catch (error) {
      throw levelError(error, 'Writing the catalog')
    }
  }

  /** A value by its key, for who knows the layout. */
  get(key: Buffer): Buffer | undefined {
    return this.#db.getSync(key)
  }

  // ---- single values -----------------------------------------------------------------------------------------------

  reflected(): Reflected {
    const value = this.#db.getSync(keys.reflected)
    if (value === undefined) return { packs: READ_FROM_START, segments: READ_FROM_START }
    const from = new ByteReader(value, 'Catalog position')
    return { packs: { file: from.u64(), offset: from.u64() }, segments: { file: from.u64(), offset: from.u64() } }
  }

  chunk(name: Digest): ChunkPlace | undefined {
    const value = this.#db.getSync(keys.chunk(name))
    return value === undefined ? undefined : readChunkPlace(value)
  }

  /** The chunks that are to be read from one pack; looks at all that there are. */
  async *chunksIn(pack: number): AsyncGenerator<{ readonly name: Digest; readonly place: ChunkPlace }> {
    for await (const [key, value] of this.entries(ranges.chunks)) {
      const place = readChunkPlace(value)
      if (place.file === pack) yield { name: digest(key.toString('latin1', 1)), place }
    }
  }

  /** The end of an agent's chain as folded in here; undefined for an agent never heard of. */
  chainEnd(agent: Label): ChainEnd | undefined {
    const value = this.#db.getSync(keys.agent(agent))
    if (value === undefined) return undefined
    const from = new ByteReader(value, 'Catalog agent')
    return { epoch: from.u64(), seq: from.u64(), hash: digest(from.rawString(DIGEST_BYTES)), time: hybridTime(from.big64()) }
  }

  newest(agent: Label, volume: Label, path: RelativePath): TreeEntry | undefined {
    const value = this.#db.getSync(keys.newest(agent, volume, path))
    if (value === undefined) return undefined
    const position = readPosition(value)
    return { path, position, version: this.#version(agent, volume, path, position) }
  }

  /** The version that a record made of a path; undefined where it made none, or ended it. */
  versionBy(agent: Label, volume: Label, path: RelativePath, position: Position): Version | undefined {
    const value = this.#db.getSync(keys.version(agent, volume, path, position))
    return value === undefined ? undefined : readVersion(value)
  }

  /** Whether a record changed a path: made it a version, or ended it. */
  changed(agent: Label, volume: Label, path: RelativePath, position: Position): boolean {
    return this.#db.getSync(keys.version(agent, volume, path, position)) !== undefined
  }

  #version(agent: Label, volume: Label, path: RelativePath, position: Position): Version {
    const version = this.versionBy(agent, volume, path, position)
    if (version === undefined)
      throw new PacsimileError(
        'io',
        `The catalog has lost a version of ${agent}:${volume}; stop the collector and run \`pacsimile rebuild\`, which makes it anew from the repository`,
      )
    return version
  }

  isLost(agent: Label, position: Position): boolean {
    return this.#db.getSync(keys.lost(agent, position)) !== undefined
  }

  /** Whether the content of what that record put may have been removed, as the retention says. */
  isExpired(agent: Label, position: Position): boolean {
    return this.#db.getSync(keys.expired(agent, position)) !== undefined
  }

  /** Whether content of the agent was ever declared lost, or has expired. */
  async hasAbsent(agent: Label): Promise<boolean> {
    for (const range of [ranges.lost(agent), ranges.expired(agent)]) for await (const _ of this.entries(range, { limit: 1 })) return true
    return false
  }

  summary(agent: Label, position: Position): RecordSummary | undefined {
    const value = this.#db.getSync(keys.summary(agent, position))
    return value === undefined ? undefined : decodeSummary(value)
  }

  volume(agent: Label, name: Label): VolumeFacts | undefined {
    const value = this.#db.getSync(keys.volume(agent, name))
    return value === undefined ? undefined : readVolume(name, value)
  }

  // ---- ranges ------------------------------------------------------------------------------------------------------

  /** In the order of keys. `batch`: entries read ahead; few where each may be large and the first may be enough. */
  async *entries(range: KeyRange, options: CursorOptions = {}): AsyncGenerator<Row> {
    const cursor = this.cursor(range, options)
    try {
      for (let found = await cursor.next(); found.length > 0; found = await cursor.next()) yield* found
    } finally {
      await cursor.close()
    }
  }

  /** The same for who jumps ahead. */
  cursor(range: KeyRange, options: CursorOptions = {}): Cursor {
    return cursorOver<Row>(this.#db.iterator(rangeOptions(range, options)), options.batch ?? BATCH)
  }

  keyCursor(range: KeyRange, options: CursorOptions = {}): Cursor<FoundRow> {
    // In place of each value the binding makes an empty one, and an empty text costs less than an empty buffer.
    const keysAlone = { ...rangeOptions(range, options), values: false, valueEncoding: 'utf8' }
    return cursorOver<FoundRow>(this.#db.iterator<Buffer, Buffer>(keysAlone), options.batch ?? BATCH)
  }

  values(wanted: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    return readOrFail(this.#db.getMany([...wanted]))
  }

  async agents(): Promise<Label[]> {
    const found: Label[] = []
    for await (const [key] of this.entries(ranges.agents)) found.push(key.toString('latin1', 1, key.length - 1) as Label)
    return found
  }

  async volumes(agent: Label): Promise<VolumeFacts[]> {
    const found: VolumeFacts[] = []
    const range = ranges.volumes(agent)
    for await (const [key, value] of this.entries(range))
      found.push(readVolume(key.toString('latin1', range.gte.length, key.length - 1) as Label, value))
    return found
  }

  /** What exists now strictly below a path. */
  async newestBelow(agent: Label, volume: Label, path: RelativePath): Promise<TreeEntry[]> {
    const found: TreeEntry[] = []
    for await (const entry of this.newestPositions(agent, volume, path))
      found.push({ ...entry, version: this.#version(agent, volume, entry.path, entry.position) })
    return found
  }

  /** The same without the versions, in the order of a walk. */
  async *newestPositions(agent: Label, volume: Label, path: RelativePath): AsyncGenerator<{ path: RelativePath; position: Position }> {
    for await (const [key, value] of this.entries(ranges.newestBelow(agent, volume, path)))
      yield { path: readNewestKey(key, agent, volume), position: readPosition(value) }
  }

  /** Paths of the newest tree that are hard links of one file with this version. */
  async hardLinks(agent: Label, volume: Label, version: Version): Promise<RelativePath[]> {
    const wanted = hardLinkKey(version)
    if (wanted === undefined) return []
    const range = ranges.linked(agent, volume, version.inode)
    const found: RelativePath[] = []
    for await (const [key] of this.entries(range)) {
      const path = pathFromKey(key.toString('latin1', range.gte.length))
      const entry = this.newest(agent, volume, path)
      if (entry !== undefined && hardLinkKey(entry.version) === wanted) found.push(path)
    }
    return found
  }

  /** The tree at a position: the path itself and all below it, depth first, names in byte order; or only what is right in it. */
  treeAt(agent: Label, volume: Label, path: RelativePath, at: Position, depth: TreeDepth = 'all'): AsyncGenerator<TreeEntry> {
    return readTree(this, { agent, volume, path, at }, depth)
  }

  /** The same in groups, as they are stored. */
  storedAt(agent: Label, volume: Label, path: RelativePath, at: Position, depth: TreeDepth): AsyncGenerator<readonly StoredEntry[]> {
    return readStored(this, { agent, volume, path, at }, depth)
  }

  entryAt(agent: Label, volume: Label, path: RelativePath, at: Position): Promise<TreeEntry | undefined> {
    return readEntry(this, { agent, volume, path, at })
  }

  /**
   * The path as it last was a file whose content was neither torn nor lost nor expired, at or before a position and since it is a file;
   * undefined where it was not.
   */
  async lastWhole(agent: Label, volume: Label, path: RelativePath, at: Position): Promise<TreeEntry | undefined> {
    const newestFirst = { reverse: true, batch: 8 }
    for await (const [key, value] of this.entries(ranges.versionsOf(agent, volume, path), newestFirst)) {
      const { position } = readVersionKey(key, agent, volume)
      if (comparePositions(position, at) > 0) continue
      const version = readVersion(value)
      if (version?.kind !== 'file') return undefined
      if (version.consistency !== 'torn' && !this.isLost(agent, position) && !this.isExpired(agent, position))
        return { path, position, version }
    }
    return undefined
  }

  /** What was found damaged when the repository was folded. */
  async damage(): Promise<Damage[]> {
    const found: Damage[] = []
    for await (const [, value] of this.entries(ranges.damage)) {
      const from = new ByteReader(value, 'Catalog damage')
      found.push({ file: from.bytes(4096).toString('utf8'), offset: from.u64(), reason: from.bytes(4096).toString('utf8') })
    }
    return found
  }

  /** Every version of one path, oldest first; `version` undefined where the path ended. */
  async versionsOf(agent: Label, volume: Label, path: RelativePath): Promise<{ position: Position; version: Version | undefined }[]> {
    const found = []
    for await (const [key, value] of this.entries(ranges.versionsOf(agent, volume, path)))
      found.push({ position: readVersionKey(key, agent, volume).position, version: readVersion(value) })
    return found
  }

  /** Every version of every path at and below one, path by path, oldest first. */
  async *allVersions(
    agent: Label,
    volume: Label,
  ): AsyncGenerator<{ path: RelativePath; position: Position; version: Version | undefined }> {
    const root = '' as RelativePath
    for (const range of [ranges.versionsOf(agent, volume, root), ranges.versionsBelow(agent, volume, root)]) {
      for await (const [key, value] of this.entries(range)) yield { ...readVersionKey(key, agent, volume), version: readVersion(value) }
    }
  }

  /** Records after one position, up to and with another, in order. */
  async *summaries(agent: Label, after: Position, until: Position): AsyncGenerator<RecordSummary> {
    for await (const [, value] of this.entries(ranges.summaries(agent, after, until))) yield decodeSummary(value)
  }

  async epochs(agent: Label): Promise<{ epoch: number; from: HybridTime }[]> {
    const found = []
    for await (const [key, value] of this.entries(ranges.epochs(agent)))
      found.push({ epoch: readPosition(key, key.length - 16).epoch, from: hybridTime(value.readBigUInt64LE(0)) })
    return found
  }

  /** The last seq of an epoch that is known here; 0 where there is none. */
  async lastSeq(agent: Label, epoch: number): Promise<number> {
    const range = ranges.summaries(agent, { epoch, seq: 0 }, { epoch, seq: Number.MAX_SAFE_INTEGER - 1 })
    for await (const [key] of this.entries(range, { reverse: true, limit: 1 })) return readPosition(key, key.length - 16).seq
    return 0
  }

  async gaps(agent: Label, volume: Label): Promise<Gap[]> {
    const found: Gap[] = []
    for await (const [key, value] of this.entries(ranges.gaps(agent, volume))) {
      const from = new ByteReader(value, 'Catalog gap')
      found.push({
        from: hybridTime(from.big64()),
        until: hybridTime(from.big64()),
        cause: from.bytes(4096).toString('utf8'),
        position: readPosition(key, key.length - 16),
      })
    }
    return found
  }

  async coverage(agent: Label, volume: Label): Promise<Coverage[]> {
    const found: Coverage[] = []
    for await (const [, value] of this.entries(ranges.coverage(agent, volume))) found.push(readCoverage(value))
    return found
  }

  async lastCoverage(agent: Label, volume: Label): Promise<Coverage | undefined> {
    for await (const [, value] of this.entries(ranges.coverage(agent, volume), { reverse: true, limit: 1 })) return readCoverage(value)
    return undefined
  }
}

function rangeOptions(range: KeyRange, { reverse = false, limit = -1, readBytes = READ_BYTES }: CursorOptions): object {
  return { ...range, reverse, limit, highWaterMarkBytes: readBytes }
}
