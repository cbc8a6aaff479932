/**
 * Content that is journalled but not acknowledged, by digest: in memory while the collector takes it at once, else in the
 * spool.
 *
 * An entry is pinned from capture until its record has a seq, and needed until that seq is acknowledged.
 * Invariant: memory is bounded by HELD_BYTES_MAX; when the link is down, content is in the spool before the record that
 * needs it is journalled. It prevents an overwritten file's last version from existing only in a process that may be killed,
 * and a slow collector from becoming memory.
 */
import type { Digest } from '../shared/digest.ts'
import { HELD_BYTES_MAX } from '../shared/limits.ts'
import type { StoredChunk } from './capture-thread.ts'
import type { Origin } from './settle-entry.ts'
import type { Spool } from './spool.ts'

interface Entry {
  readonly digest: Digest
  readonly origin: Origin
  readonly sinceMs: number
  /** In memory. */
  chunk: StoredChunk | undefined
  pins: number
  /** The highest seq that needs it; 0 where none does yet. */
  lastSeq: number
  /** On its way to the spool. */
  spilling: Promise<void> | undefined
}

/** Content of an event that waits for longer than this in memory is written to the spool as well. */
const MEMORY_MS_MAX = 5000
/** A scan goes on while less than this is held. */
const SCAN_BYTES_MAX = HELD_BYTES_MAX / 2
/** What a scan finds is shipped up to this size; beyond, it is read from the file when it is wanted. */
const SCAN_SHIP_BYTES_MAX = HELD_BYTES_MAX / 4
/** While the collector is away a scan uses at most this share of the spool. */
const SCAN_SPOOL_SHARE = 0.5

export class Held {
  readonly #spool: Spool
  readonly #entries = new Map<Digest, Entry>()
  /** Digests by the seq that needs them, rising. */
  readonly #needed: { readonly seq: number; readonly digests: readonly Digest[] }[] = []
  #bytes = 0
  #released = 0
  #isLinkUp = false
  #refused = 0

  constructor(spool: Spool) {
    this.#spool = spool
    for (const digest of spool.digests())
      this.#entries.set(digest, { digest, origin: 'event', sinceMs: 0, chunk: undefined, pins: 0, lastSeq: 0, spilling: undefined })
  }

  /** Bytes in memory. */
  get bytes(): number {
    return this.#bytes
  }

  /** How often content could not be kept because spool and memory were full. */
  get refused(): number {
    return this.#refused
  }

  /** Whether a scan may capture more now. */
  get hasRoomForScan(): boolean {
    return this.#bytes < SCAN_BYTES_MAX
  }

  /** The largest file whose content is to be shipped with its capture; a larger one is read again when it is wanted. */
  shipBytesMax(origin: Origin): number {
    if (origin === 'event') return this.#spool.isFull && this.#bytes >= HELD_BYTES_MAX ? 0 : Number.POSITIVE_INFINITY
    if (this.#isLinkUp) return SCAN_SHIP_BYTES_MAX
    return this.#spool.bytes < this.#spool.quotaBytes * SCAN_SPOOL_SHARE ? Number.POSITIVE_INFINITY : 0
  }

  /** Keeps and pins a captured chunk. Resolves when it is where it belongs; undefined when it is there already. */
  keep(digest: Digest, chunk: StoredChunk, origin: Origin, nowMs: number): Promise<void> | undefined {
    const known = this.#entries.get(digest)
    if (known !== undefined) {
      known.pins += 1
      return known.spilling
    }
    const entry: Entry = { digest, origin, sinceMs: nowMs, chunk, pins: 1, lastSeq: 0, spilling: undefined }
    this.#entries.set(digest, entry)
    this.#bytes += chunk.bytes.length
    return this.#isLinkUp && this.#bytes <= HELD_BYTES_MAX ? undefined : this.#spill(entry)
  }

  #spill(entry: Entry): Promise<void> | undefined {
    if (entry.chunk !== undefined) entry.spilling ??= this.#writeOut(entry, entry.chunk)
    return entry.spilling
  }

  async #writeOut(entry: Entry, chunk: StoredChunk): Promise<void> {
    const isKept = await this.#spool.append(entry.digest, chunk)
    entry.spilling = undefined
    const current = this.#entries.get(entry.digest)
    if (current === undefined) await this.#spool.drop(entry.digest)
    if (current !== entry) return
    if (!isKept) this.#refused += 1
    // In memory it stays only while there is room; beyond that, the file itself is all that is left.
    if (isKept || this.#bytes > HELD_BYTES_MAX) this.#letGo(entry)
  }

  #letGo(entry: Entry): void {
    this.#bytes -= entry.chunk?.bytes.length ?? 0
    entry.chunk = undefined
    if (!this.#spool.has(entry.digest)) this.#entries.delete(entry.digest)
  }

  /** A capture that pinned these was not recorded. */
  unpin(digests: Iterable<Digest>): void {
    for (const digest of digests) {
      const entry = this.#entries.get(digest)
      if (entry === undefined) continue
      entry.pins = Math.max(0, entry.pins - 1)
      this.#releaseIfDone(entry)
    }
  }

  /** The record `seq` names these chunks; `pinned` are those that its capture kept. */
  need(seq: number, digests: readonly Digest[], pinned: Iterable<Digest>): void {
    const here = digests.filter((digest) => this.#entries.has(digest))
    for (const digest of here) {
      const entry = this.#entries.get(digest)
      if (entry !== undefined) entry.lastSeq = Math.max(entry.lastSeq, seq)
    }
    if (here.length > 0) this.#needed.push({ seq, digests: here })
    this.unpin(pinned)
  }

  /** Everything up to `seq` is acknowledged. */
  release(seq: number): void {
    this.#released = Math.max(this.#released, seq)
    let count = 0
    for (const needed of this.#needed) {
      if (needed.seq > seq) break
      count += 1
      for (const digest of needed.digests) {
        const entry = this.#entries.get(digest)
        if (entry !== undefined) this.#releaseIfDone(entry)
      }
    }
    this.#needed.splice(0, count)
  }

  #releaseIfDone(entry: Entry): void {
    if (entry.pins > 0 || entry.lastSeq > this.#released) return
    this.#entries.delete(entry.digest)
    this.#bytes -= entry.chunk?.bytes.length ?? 0
    entry.chunk = undefined
    if (entry.spilling === undefined) void this.#spool.drop(entry.digest)
  }

  /** After the unacknowledged records were told to `need`: what is left in the spool is needed by none. */
  forgetUnneeded(): void {
    for (const entry of this.#entries.values()) this.#releaseIfDone(entry)
  }

  /** The content, where it is held. */
  async read(digest: Digest): Promise<StoredChunk | undefined> {
    return this.#entries.get(digest)?.chunk ?? (await this.#spool.read(digest))
  }

  /** While the link is down, new content goes to the spool; what is in memory goes there now. */
  setLink(isUp: boolean): void {
    this.#isLinkUp = isUp
    if (!isUp) for (const entry of this.#entries.values()) void this.#spill(entry)
  }

  /** Content that has waited for long is made safe against a crash of this process. */
  spillOld(nowMs: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.origin === 'event' && nowMs - entry.sinceMs > MEMORY_MS_MAX) void this.#spill(entry)
    }
  }
}
