/**
 * The fold of records into writes of the state database. What a record means is said by shared/tree.ts; this module finds
 * the part of the tree that a record may touch, and turns effects into keys and values.
 *
 * Invariant: what it looks up includes what it has folded and not yet written. It prevents two records of one batch from
 * being folded as if the first had not been.
 */
import { type ByteString, ByteWriter } from '../shared/bytes.ts'
import { isWithin, type Label, parentOf, pathKey, type RelativePath, ROOT } from '../shared/path.ts'
import type { JournalRecord } from '../shared/record.ts'
import { effects, type Tree, type TreeEntry } from '../shared/tree.ts'
import type { Write } from './database.ts'
import { BLOCK_INODES_SHIFT, UNSEEN_ROW } from './inode-block.ts'
import { changedGroup, changeKey, type GroupChanges } from './inode-group.ts'
import type { Place } from './place.ts'
import { PRINT_BYTES } from './stat-print.ts'
import type { Known, StateItem, VolumeFacts } from './state.ts'
import { blockKey, encodeKnown, factsKey, groupKey, keyOf, listedKey, PRINT_AT } from './state-keys.ts'
import { encodeFacts } from './volume-facts.ts'

/** The state as it is written. */
export interface WrittenState {
  at(place: Place): Promise<Known | undefined>
  pages(volume: Label, within: RelativePath): AsyncIterable<readonly StateItem[]>
  groups(keys: ByteString[]): Promise<(Buffer | undefined)[]>
  /** Writes what was folded, as of `applied`. */
  write(writes: readonly Write[], applied: number): Promise<void>
  facts(volume: Label): VolumeFacts | undefined
  /** Told of every entry as it is folded. */
  changed(key: ByteString, known: Known | undefined): void
  factsChanged(volume: Label, facts: VolumeFacts): void
  /** Told of the key under which a scan remembers what it has seen, where that holds no more. */
  unseen(volume: Label, key: ByteString): void
  /** Told when a record makes a whole subtree disappear. */
  removed(): void
}

type Unseen = Map<ByteString, { readonly volume: Label; readonly write: Write }>

export class StateFold {
  readonly #state: WrittenState
  readonly #epoch: number
  readonly #writer = new ByteWriter()
  readonly #writes: Write[] = []
  /** What becomes of the index by inode, by the group's key. */
  readonly #groups = new Map<ByteString, GroupChanges>()
  /** What scans have seen that holds no more, by its key. */
  #unseen: Unseen = new Map()
  /** The same of what is being written. */
  #writing: Unseen = new Map()
  /** Places that were looked up or folded since the last write. */
  readonly #places = new Map<ByteString, Known | undefined>()

  constructor(state: WrittenState, epoch: number) {
    this.#state = state
    this.#epoch = epoch
  }

  /** Spares the looking up of what is known already. */
  expect(place: Place, known: Known | undefined): void {
    this.#places.set(keyOf(place.volume, place.path), known)
  }

  async fold(record: JournalRecord): Promise<void> {
    for await (const tree of this.#treesBefore(record)) await this.#dropListed(record, this.#apply(record, tree))
    if (record.kind === 'lost') await this.#markLost(record)
    this.#foldFacts(record)
  }

  async write(applied: number): Promise<void> {
    this.#writing = this.#unseen
    this.#unseen = new Map()
    const writes = [...this.#writes.splice(0), ...[...this.#writing.values()].map(({ write: unseen }) => unseen)]
    this.#places.clear()
    await this.#writeGroups(writes)
    await this.#state.write(writes, applied)
    this.#writing = new Map()
  }

  /** The keys of which `unseen` was told, and that can still be read as they were: whatever a scan reads now may be of before. */
  *unseenOf(volume: Label): Generator<ByteString, void> {
    for (const folded of [this.#writing, this.#unseen]) for (const [key, { volume: of }] of folded) if (of === volume) yield key
  }

  /** A scan has to look for itself again at what is kept under that key. */
  #forget(volume: Label, write: Write): void {
    if (this.#unseen.has(write.key)) return
    this.#unseen.set(write.key, { volume, write })
    this.#state.unseen(volume, write.key)
  }

  #forgetListed(volume: Label, inode: bigint): void {
    this.#forget(volume, { type: 'del', key: listedKey(volume, inode) })
  }

  /** Its row stays: it says that there is something to compare. */
  #forgetBlock(volume: Label, inode: bigint): void {
    this.#forget(volume, { type: 'put', key: blockKey(volume, inode >> BLOCK_INODES_SHIFT), value: Buffer.from(UNSEEN_ROW) })
  }

  async #writeGroups(writes: Write[]): Promise<void> {
    const keys = [...this.#groups.keys()]
    if (keys.length === 0) return
    const values = await this.#state.groups(keys)
    for (const [i, key] of keys.entries()) {
      const changes = this.#groups.get(key)
      const value = changes === undefined ? undefined : changedGroup(values[i], changes)
      writes.push(value === undefined ? { type: 'del', key } : { type: 'put', key, value })
    }
    this.#groups.clear()
  }

  /** The part of the tree that `record` may touch, in pieces that can be judged one by one. */
  async *#treesBefore(record: JournalRecord): AsyncGenerator<Tree, void> {
    switch (record.kind) {
      case 'put': {
        const known = await this.#at(record)
        if (known?.version.kind === 'directory' && record.version.kind !== 'directory') yield await this.#load(record, [record.path])
        else yield treeOf(known === undefined ? [] : [this.#entry(record.path, known)])
        return
      }
      case 'remove':
        yield await this.#load(record, [record.path])
        return
      case 'rename':
        yield await this.#load(record, [record.path, record.to])
        return
      case 'sweep':
        // Each entry is judged alone, so the volume need not be in memory at once.
        await this.write(record.seq - 1)
        for await (const page of this.#state.pages(record.volume, ROOT)) yield treeOf(this.#entries(page))
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

  async #at(place: Place): Promise<Known | undefined> {
    const key = keyOf(place.volume, place.path)
    return this.#places.has(key) ? this.#places.get(key) : this.#state.at(place)
  }

  /** Everything at and below the paths, as of before `record`. */
  async #load(record: JournalRecord & { readonly volume: Label }, paths: readonly RelativePath[]): Promise<Tree> {
    this.#state.removed()
    await this.write(record.seq - 1)
    const entries: TreeEntry[] = []
    for (const path of paths) for await (const page of this.#state.pages(record.volume, path)) entries.push(...this.#entries(page))
    return treeOf(entries)
  }

  #entries(page: readonly StateItem[]): TreeEntry[] {
    return page.flatMap(({ path, known }) => (known === undefined ? [] : [this.#entry(path, known)]))
  }

  #entry(path: RelativePath, known: Known): TreeEntry {
    return { path, position: { epoch: this.#epoch, seq: known.seq }, version: known.version }
  }

  /** @returns the directories in which other names are recorded than before */
  #apply(record: JournalRecord, tree: Tree): Set<RelativePath> {
    const renamed = new Set<RelativePath>()
    if (!('volume' in record)) return renamed
    const { volume } = record
    for (const effect of effects(record, tree)) {
      const prior = tree.at(effect.path)?.version
      const parent = parentOf(effect.path)
      if (parent !== undefined && (prior === undefined || effect.kind === 'gone')) renamed.add(parent)
      if (prior !== undefined) this.#index({ volume, path: effect.path }, prior.inode, undefined)
      if (prior?.kind === 'directory' && effect.kind === 'gone') this.#forgetListed(volume, prior.inode)
      if (effect.kind === 'gone') {
        const key = keyOf(volume, effect.path)
        this.#writes.push({ type: 'del', key })
        this.#note(key, undefined)
        continue
      }
      const { path, version } = effect
      this.#put({ volume, path }, { seq: record.seq, version, isLost: false })
    }
    return renamed
  }

  /** What a scan has seen of the names in these directories holds no more. */
  async #dropListed(record: JournalRecord, directories: ReadonlySet<RelativePath>): Promise<void> {
    if (!('volume' in record)) return
    const { volume } = record
    for (const path of directories) {
      const known = await this.#at({ volume, path })
      if (known?.version.kind !== 'directory') continue
      const { inode } = known.version
      this.#forgetListed(volume, inode)
      this.#forgetBlock(volume, inode)
    }
  }

  async #markLost(record: Extract<JournalRecord, { kind: 'lost' }>): Promise<void> {
    const known = await this.#at(record)
    if (known?.seq === record.lostSeq) this.#put(record, { ...known, isLost: true })
  }

  #put({ volume, path }: Place, known: Known): void {
    const key = keyOf(volume, path)
    const value = encodeKnown(known, this.#writer)
    this.#writes.push({ type: 'put', key, value })
    this.#index({ volume, path }, known.version.inode, value.subarray(PRINT_AT, PRINT_AT + PRINT_BYTES))
    this.#note(key, known)
  }

  #index({ volume, path }: Place, inode: bigint, print: Buffer | undefined): void {
    this.#forgetBlock(volume, inode)
    const group = groupKey(volume, inode)
    const changes: GroupChanges = this.#groups.get(group) ?? new Map()
    this.#groups.set(group, changes)
    const key = pathKey(path)
    changes.set(changeKey(inode, key), { inode, key, print })
  }

  #note(key: ByteString, known: Known | undefined): void {
    this.#places.set(key, known)
    this.#state.changed(key, known)
  }

  #foldFacts(record: JournalRecord): void {
    if (!('volume' in record)) return
    const facts = factsAfter(record, this.#state.facts(record.volume))
    if (facts === undefined) return
    this.#writes.push({ type: 'put', key: factsKey(record.volume), value: encodeFacts(facts) })
    this.#state.factsChanged(record.volume, facts)
  }
}

/** Undefined where the record says nothing of its volume as a whole. */
function factsAfter(record: JournalRecord, facts: VolumeFacts | undefined): VolumeFacts | undefined {
  switch (record.kind) {
    case 'volume': {
      const { root, mode } = record
      // Only the first one of an epoch owes a full scan; a later one says that the root or the mode is another.
      return facts === undefined ? { root, mode, sweepSince: record.seq } : { ...facts, root, mode }
    }
    case 'sweep': {
      if (facts === undefined) return undefined
      const { sweepSince: _, ...rest } = facts
      return rest
    }
    case 'gap':
    case 'coverage':
      return facts === undefined ? undefined : { ...facts, coveredUntil: record.until }
    case 'epoch':
    case 'put':
    case 'remove':
    case 'rename':
    case 'lost':
    case 'mark':
      return undefined
  }
}

function treeOf(entries: readonly TreeEntry[]): Tree {
  const byPath = new Map(entries.map((entry) => [entry.path, entry]))
  return {
    at: (path) => byPath.get(path),
    within: (path) => entries.filter((entry) => isWithin(entry.path, path)),
  }
}
