/**
 * What stands in the repository and is not folded into the catalog yet, as far as taking in more needs to know it: where each agent's
 * chain ends, and which packs are read no more.
 *
 * It is found by reading the segments behind the catalog once, and of each group of records the last one: some ten times faster than
 * folding them. Records are checked against the chain and against the chunks that they name, as ever; whether their place in the
 * tree can exist is not known before what stands in front of them is folded, and they are folded then like those of a repository that
 * is made anew. Invariant: a chunk is said to be there only where it is read from. It prevents agents from having to wait for an index.
 */
import type { Digest } from '../shared/digest.ts'
import type { Label } from '../shared/path.ts'
import { breakAfter, type ChainEnd, comparePositions, decodeRecord, type JournalRecord, recordHash } from '../shared/record.ts'
import type { Catalog, ChunkPlace, Operation } from './catalog.ts'
import { notContinuing, requireOwn } from './catalog-batch.ts'
import { keys } from './catalog-keys.ts'
import { chunkValue } from './catalog-values.ts'
import { decodeRecordGroup } from './repository/record-group.ts'
import type { Repository } from './repository/repository.ts'
import { endsOf, framesFrom, isUnreadable, retiredBy } from './tail.ts'

export class Unfolded {
  readonly #catalog: Catalog
  readonly #ends: Map<Label, ChainEnd>
  readonly retired: ReadonlySet<number>

  private constructor(catalog: Catalog, ends: Map<Label, ChainEnd>, retired: ReadonlySet<number>) {
    this.#catalog = catalog
    this.#ends = ends
    this.retired = retired
  }

  /** @throws io */
  static async find(repository: Repository, catalog: Catalog): Promise<Unfolded> {
    const until = endsOf(repository).segments
    const ends = new Map<Label, ChainEnd>()
    for (const agent of await catalog.agents()) {
      const end = catalog.chainEnd(agent)
      if (end !== undefined) ends.set(agent, end)
    }
    // Whatever is damaged is told when it is folded.
    for (const { frame, next } of framesFrom(repository, 'segment', catalog.reflected().segments, [], { until })) {
      if (frame?.type !== 'records') continue
      try {
        const file = repository.file('segment', next.file)
        const { agent, records } = decodeRecordGroup(file.read(frame.offset, frame.storedLength, frame.digest))
        const last = records.at(-1)
        if (last === undefined) continue
        const record = decodeRecord(last)
        const known = ends.get(agent)
        // Written before a crash or a failed disk and sent again since: known already.
        if (known === undefined || comparePositions(record, known) > 0) ends.set(agent, endAt(record, last))
      } catch (error) {
        if (!isUnreadable(error)) throw error
      }
    }
    return new Unfolded(catalog, ends, await retiredBy(repository, catalog, until))
  }

  get agents(): Label[] {
    return [...this.#ends.keys()]
  }

  chainEnd(agent: Label): ChainEnd | undefined {
    return this.#ends.get(agent)
  }

  chunk(name: Digest): ChunkPlace | undefined {
    const place = this.#catalog.chunk(name)
    return place === undefined || this.retired.has(place.file) ? undefined : place
  }

  batch(): UnfoldedBatch {
    return new UnfoldedBatch(this, (operations, ends) => this.#write(operations, ends))
  }

  /** Places alone: how far the catalog reflects the repository is what the fold says. */
  async #write(operations: readonly Operation[], ends: ReadonlyMap<Label, ChainEnd>): Promise<void> {
    await this.#catalog.write(operations)
    for (const [agent, end] of ends) this.#ends.set(agent, end)
  }
}

/** One commit's worth of it. */
export class UnfoldedBatch {
  readonly #unfolded: Unfolded
  readonly #commit: (operations: readonly Operation[], ends: ReadonlyMap<Label, ChainEnd>) => Promise<void>
  readonly #chunks = new Map<Digest, ChunkPlace>()
  readonly #ends = new Map<Label, ChainEnd>()

  constructor(unfolded: Unfolded, commit: (operations: readonly Operation[], ends: ReadonlyMap<Label, ChainEnd>) => Promise<void>) {
    this.#unfolded = unfolded
    this.#commit = commit
  }

  chunk(name: Digest): ChunkPlace | undefined {
    return this.#chunks.get(name) ?? this.#unfolded.chunk(name)
  }

  addChunk(name: Digest, place: ChunkPlace): void {
    this.#chunks.set(name, place)
  }

  chainEnd(agent: Label): ChainEnd | undefined {
    return this.#ends.get(agent) ?? this.#unfolded.chainEnd(agent)
  }

  /** @throws format-invalid when it does not continue its agent's chain */
  addRecord(agent: Label, record: JournalRecord, encoded: Uint8Array): void {
    const broken = breakAfter(this.chainEnd(agent), record)
    if (broken !== undefined) throw notContinuing(agent, broken)
    requireOwn(agent, record)
    this.#ends.set(agent, endAt(record, encoded))
  }

  write(): Promise<void> {
    const operations = Array.from(
      this.#chunks,
      ([name, place]): Operation => ({ type: 'put', key: keys.chunk(name), value: chunkValue(place) }),
    )
    return this.#commit(operations, this.#ends)
  }
}

function endAt(record: JournalRecord, encoded: Uint8Array): ChainEnd {
  return { epoch: record.epoch, seq: record.seq, hash: recordHash(encoded), time: record.time }
}
