/**
 * The state: for every path of every volume, the version that the journal last put there. Scans compare the disk with it.
 *
 * It is a fold of the journal and holds no truth of its own: it may be lost, and a scan puts everything again. Order:
 * written after the journal append that it reflects, together with the seq that it reflects (`applied`); records after
 * `applied` are folded in again at open; made durable before the journal is trimmed.
 * Invariant: it never runs ahead of the journal, and an entry whose checksum is wrong counts as absent. It prevents a
 * change from being taken for captured when no record says so.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { HybridTime } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { type Label, parentOf, pathFromKey, type RelativePath } from '../shared/path.ts'
import type { JournalRecord, WatchMode } from '../shared/record.ts'
import type { Version } from '../shared/version.ts'
import { Database, type MakeRoom, setAside, type Write } from './database.ts'
import { type SeenBlock, UNSEEN_ROW } from './inode-block.ts'
import { GROUP_INODES_SHIFT, keysOf } from './inode-group.ts'
import { KnownCache } from './known-cache.ts'
import type { Place } from './place.ts'
import { StateFold } from './state-fold.ts'
import {
  ALL_KEYS,
  blockKey,
  blockPrefix,
  decodeKnown,
  FACTS_KEYS,
  groupKey,
  keyOf,
  LAYOUT,
  listedKey,
  listedPrefix,
  MARK_KEY,
  pathOfKey,
  rangeOfPrefix,
  rangeWithin,
  rulesKey,
  volumeOfFactsKey,
} from './state-keys.ts'
import { decodeFacts } from './volume-facts.ts'

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

/** A directory of which a scan has seen that it holds exactly what is recorded, as it was then. */
export interface Listed {
  readonly inode: bigint
  /** Its mtime and ctime, as the database keeps them. */
  readonly times: Uint8Array
}

/** What a scan has seen to be as it is recorded. */
export interface Seen {
  readonly listed: readonly Listed[]
  readonly blocks: readonly SeenBlock[]
}

/** What a scan of a volume that is under way has to know before it has anything of that remembered; ends with it. */
export interface Listing extends Disposable {
  readonly volume: Label
  /** Keys under which that is kept, of what is recorded otherwise since it began. */
  readonly dropped: Set<ByteString>
}

/** Rules of what is left out, as text, and whether a scan under them has verified the whole volume. */
export interface SeenUnder {
  readonly rules: string
  readonly isVerified: boolean
}

/** What the journal can replay of the epoch. */
export interface Replayable {
  /** The lowest seq. */
  readonly oldest: number
  readonly head: { readonly seq: number }
}

interface Opened {
  readonly directory: string
  readonly epoch: number
  readonly applied: number
  readonly facts: Map<Label, VolumeFacts>
  readonly coveredBefore: ReadonlyMap<Label, HybridTime>
}

const MARK_BYTES = 24
const RULES_STATES = [
  { isVerified: true, mark: 'verified ' },
  { isVerified: false, mark: 'begun ' },
] as const
const FIRST_SEQ = 1

export class State {
  /** Scan threads open the database a second time. */
  readonly directory: string
  readonly #database: Database
  readonly #epoch: number
  readonly #facts: Map<Label, VolumeFacts>
  readonly #coveredBefore: ReadonlyMap<Label, HybridTime>
  readonly #cache = new KnownCache()
  readonly #fold: StateFold
  readonly #listings = new Set<Listing>()
  #noting: Promise<unknown> = Promise.resolve()
  #applied: number
  /** Grows with every entry that changes. */
  #changes = 0
  #removals = 0

  private constructor(database: Database, { directory, epoch, applied, facts, coveredBefore }: Opened) {
    this.directory = directory
    this.#database = database
    this.#epoch = epoch
    this.#applied = applied
    this.#facts = facts
    this.#coveredBefore = coveredBefore
    this.#fold = new StateFold(
      {
        at: (place) => this.at(place),
        pages: (volume, within) => this.#pages(volume, within),
        groups: (keys) => this.#database.getMany(keys),
        write: (writes, seq) => this.#write(writes, seq),
        facts: (volume) => this.facts(volume),
        changed: (key, known) => {
          this.#changes += 1
          this.#cache.set(key, known)
        },
        factsChanged: (volume, changed) => void this.#facts.set(volume, changed),
        unseen: (volume, key) => {
          for (const listing of this.#listings) if (listing.volume === volume) listing.dropped.add(key)
        },
        removed: () => {
          this.#removals += 1
        },
      },
      epoch,
    )
  }

  /**
   * A state of another epoch or layout, or a damaged one, is begun anew: as the fold of the epoch, where the journal holds all of it, and else as knowing
   * nothing. Of a part of it, the scan that follows would leave alone what that part knows, and the sweep behind it would end what no record has put since.
   */
  static async open(directory: string, epoch: number, { oldest, head }: Replayable, makeRoom?: MakeRoom): Promise<State> {
    const database = await openOrBegin(directory, makeRoom)
    const mark = readMark(await database.get(MARK_KEY))
    const facts = await readFacts(database)
    const isOfUse = mark?.layout === LAYOUT && mark.epoch === epoch && mark.applied >= oldest - 1
    if (isOfUse) return new State(database, { directory, epoch, applied: mark.applied, facts, coveredBefore: new Map() })
    await database.clear(ALL_KEYS)
    const applied = oldest === FIRST_SEQ ? 0 : head.seq
    return new State(database, { directory, epoch, applied, facts: new Map(), coveredBefore: coveredTimes(facts) })
  }

  /** Until when a volume was covered before the state was begun anew, where that is known. */
  coveredBefore(volume: Label): HybridTime | undefined {
    return this.#coveredBefore.get(volume)
  }

  /** Every record up to this seq is folded in. */
  get applied(): number {
    return this.#applied
  }

  /** Why nothing more can be written to it. */
  get failure(): PacsimileError | undefined {
    return this.#database.failure
  }

  /** Grows with every record that makes a subtree disappear: what was read before it may not hold any more. */
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
        // Of what changed meanwhile, the cache was told already.
        if (this.#changes === changesBefore) this.#cache.set(key, known)
      }
    }
    return keys.map((key) => found.get(key))
  }

  /** Names of inodes, as far as they were captured. */
  async namesOf(volume: Label, inodes: readonly bigint[]): Promise<RelativePath[]> {
    // Those of files that are written one after the other are mostly neighbours.
    const wanted = Map.groupBy(inodes, (inode) => inode >> GROUP_INODES_SHIFT)
    const groups = await this.#database.getMany([...wanted.values()].map(([first = 0n]) => groupKey(volume, first)))
    return [...wanted.values()].flatMap((members, i) => {
      const group = groups[i]
      return group === undefined ? [] : members.flatMap((inode) => keysOf(group, inode).map(pathFromKey))
    })
  }

  /** A scan begins that will tell of what is as it is recorded. Another one may be under way. */
  beginListing(volume: Label): Listing {
    const listing: Listing = {
      volume,
      dropped: new Set(this.#fold.unseenOf(volume)),
      [Symbol.dispose]: () => void this.#listings.delete(listing),
    }
    this.#listings.add(listing)
    return listing
  }

  /** Remembers that for the next scan. It is of no harm when it is lost: that one looks again. */
  async noteSeen({ volume, dropped }: Listing, { listed, blocks }: Seen): Promise<void> {
    const seen = [
      ...listed.map(({ inode, times }) => ({ key: listedKey(volume, inode), value: Buffer.from(times) })),
      ...blocks.map(({ block, row }) => ({ key: blockKey(volume, BigInt(block)), value: Buffer.from(row, 'latin1') })),
    ]
    const writes = seen.filter(({ key }) => !dropped.has(key)).map((row): Write => ({ type: 'put', ...row }))
    if (writes.length === 0) return
    const writing = this.#database.write(writes, { sync: false })
    // A record that touches any of it from here on is written behind it.
    this.#noting = Promise.allSettled([this.#noting, writing]).then(() => undefined)
    await writing
  }

  /** The rules under which scans see what they remember, and whether one has verified the whole volume; undefined where none has begun. */
  async rulesOf(volume: Label): Promise<SeenUnder | undefined> {
    const value = (await this.#database.get(rulesKey(volume)))?.toString('utf8') ?? ''
    const state = RULES_STATES.find(({ mark }) => value.startsWith(mark))
    return state && { rules: value.slice(state.mark.length), isVerified: state.isVerified }
  }

  /** From here on scans see what there is under these rules: nothing is remembered of what they saw under others. None may be under way. */
  async beginRules(volume: Label, rules: string): Promise<void> {
    await this.#database.clear(rangeOfPrefix(listedPrefix(volume)))
    for await (const page of this.#database.pages(rangeOfPrefix(blockPrefix(volume))))
      await this.#database.write(
        page.map(([key]): Write => ({ type: 'put', key, value: Buffer.from(UNSEEN_ROW) })),
        { sync: false },
      )
    await this.#noteRules(volume, { rules, isVerified: false })
  }

  /** A scan that began under these rules has verified the whole volume. */
  verifyRules(volume: Label, rules: string): Promise<void> {
    return this.#noteRules(volume, { rules, isVerified: true })
  }

  #noteRules(volume: Label, { rules, isVerified }: SeenUnder): Promise<void> {
    const mark = RULES_STATES.find((state) => state.isVerified === isVerified)?.mark ?? ''
    return this.#database.write([{ type: 'put', key: rulesKey(volume), value: Buffer.from(`${mark}${rules}`, 'utf8') }], { sync: false })
  }

  /** Some of the paths at or below `within`, in the order of a walk, from the key `from` on. Fewer than `limit`: these are the last. */
  async page(volume: Label, within: RelativePath, from: ByteString | undefined, limit: number): Promise<StateItem[]> {
    const { gte, lt } = rangeWithin(volume, within)
    const page = await this.#database.page({ gte: from ?? gte, lt }, limit)
    return page.map(([key, value]) => stateItem(volume, key, value))
  }

  async *#pages(volume: Label, within: RelativePath): AsyncGenerator<StateItem[], void> {
    for await (const page of this.#database.pages(rangeWithin(volume, within)))
      yield page.map(([key, value]) => stateItem(volume, key, value))
  }

  /** Folds records in. They must be the next ones of the journal. */
  async apply(records: readonly JournalRecord[]): Promise<void> {
    const places = new Map<ByteString, Place>()
    for (const record of records) {
      if (record.kind !== 'put') continue
      const { volume, path } = record
      for (const wanted of [path, parentOf(path) ?? path]) places.set(keyOf(volume, wanted), { volume, path: wanted })
    }
    const wanted = [...places.values()]
    const known = await this.atMany(wanted)
    for (const [i, place] of wanted.entries()) this.#fold.expect(place, known[i])
    for (const record of records) await this.#fold.fold(record)
    const last = records.at(-1)
    if (last !== undefined) await this.#fold.write(last.seq)
  }

  async #write(writes: readonly Write[], applied: number): Promise<void> {
    await this.#noting
    await this.#database.write([...writes, this.#mark(applied)], { sync: false })
    this.#applied = applied
  }

  #mark(applied: number): Write {
    const value = Buffer.alloc(MARK_BYTES)
    value.writeBigUInt64LE(BigInt(LAYOUT), 0)
    value.writeBigUInt64LE(BigInt(this.#epoch), 8)
    value.writeBigUInt64LE(BigInt(applied), 16)
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

function stateItem(volume: Label, key: ByteString, value: Buffer): StateItem {
  return { key, path: pathOfKey(volume, key), known: decodeKnown(value) }
}

function readMark(value: Buffer | undefined): { layout: number; epoch: number; applied: number } | undefined {
  if (value?.length !== MARK_BYTES) return undefined
  const [layout = 0, epoch = 0, applied = 0] = [0, 8, 16].map((at) => Number(value.readBigUInt64LE(at)))
  return { layout, epoch, applied }
}

async function openOrBegin(directory: string, makeRoom?: MakeRoom): Promise<Database> {
  try {
    return await Database.openShared(directory, makeRoom)
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
    setAside(directory)
    return Database.openShared(directory, makeRoom)
  }
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
