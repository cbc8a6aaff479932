/**
 * The journal: this agent's durable, ordered list of changes, and how far each collector has acknowledged it.
 *
 * Order: a group of changes gets its numbers, times and hashes, is written with one sync, and only then are its writers
 * answered and its readers woken; a record leaves this host only after it is durable here, else a crash would use its
 * number twice. Records below the acked position are removed only after that position is durable.
 * Invariant: what is read is one unbroken chain; every record carries a checksum of its own and the chain is walked at
 * open and after every write error, because LevelDB may drop or alter records without saying so. It prevents a history
 * with a silent hole: damage ends the epoch instead.
 */
import { ByteWriter } from '../shared/bytes.ts'
import type { HybridClock, HybridTime } from '../shared/clock.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { JOURNAL_BATCH_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import { type ChainEnd, type Change, chainStart, encodeRecord, type JournalRecord, recordHash } from '../shared/record.ts'
import type { ChainHead } from '../shared/wire.ts'
import { Batches } from './batches.ts'
import { Database, type MakeRoom } from './database.ts'
import {
  acksBefore,
  ackWrite,
  type JournalEntry,
  missingRecord,
  positionOf,
  RECORD_KEYS,
  readAcks,
  recordEntry,
  recordRange,
  recordsBefore,
  recordWrite,
  type Walked,
  walkChain,
} from './journal-records.ts'
import { allEnded, sleep, Waiters } from './waiting.ts'

export interface JournalOptions {
  readonly directory: string
  readonly epoch: number
  readonly clock: HybridClock
  readonly log: Log
  /** Frees what was kept for opening the journal on a full disk. */
  readonly makeRoom?: MakeRoom
  /** Whether it may be written again after the disk was full. */
  readonly isRoomToWrite?: () => boolean
}

/** A time in which nothing could be journalled: what changed more than once then may have lost a version. */
export interface Outage {
  /** Of the last record before. */
  readonly from: HybridTime
  readonly cause: string
}

/** Pause before a database that failed is opened again. */
const REOPEN_MS = 1000

export class Journal {
  readonly #database: Database
  readonly #clock: HybridClock
  readonly #log: Log
  readonly #writer = new ByteWriter(4096)
  readonly #appends: Batches<Change, JournalEntry>
  readonly #grown = new Waiters()
  readonly #acked: Map<string, ChainHead>
  readonly #closing = new AbortController()
  #end: ChainEnd
  #grownMs: number | undefined
  #oldest: number
  readonly #isRoomToWrite: () => boolean
  #failure: PacsimileError | undefined
  #outage: Outage | undefined
  #damage: PacsimileError | undefined
  #isMending = false

  private constructor(database: Database, { clock, log, isRoomToWrite }: JournalOptions, walked: Walked, acked: Map<string, ChainHead>) {
    this.#database = database
    this.#clock = clock
    this.#log = log
    this.#isRoomToWrite = isRoomToWrite ?? ((): boolean => true)
    this.#end = walked.end
    this.#oldest = walked.oldest
    this.#acked = acked
    this.#appends = new Batches(JOURNAL_BATCH_MAX, (batch) => this.#commit(batch))
  }

  /** Walks the whole kept chain. @throws damage when it is broken: begin a new epoch; locked */
  static async open(options: JournalOptions): Promise<Journal> {
    const database = await Database.open(options.directory, options.makeRoom)
    try {
      const acked = await readAcks(database, options.epoch)
      const walked = await walkChain(database, options.epoch, acked)
      options.clock.atLeast(walked.end.time)
      return new Journal(database, options, walked, acked)
    } catch (error) {
      await database.close()
      throw error
    }
  }

  get epoch(): number {
    return this.#end.epoch
  }

  get head(): ChainEnd {
    return this.#end
  }

  /** When the last record became durable, ms since 1970; undefined while there was none since it was opened. */
  get grownMs(): number | undefined {
    return this.#grownMs
  }

  /** The lowest seq that is still held; one above the head where none is. */
  get oldest(): number {
    return this.#oldest
  }

  /** Why nothing can be written at the moment; appends wait until it can. */
  get failure(): PacsimileError | undefined {
    return this.#failure
  }

  /** The time in which nothing could be written, once it is over; it is told once. */
  takeOutage(): Outage | undefined {
    if (this.#failure !== undefined) return undefined
    const outage = this.#outage
    this.#outage = undefined
    return outage
  }

  acked(repository: string): ChainHead {
    return this.#acked.get(repository) ?? { epoch: this.epoch, seq: 0, hash: chainStart(this.epoch).hash }
  }

  /** Resolves when the changes are durable, as consecutive records. @throws damage: begin a new epoch */
  append(changes: readonly Change[]): Promise<JournalEntry[]> {
    return this.#appends.add(changes)
  }

  /** The same, given up when the signal is given while the disk does not take it: the journal is closed then. @throws damage, space, io */
  async appendUnless(stop: AbortSignal, changes: readonly Change[]): Promise<JournalEntry[]> {
    const appending = this.append(changes)
    await allEnded([appending], async () => {
      if (stop.aborted) await this.closeIfFailed()
    })
    return appending
  }

  async #commit(batch: readonly Change[]): Promise<JournalEntry[]> {
    // Nothing is ever written behind a hole.
    if (this.#damage !== undefined) throw this.#damage
    let end = this.#end
    const entries: JournalEntry[] = []
    // What was appended together is of one moment: both files of a database, above all.
    const times = this.#clock.ticks(batch.length)
    for (const [i, change] of batch.entries()) {
      const time = times[i] ?? this.#clock.tick()
      const record: JournalRecord = { ...change, previous: end.hash, epoch: end.epoch, seq: end.seq + 1, time }
      const bytes = encodeRecord(record, this.#writer)
      entries.push({ record, bytes })
      end = { epoch: record.epoch, seq: record.seq, time: record.time, hash: recordHash(bytes) }
    }
    await this.#write(entries, end)
    this.#end = end
    if (entries.length > 0) this.#grownMs = Date.now()
    this.#grown.wake()
    return entries
  }

  async #write(entries: readonly JournalEntry[], end: ChainEnd): Promise<void> {
    const writes = entries.map(recordWrite)
    for (;;) {
      try {
        await this.#database.write(writes, { sync: true })
        break
      } catch (error) {
        this.#fail(error)
        if (await this.#holdsAfterReopening(end)) break
      }
    }
    if (this.#failure === undefined) return
    this.#failure = undefined
    this.#log.info('the journal can be written again')
  }

  #fail(error: unknown): void {
    const failure = asPacsimileError(error, 'Writing the journal')
    if (this.#failure === undefined)
      this.#log.error('the journal cannot be written; capturing waits', { code: failure.code, reason: failure.message })
    this.#failure = failure
    this.#outage ??= { from: this.#end.time, cause: `the journal could not be written (${failure.code})` }
  }

  /** Whether the failed write is on disk after all. @throws damage when what was promised before it is not */
  async #holdsAfterReopening(end: ChainEnd): Promise<boolean> {
    for (;;) {
      await this.#pause()
      try {
        await this.#database.reopen()
        break
      } catch (error) {
        this.#fail(error)
      }
    }
    // It can be read, acknowledged and trimmed from here on; that is what the rest of the space is for.
    while (this.#failure?.code === 'space' && !this.#isRoomToWrite()) await this.#pause()
    const found = (await walkChain(this.#database, this.epoch, this.#acked)).end
    if (found.seq === end.seq && found.hash === end.hash) return true
    if (found.seq === this.#end.seq && found.hash === this.#end.hash) return false
    this.#damage = new PacsimileError(
      'damage',
      `The journal ends at ${found.epoch}:${found.seq} after a failed write, but ${this.#end.epoch}:${this.#end.seq} was durable`,
    )
    throw this.#damage
  }

  /** @throws the failure, when the journal is closed meanwhile */
  async #pause(): Promise<void> {
    await sleep(REOPEN_MS, this.#closing.signal)
    if (this.#closing.signal.aborted) throw this.#failure ?? new PacsimileError('io', 'The journal is closed')
  }

  /** Records from `from` on: about `bytesMax` bytes of them, at least one where there is one. @throws damage */
  async read(from: number, bytesMax: number, countMax: number): Promise<JournalEntry[]> {
    const entries: JournalEntry[] = []
    let bytes = 0
    if (from > this.#end.seq) return entries
    const range = recordRange(this.epoch, from, this.#end.seq + 1)
    for await (const page of this.#database.pages(range)) {
      for (const [key, value] of page) {
        const entry = recordEntry(key, value)
        if (entry.record.seq !== from + entries.length) throw missingRecord(this.epoch, from + entries.length)
        if (entries.length > 0 && bytes + entry.bytes.length > bytesMax) return entries
        entries.push(entry)
        bytes += entry.bytes.length
        if (entries.length >= countMax) return entries
      }
    }
    if (entries.length === 0) throw missingRecord(this.epoch, from)
    return entries
  }

  /** Resolves when the head is beyond `seq`, or the signal is given. */
  async waitBeyond(seq: number, signal: AbortSignal): Promise<void> {
    while (this.#end.seq <= seq && !signal.aborted) await this.#grown.wait(signal)
  }

  /** The hash of a record as this journal has it; undefined where it is no longer, or not yet, held. */
  async hashAt(seq: number): Promise<ChainHead['hash'] | undefined> {
    if (seq === 0) return chainStart(this.epoch).hash
    if (seq === this.#end.seq) return this.#end.hash
    if (seq === this.#oldest - 1) return (await this.read(this.#oldest, 1, 1))[0]?.record.previous
    if (seq < this.#oldest || seq > this.#end.seq) return undefined
    return (await this.read(seq + 1, 1, 1))[0]?.record.previous
  }

  /** Notes that a collector holds everything up to `head`; `trim` makes it durable. */
  ack(repository: string, head: ChainHead): void {
    if (head.epoch === this.epoch && head.seq > this.acked(repository).seq) this.#acked.set(repository, head)
  }

  /** Removes what is below the acked record; that one stays, so that its hash can be compared. */
  async trim(repository: string): Promise<void> {
    const head = this.acked(repository)
    if (head.seq <= this.#oldest) return
    if (this.#damage !== undefined) throw this.#damage
    if (this.#database.failure !== undefined) {
      this.#mend()
      return
    }
    await this.#database.write([ackWrite(repository, head)], { sync: true })
    await this.#database.clear(acksBefore(repository, head))
    await this.#database.clear(recordsBefore(head))
    this.#oldest = head.seq
  }

  /** Has the database reopened, as the next append would. */
  #mend(): void {
    if (this.#isMending) return
    this.#isMending = true
    this.#appends
      .add([])
      // Damage is thrown by every append that follows as well.
      .catch(() => undefined)
      .finally(() => {
        this.#isMending = false
      })
  }

  /** An append that waits for the disk to take it is given up: its changes are found again by a scan. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#appends.close()
    this.#grown.wake()
    await this.#database.close()
  }

  /** At an end: whoever waits for an append that waits for the disk would do so for ever. */
  async closeIfFailed(): Promise<void> {
    if (this.#failure !== undefined) await this.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** The greatest epoch of which there is a record, for an agent that lost its epoch file. */
export async function greatestEpochIn(directory: string): Promise<number> {
  const database = await Database.open(directory)
  try {
    const [key] = (await database.last(RECORD_KEYS)) ?? []
    return key === undefined ? 0 : positionOf(key).epoch
  } finally {
    await database.close()
  }
}
