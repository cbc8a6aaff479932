/**
 * A stretch of the journal on its way to the collector: its records, and the chunks that they name and must go before.
 *
 * Invariant: every chunk that the records name is known to the collector, sent, or declared lost before they are sent. It
 * prevents a record at the collector whose content is nowhere.
 */
import type { Digest } from '../shared/digest.ts'
import { WINDOW_BYTES } from '../shared/limits.ts'
import { recordHash } from '../shared/record.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { ChainHead } from '../shared/wire.ts'
import type { JournalEntry } from './journal-records.ts'
import { mayPart } from './moments.ts'
import type { Place } from './place.ts'

/** Where a chunk can be read, apart from where it is held: in the files whose versions named it. */
export interface ChunkSource {
  readonly chunk: ChunkRef
  readonly spots: readonly ChunkSpot[]
}

export interface ChunkSpot {
  readonly place: Place
  readonly offset: number
}

/** Content named by the records of one delivery, so that acks come often; one moment's may be more, a larger version goes alone. */
const CONTENT_BYTES_TARGET = 8 * 1024 * 1024
/** Content from which on a moment is parted. */
const CONTENT_BYTES_PRESSING = WINDOW_BYTES
/** Files that are tried for one chunk. */
const SPOTS_MAX = 4

export class Delivery {
  readonly entries: readonly JournalEntry[]

  constructor(entries: readonly JournalEntry[]) {
    this.entries = entries
  }

  /** Consecutive entries, in deliveries of bounded content that part no moment where it can be helped (moments.ts). */
  static *of(entries: readonly JournalEntry[]): Generator<Delivery, void> {
    let from = 0
    let bytes = 0
    for (const [i, { record }] of entries.entries()) {
      const size = record.kind === 'put' && record.version.kind === 'file' ? record.version.size : 0
      const before = i > from ? entries[i - 1]?.record : undefined
      const isFull = bytes + size > CONTENT_BYTES_TARGET
      if (before !== undefined && isFull && mayPart(before, record, bytes + size > CONTENT_BYTES_PRESSING)) {
        yield new Delivery(entries.slice(from, i))
        from = i
        bytes = 0
      }
      bytes += size
    }
    if (from < entries.length) yield new Delivery(entries.slice(from))
  }

  get lastSeq(): number {
    return this.entries.at(-1)?.record.seq ?? 0
  }

  /** The end of the chain after these records. */
  get head(): ChainHead {
    const last = this.entries.at(-1)
    if (last === undefined) throw new RangeError('an empty delivery has no head')
    return { epoch: last.record.epoch, seq: last.record.seq, hash: recordHash(last.bytes) }
  }

  get bytes(): number {
    return this.entries.reduce((sum, { bytes }) => sum + bytes.length, 0)
  }

  /** The chunks that the records name, each once, without those that `isKnown`. */
  sources(isKnown: (digest: Digest) => boolean): ChunkSource[] {
    const sources = new Map<Digest, { readonly chunk: ChunkRef; readonly spots: ChunkSpot[] }>()
    for (const { record } of this.entries) {
      if (record.kind !== 'put' || record.version.kind !== 'file') continue
      let offset = 0
      for (const chunk of record.version.chunks) {
        const spot = { place: record, offset }
        const source = sources.get(chunk.digest)
        if (source !== undefined && source.spots.length < SPOTS_MAX) source.spots.push(spot)
        else if (source === undefined && !isKnown(chunk.digest)) sources.set(chunk.digest, { chunk, spots: [spot] })
        offset += chunk.length
      }
    }
    return [...sources.values()]
  }

  /** The records whose content is not whole without these chunks. */
  naming(digests: ReadonlySet<Digest>): (Place & { readonly seq: number })[] {
    return this.entries.flatMap(({ record }) => {
      const isNaming =
        record.kind === 'put' && record.version.kind === 'file' && record.version.chunks.some(({ digest }) => digests.has(digest))
      return isNaming ? [{ volume: record.volume, path: record.path, seq: record.seq }] : []
    })
  }
}
