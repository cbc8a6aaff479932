/**
 * The state: for every path of every volume, the version that the journal last put there. Scans compare the disk with it.
 *
 * It is a fold of the journal by `effects` of shared/tree.ts and holds no truth of its own: it may be lost, and a scan
 * puts everything again. Order: written after the journal append that it reflects, together with the seq that it reflects
 * (`applied`); records after `applied` are folded in again at open; made durable before the journal is trimmed.
 * Invariant: it never runs ahead of the journal, and an entry whose checksum is wrong counts as absent. It prevents a
 * change from being taken for captured when no record says so.
 */
import { type ByteString, ByteWriter } from '../shared/bytes.ts'
import type { HybridTime } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { isWithin, type Label, type RelativePath, ROOT } from '../shared/path.ts'
import type { JournalRecord, WatchMode } from '../shared/record.ts'
import { effects, type Tree, type TreeEntry } from '../shared/tree.ts'
import type { Version } from '../shared/version.ts'
import { Database, setAside, type Write } from './database.ts'
import { KnownCache } from './known-cache.ts'
import {
  ALL_KEYS,
  decodeFacts,
  decodeKnown,
  encodeFacts,
  encodeKnown,
  FACTS_KEYS,
  factsKey,
  inodeKey,
  inodeRange,
  keyOf,
  MARK_KEY,
  pathOfInodeKey,
  pathOfKey,
  rangeWithin,
  volumeOfFactsKey,
} from './state-keys.ts'

/** What the journal says of a path. */
export interface Known {
  /** The seq of the record that put it. */
  readonly seq: number
  readonly version: Version
  /** Its content was lost before a collector had it: it is worth capturing again though nothing changed. */
  readonly isLost: boolean
}

/** One place of the state; `known` is undefined where its bytes are damaged. */
export interface StateItem {
  readonly key: ByteString
  readonly path: RelativePath
  readonly known: Known | undefined
}

/** What the journal says of a volume as a whole. */
export interface VolumeFacts {
  readonly root: ByteString
  readonly mode: WatchMode
  /** A sweep from this seq on is owed: the volume's first scan of this epoch has not ended. */
  readonly sweepSince?: number
  /** The volume's state was last verified for this time. */
  readonly coveredUntil?: HybridTime
}

export interface Place {
  readonly volume: Label
  readonly path: RelativePath
}

export class State {
  readonly #database: Database
  readonly #writer = new ByteWriter()
  readonly #facts: Map<Label, VolumeFacts>
  readonly #epoch: number
  readonly #coveredBefore: ReadonlyMap<Label, HybridTime>
  #applied: number
  readonly #cache = new KnownCache()
  /** Grows with every entry that is written. */
  #changes = 0
  #removals = 0

  private constructor(database: Database, { epoch, applied, facts, coveredBefore }: Opened) {
    this.#database = database
    this.#coveredBefore = coveredBefore
    this.#epoch = epoch
    this.#applied = applied
    this.#facts = facts
  }

  /** `oldest` is the lowest seq that the journal can still replay. A state of another epoch, or a damaged one, is begun anew. */
  static async open(directory: string, epoch: number, oldest: number): Promise<State> {
    const database = await openOrBegin(directory)
    const mark = await database.get(MARK_KEY)
    const markedEpoch = mark?.length === MARK_BYTES ? Number(mark.readBigUInt64LE(0)) : 0
    const applied = mark?.length === MARK_BYTES ? Number(mark.readBigUInt64LE(8)) : 0
    const facts = await readFacts(database)
    if (markedEpoch === epoch && applied >= oldest - 1) return new State(database, { epoch, applied, facts, coveredBefore: new Map() })
    await database.clear(ALL_KEYS)
    return new State(database, { epoch, applied: oldest - 1, facts: new Map(), coveredBefore: coveredTimes(facts) })
  }

  /** Until when a volume was covered in the epoch before this one, where that is known. */
  coveredBefore(volume: Label): HybridTime | undefined {
    return this.#coveredBefore.get(volume)
  }

  /** Every record up to this seq is folded in. */
  get applied(): number {
    return this.#applied
  }

  /** Grows with every record that makes paths disappear: what was read before it may not hold any more. */
  get removals(): number {
    return this.#removals
  }

  facts(volume: Label): VolumeFacts | undefined {
    return this.#facts.get(volume)
  }

  async at(place: Place): Promise<Known | undefined> {
    return (await this.atMany([place]))[0]
  }

  async atMany(places: readonly Place[]): Promise<(Known | undefined)[]> {
    const keys = places.map(({ volume, path }) => keyOf(volume, path))
    const found = new Map<ByteString, Known | undefined>()
    for (const key of keys) if (this.#cache.has(key)) found.set(key, this.#cache.get(key))
    const unread = keys.filter((key) => !found.has(key))
    if (unread.length > 0) {
      const changesBefore = this.#changes
      const values = await this.#database.getMany(unread)
      for (const [i, key] of unread.entries()) {
        const value = values[i]
        const known = value === undefined ? undefined : decodeKnown(value)
        found.set(key, known)
        // What changed meanwhile, the cache was told already.
        if (this.#changes === changesBefore) this.#cache.set(key, known)
      }
    }
    return keys.map((key) => found.get(key))
  }

  /** Other names of an inode, as far as they were captured. */
  async namesOf(volume: Label, inode: bigint): Promise<RelativePath[]> {
    const page = await this.#database.page(inodeRange(volume, inode))
    return page.map(([key]) => pathOfInodeKey(volume, key))
  }

  /** Some of the paths at or below `within`, in the order of a walk, from the key `from` on. Fewer than `limit`: these are the last. */
  async page(volume: Label, within: RelativePath, from: ByteString | undefined, limit: number): Promise<StateItem[]> {
    const { gte, lt } = rangeWithin(volume, within)
    const page = await this.#database.page({ gte: from ?? gte, lt }, limit)
    return page.map(([key, value]) => ({ key, path: pathOfKey(volume, key), known: decodeKnown(value) }))
  }

  /** Folds records in. They must be the next ones of the journal. */
  async apply(records: readonly JournalRecord[]): Promise<void> {
    const puts = records.filter((record) => record.kind === 'put')
    const loaded = await this.atMany(puts)
    const unwritten: Unwritten = { writes: [], paths: new Map(puts.map(({ volume, path }, i) => [keyOf(volume, path), loaded[i]])) }
    for (const record of records) {
      for await (const tree of this.#treesBefore(record, unwritten)) this.#fold(record, tree, unwritten)
      if (record.kind === 'lost') await this.#foldLost(record, unwritten)
      this.#foldFacts(record, unwritten)
    }
    const last = records.at(-1)
    if (last !== undefined) await this.#write(unwritten, last.seq)
  }

  /** The part of the tree that `record` may touch, in pieces that can be judged one by one. */
  async *#treesBefore(record: JournalRecord, unwritten: Unwritten): AsyncGenerator<Tree, void> {
    switch (record.kind) {
      case 'put': {
        const key = keyOf(record.volume, record.path)
        const known = unwritten.paths.has(key) ? unwritten.paths.get(key) : await this.at(record)
        if (known?.version.kind === 'directory' && record.version.kind !== 'directory')
          yield await this.#load(record, [record.path], unwritten)
        else yield treeOf(known === undefined ? [] : [this.#entry(record.path, known)])
        return
      }
      case 'remove':
        yield await this.#load(record, [record.path], unwritten)
        return
      case 'rename':
        yield await this.#load(record, [record.path, record.to], unwritten)
        return
      case 'sweep':
        // Each entry is judged alone, so the volume need not be in memory at once.
        await this.#write(unwritten, record.seq - 1)
        for await (const page of this.#database.pages(rangeWithin(record.volume, ROOT))) yield treeOf(this.#entries(record.volume, page))
        return
      case 'epoch':
      case 'volume':
      case 'gap':
      case 'coverage':
      case 'lost':
      case 'mark':
        return
    }
  }

  #fold(record: JournalRecord, tree: Tree, { writes, paths }: Unwritten): void {
    if (!('volume' in record)) return
    for (const effect of effects(record, tree)) {
      const key = keyOf(record.volume, effect.path)
      const prior = tree.at(effect.path)?.version
      if (prior !== undefined && prior.kind !== 'directory')
        writes.push({ type: 'del', key: inodeKey(record.volume, prior.inode, effect.path) })
      this.#changes += 1
      if (effect.kind === 'gone') {
        writes.push({ type: 'del', key })
        paths.set(key, undefined)
        this.#cache.set(key, undefined)
        continue
      }
      const { version } = effect
      const known = { seq: record.seq, version, isLost: false }
      writes.push({ type: 'put', key, value: encodeKnown(known, this.#writer) })
      if (version.kind !== 'directory')
        writes.push({ type: 'put', key: inodeKey(record.volume, version.inode, effect.path), value: NOTHING })
      paths.set(key, known)
      this.#cache.set(key, known)
    }
  }

  async #foldLost(record: Extract<JournalRecord, { kind: 'lost' }>, { writes, paths }: Unwritten): Promise<void> {
    const key = keyOf(record.volume, record.path)
    const known = paths.has(key) ? paths.get(key) : await this.at(record)
    if (known === undefined || known.seq !== record.lostSeq) return
    const lost = { ...known, isLost: true }
    writes.push({ type: 'put', key, value: encodeKnown(lost, this.#writer) })
    paths.set(key, lost)
    this.#changes += 1
    this.#cache.set(key, lost)
  }

  #foldFacts(record: JournalRecord, { writes }: Unwritten): void {
    const facts = this.#factsAfter(record)
    if (facts === undefined || !('volume' in record)) return
    this.#facts.set(record.volume, facts)
    writes.push({ type: 'put', key: factsKey(record.volume), value: encodeFacts(facts) })
  }

  #factsAfter(record: JournalRecord): VolumeFacts | undefined {
    if (!('volume' in record)) return undefined
    const facts = this.#facts.get(record.volume)
    if (record.kind === 'volume') {
      const { root, mode } = record
      // Only the first one of an epoch owes a full scan; a later one says that the root or the mode is another.
      return facts === undefined ? { root, mode, sweepSince: record.seq } : { ...facts, root, mode }
    }
    if (facts === undefined) return undefined
    if (record.kind === 'sweep') {
      const { sweepSince: _, ...rest } = facts
      return rest
    }
    return record.kind === 'coverage' || record.kind === 'gap' ? { ...facts, coveredUntil: record.until } : undefined
  }

  /** Everything at and below the paths, as of before `record`. */
  async #load(record: JournalRecord & { readonly volume: Label }, paths: readonly RelativePath[], unwritten: Unwritten): Promise<Tree> {
    this.#removals += 1
    await this.#write(unwritten, record.seq - 1)
    const entries: TreeEntry[] = []
    for (const path of paths) {
      for await (const page of this.#database.pages(rangeWithin(record.volume, path))) entries.push(...this.#entries(record.volume, page))
    }
    return treeOf(entries)
  }

  #entries(volume: Label, page: readonly [ByteString, Buffer][]): TreeEntry[] {
    return page.flatMap(([key, value]) => {
      const known = decodeKnown(value)
      return known === undefined ? [] : [this.#entry(pathOfKey(volume, key), known)]
    })
  }

  #entry(path: RelativePath, known: Known): TreeEntry {
    return { path, position: { epoch: this.#epoch, seq: known.seq }, version: known.version }
  }

  async #write(unwritten: Unwritten, applied: number): Promise<void> {
    const writes = unwritten.writes.splice(0)
    unwritten.paths.clear()
    await this.#database.write([...writes, this.#mark(applied)], { sync: false })
    this.#applied = applied
  }

  #mark(applied: number): Write {
    const value = Buffer.alloc(MARK_BYTES)
    value.writeBigUInt64LE(BigInt(this.#epoch), 0)
    value.writeBigUInt64LE(BigInt(applied), 8)
    return { type: 'put', key: MARK_KEY, value }
  }

  /** Everything applied so far is durable when it resolves. */
  sync(): Promise<void> {
    return this.#database.write([this.#mark(this.#applied)], { sync: true })
  }

  close(): Promise<void> {
    return this.#database.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** What was folded but not written, and how the paths stand that were looked up or folded meanwhile. */
interface Unwritten {
  readonly writes: Write[]
  readonly paths: Map<ByteString, Known | undefined>
}

const NOTHING = Buffer.alloc(0)
const MARK_BYTES = 16

interface Opened {
  readonly epoch: number
  readonly applied: number
  readonly facts: Map<Label, VolumeFacts>
  readonly coveredBefore: ReadonlyMap<Label, HybridTime>
}

async function readFacts(database: Database): Promise<Map<Label, VolumeFacts>> {
  const facts = new Map<Label, VolumeFacts>()
  for await (const page of database.pages(FACTS_KEYS)) {
    for (const [key, value] of page) {
      const decoded = decodeFacts(value)
      if (decoded !== undefined) facts.set(volumeOfFactsKey(key), decoded)
    }
  }
  return facts
}

function coveredTimes(facts: ReadonlyMap<Label, VolumeFacts>): Map<Label, HybridTime> {
  return new Map([...facts].flatMap(([volume, { coveredUntil }]) => (coveredUntil === undefined ? [] : [[volume, coveredUntil] as const])))
}

function treeOf(entries: readonly TreeEntry[]): Tree {
  const byPath = new Map(entries.map((entry) => [entry.path, entry]))
  return {
    at: (path) => byPath.get(path),
    within: (path) => entries.filter((entry) => isWithin(entry.path, path)),
  }
}

async function openOrBegin(directory: string): Promise<Database> {
  try {
    return await Database.open(directory)
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
    setAside(directory)
    return Database.open(directory)
  }
}
