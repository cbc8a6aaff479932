/**
 * Folding records into the catalog: one batch of records and chunk places becomes one write.
 *
 * Invariant: what a batch writes is the fold of the catalog with the batch's records, by shared/tree.ts, whatever the
 * size of the batch; a record that cannot follow, or that names a place that cannot exist, is refused and changes nothing.
 * It prevents an agent (or a crafted repository) from building a tree in which a file lies below a symlink.
 */
import { ByteWriter } from '../shared/bytes.ts'
import type { HybridTime } from '../shared/clock.ts'
import type { Digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { isWithin, type Label, parentOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import {
  breakAfter,
  type ChainEnd,
  comparePositions,
  encodeSummary,
  type JournalRecord,
  type Position,
  recordHash,
} from '../shared/record.ts'
import { type Effect, MemoryTree } from '../shared/tree.ts'
import { hardLinkKey } from '../shared/version.ts'
import type { Catalog, ChunkPlace, Coverage, Damage, Operation, Reflected, VolumeFacts } from './catalog.ts'
import { keys, positionBytes } from './catalog-keys.ts'
import {
  chainEndValue,
  chunkValue,
  coverageValue,
  damageValue,
  gapValue,
  reflectedValue,
  versionValue,
  volumeValue,
} from './catalog-values.ts'
import { LedgerFold } from './ledger-fold.ts'
import type { LedgerEnd, LedgerEntry } from './repository/ledger-entry.ts'

export class CatalogBatch {
  readonly #catalog: Catalog
  readonly #operations: Operation[] = []
  readonly #chunks = new Map<Digest, ChunkPlace>()
  readonly #ends = new Map<Label, ChainEnd>()
  readonly #volumes = new Map<string, VolumeFacts>()
  readonly #coverage = new Map<string, Coverage>()
  readonly #trees = new Map<string, LoadedTree>()
  readonly #writer = new ByteWriter(4096)
  /** Chunks that are to be read from nowhere any more. */
  readonly #dropped = new Set<Digest>()
  readonly #ledger: LedgerFold

  constructor(catalog: Catalog) {
    this.#catalog = catalog
    this.#ledger = new LedgerFold(
      catalog,
      (key, value) => this.#put(key, value),
      (key) => this.#delete(key),
    )
  }

  /** Of operations. */
  get size(): number {
    return this.#operations.length
  }

  get isEmpty(): boolean {
    return this.#operations.length === 0
  }

  chunk(name: Digest): ChunkPlace | undefined {
    return this.#chunks.get(name) ?? (this.#dropped.has(name) ? undefined : this.#catalog.chunk(name))
  }

  /** Whoever names it from now on has to send it. */
  dropChunk(name: Digest): void {
    this.#chunks.delete(name)
    this.#dropped.add(name)
    this.#delete(keys.chunk(name))
  }

  /** Places in packs that an entry of the ledger retires are to be removed when everything is folded. */
  noteRetiring(): void {
    this.#put(keys.retiring, Buffer.alloc(0))
  }

  get ledgerEnd(): LedgerEnd {
    return this.#ledger.end
  }

  /** Why the entry is not the next one, though it is taken as that; undefined where it is. */
  async addLedgerEntry(entry: LedgerEntry, encoded: Uint8Array): Promise<string | undefined> {
    const agents = new Set([...(await this.#catalog.agents()), ...this.#ends.keys()])
    const heads = new Map([...agents].map((agent) => [agent, this.chainEnd(agent)]))
    return this.#ledger.add(entry, encoded, heads)
  }

  addChunk(name: Digest, place: ChunkPlace): void {
    this.#chunks.set(name, place)
    this.#put(keys.chunk(name), chunkValue(place))
  }

  chainEnd(agent: Label): ChainEnd | undefined {
    return this.#ends.get(agent) ?? this.#catalog.chainEnd(agent)
  }

  /** Why the record cannot follow what is known of its agent; undefined when it can. */
  break(agent: Label, record: JournalRecord): string | undefined {
    return breakAfter(this.chainEnd(agent), record)
  }

  /**
   * Adds a record; `encoded` are its bytes. `salvage` takes it in although records before it are lost to damage: what is
   * left is then as near to the truth as can be had. @throws format-invalid when it cannot be folded in
   */
  async addRecord(agent: Label, record: JournalRecord, encoded: Uint8Array, salvage = false): Promise<void> {
    const broken = this.break(agent, record)
    if (broken !== undefined && !salvage) throw notContinuing(agent, broken)
    const position: Position = { epoch: record.epoch, seq: record.seq }
    if (broken !== undefined) this.#noteInterruption(agent, record, position)
    if (record.kind === 'epoch') {
      requireOwn(agent, record)
      this.#put(keys.epoch(agent, record.epoch), timeValue(record.time))
    } else if (record.kind === 'volume') {
      this.#putVolume(agent, {
        name: record.volume,
        root: record.root,
        mode: record.mode,
        since: this.#volume(agent, record.volume)?.since ?? record.time,
        completeAt: this.#volume(agent, record.volume)?.completeAt,
      })
    } else {
      await this.#addChange(agent, record, position, salvage)
    }
    this.#put(keys.summary(agent, position), encodeSummary(record, this.#writer))
    this.#ends.set(agent, { ...position, hash: recordHash(encoded), time: record.time })
  }

  /** Records before this one are lost to damage. Where they are the first of its epoch, the epoch begins with it. */
  #noteInterruption(agent: Label, record: JournalRecord, position: Position): void {
    this.#put(keys.interruption(agent, position), Buffer.alloc(0))
    if (this.chainEnd(agent)?.epoch !== record.epoch) this.#put(keys.epoch(agent, record.epoch), timeValue(record.time))
  }

  addDamage(damage: Damage): void {
    this.#put(keys.damage(damage.file, damage.offset), damageValue(damage))
  }

  async #addChange(
    agent: Label,
    record: Exclude<JournalRecord, { kind: 'epoch' | 'volume' }>,
    position: Position,
    salvage: boolean,
  ): Promise<void> {
    const known = this.#volume(agent, record.volume)
    if (known === undefined && !salvage)
      throw new PacsimileError(
        'format-invalid',
        `Record ${record.epoch}:${record.seq} of ${agent} is of volume ${record.volume}, which was never declared`,
      )
    const facts: VolumeFacts = known ?? { name: record.volume, root: '', mode: 'best-effort', since: record.time, completeAt: undefined }
    if (known === undefined) this.#putVolume(agent, facts)
    const name = `${agent}\0${record.volume}`
    switch (record.kind) {
      case 'put':
      case 'remove':
      case 'rename':
      case 'sweep':
        await this.#fold(agent, record, position, salvage)
        break
      case 'gap':
        this.#put(keys.gap(agent, record.volume, record.from, position), gapValue(record))
        break
      case 'coverage':
        await this.#extendCoverage(agent, record.volume, name, record)
        break
      case 'lost':
        this.#put(keys.lost(agent, { epoch: record.epoch, seq: record.lostSeq }), Buffer.alloc(0))
        break
      case 'mark':
        this.#put(keys.mark(agent, record.volume, record.time, position), Buffer.from(record.name, 'utf8'))
        break
    }
    if ((record.kind === 'sweep' || record.kind === 'coverage') && facts.completeAt === undefined)
      this.#putVolume(agent, { ...facts, completeAt: record.time })
  }

  async #fold(
    agent: Label,
    record: Extract<JournalRecord, { kind: 'put' | 'remove' | 'rename' | 'sweep' }>,
    position: Position,
    salvage: boolean,
  ): Promise<void> {
    const name = `${agent}\0${record.volume}`
    let tree = this.#trees.get(name)
    if (tree === undefined) {
      tree = new LoadedTree(this.#catalog, agent, record.volume)
      this.#trees.set(name, tree)
    }
    await tree.prepare(record, salvage)
    for (const effect of tree.fold(record)) {
      const version = effect.kind === 'is' ? effect.version : undefined
      this.#put(keys.version(agent, record.volume, effect.path, position), versionValue(version, this.#writer))
      const newest = keys.newest(agent, record.volume, effect.path)
      if (version === undefined) this.#delete(newest)
      else this.#put(newest, Buffer.from(positionBytes(position), 'latin1'))
      if (version !== undefined && hardLinkKey(version) !== undefined)
        this.#put(keys.linked(agent, record.volume, version.inode, effect.path), Buffer.alloc(0))
    }
  }

  /** Coverage that continues the last span widens it, so that the ledger grows with the breaks and not with the time. */
  async #extendCoverage(agent: Label, volume: Label, name: string, next: Coverage): Promise<void> {
    const last = this.#coverage.get(name) ?? (await this.#catalog.lastCoverage(agent, volume))
    const continues = last !== undefined && last.mode === next.mode && next.from <= last.until && next.from >= last.from
    const span: Coverage = continues
      ? { from: last.from, until: next.until > last.until ? next.until : last.until, mode: last.mode }
      : { from: next.from, until: next.until, mode: next.mode }
    this.#coverage.set(name, span)
    this.#put(keys.coverage(agent, volume, span.from), coverageValue(span))
  }

  #volume(agent: Label, volume: Label): VolumeFacts | undefined {
    return this.#volumes.get(`${agent}\0${volume}`) ?? this.#catalog.volume(agent, volume)
  }

  #putVolume(agent: Label, facts: VolumeFacts): void {
    this.#volumes.set(`${agent}\0${facts.name}`, facts)
    this.#put(keys.volume(agent, facts.name), volumeValue(facts))
  }

  #delete(key: Buffer): void {
    this.#operations.push({ type: 'del', key })
  }

  #put(key: Buffer, value: Buffer): void {
    this.#operations.push({ type: 'put', key, value })
  }

  /** Writes everything at once, with the place in the repository that it reflects. */
  async write(reflected: Reflected): Promise<void> {
    for (const [agent, end] of this.#ends) this.#put(keys.agent(agent), chainEndValue(end))
    this.#put(keys.reflected, reflectedValue(reflected))
    await this.#catalog.write(this.#operations)
  }
}

/** The part of a volume's newest tree that a batch needs, loaded before each record and changed by it. */
class LoadedTree {
  readonly #catalog: Catalog
  readonly #agent: Label
  readonly #volume: Label
  readonly #tree = new MemoryTree()
  /** Paths whose state in `#tree` is right: loaded, or changed by this batch. */
  readonly #known = new Set<RelativePath>()

  constructor(catalog: Catalog, agent: Label, volume: Label) {
    this.#catalog = catalog
    this.#agent = agent
    this.#volume = volume
  }

  /** Loads what the record's fold looks at, and checks that the record's place can exist. @throws format-invalid */
  async prepare(record: Extract<JournalRecord, { kind: 'put' | 'remove' | 'rename' | 'sweep' }>, salvage: boolean): Promise<void> {
    switch (record.kind) {
      case 'put':
        this.#load(record.path)
        if (!salvage) this.#checkPlace(record.path, record.version.kind === 'directory')
        if (record.version.kind !== 'directory' && this.#tree.at(record.path)?.version.kind === 'directory')
          await this.#loadBelow(record.path)
        break
      case 'remove':
        this.#load(record.path)
        await this.#loadBelow(record.path)
        break
      case 'rename':
        if (!salvage) this.#checkPlace(record.to, false)
        for (const path of [record.path, record.to]) {
          this.#load(path)
          await this.#loadBelow(path)
        }
        break
      case 'sweep':
        await this.#loadSwept({ epoch: record.epoch, seq: record.since })
        break
    }
  }

  #checkPlace(path: RelativePath, isDirectory: boolean): void {
    const parent = parentOf(path)
    if (parent === undefined) {
      if (!isDirectory) throw new PacsimileError('format-invalid', `The root of ${this.#agent}:${this.#volume} can only be a directory`)
      return
    }
    this.#load(parent)
    if (this.#tree.at(parent)?.version.kind !== 'directory')
      throw new PacsimileError('format-invalid', `${this.#agent}:${this.#volume}/${showPath(path)} lies in no directory`)
  }

  #load(path: RelativePath): void {
    if (this.#known.has(path)) return
    this.#known.add(path)
    const entry = this.#catalog.newest(this.#agent, this.#volume, path)
    if (entry !== undefined) this.#tree.set(entry)
  }

  async #loadBelow(path: RelativePath): Promise<void> {
    for (const entry of await this.#catalog.newestBelow(this.#agent, this.#volume, path)) {
      if (this.#known.has(entry.path)) continue
      this.#known.add(entry.path)
      this.#tree.set(entry)
    }
  }

  /**
   * Loads what a sweep will end, and nothing else: a volume of millions of paths, all put again by a scan, costs a walk of
   * their keys. What was put since stays out, and with it the directories above it, which the sweep spares.
   */
  async #loadSwept(since: Position): Promise<void> {
    let above: RelativePath[] = [ROOT]
    const leave = (next: RelativePath | undefined): void => {
      const left = above.filter((path) => next === undefined || !isWithin(next, path))
      above = above.filter((path) => next !== undefined && isWithin(next, path))
      for (const path of left) this.#load(path)
    }
    for await (const { path, position: stored } of this.#catalog.newestPositions(this.#agent, this.#volume, ROOT)) {
      leave(path)
      const position = this.#known.has(path) ? this.#tree.at(path)?.position : stored
      if (position === undefined) continue
      if (comparePositions(position, since) < 0) {
        above.push(path)
      } else {
        // Directories above it may be in the tree already, for another record of the batch: it must be seen below them.
        if (above.length > 0) this.#load(path)
        above = []
      }
    }
    leave(undefined)
  }

  fold(record: JournalRecord): Effect[] {
    const changes = this.#tree.apply(record)
    for (const change of changes) this.#known.add(change.path)
    return changes
  }
}

export function notContinuing(agent: Label, broken: string): PacsimileError {
  return new PacsimileError('format-invalid', `A record of ${agent} does not continue its chain: ${broken}`)
}

/** @throws format-invalid where the first record of an epoch is of another agent */
export function requireOwn(agent: Label, record: JournalRecord): void {
  if (record.kind === 'epoch' && record.agent !== agent)
    throw new PacsimileError('format-invalid', `A record of ${agent} says that it is of ${record.agent}`)
}

function timeValue(time: HybridTime): Buffer {
  const value = Buffer.alloc(8)
  value.writeBigUInt64LE(time, 0)
  return value
}
