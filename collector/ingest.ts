/**
 * Taking in what agents send, in the one order that cannot lose what was acknowledged:
 *
 *     verify each chunk's hash -> chunks durable -> records durable -> catalog -> ack -> hint to the followers
 *
 * Where the policy asks for copies, the ack alone waits for them; commits go on. Where the catalog is made anew, commits go on as well: of
 * it only the places of chunks are written then, and what was committed is folded when its turn comes.
 *
 * A crash between any two steps leaves a phantom (chunks without records, records without an ack, a catalog that lags and
 * is folded again at start), never a hole. One loop commits for all sessions: while one commit is on its way to the disk
 * the next gathers, so the cost of an fsync is shared by whatever arrived meanwhile.
 */
import { systemClock, type WallClock } from '../shared/clock.ts'
import { type Digest, digestHex, digestOf } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError, reasonOf } from '../shared/errors.ts'
import { COMMIT_BYTES_TARGET } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { type ChainEnd, decodeRecord, type JournalRecord } from '../shared/record.ts'
import { plainOf, storedForm } from '../shared/stored-form.ts'
import type { ChainHead } from '../shared/wire.ts'
import { AckGate } from './ack-gate.ts'
import type { Catalog, Reflected } from './catalog.ts'
import { CatalogBatch } from './catalog-batch.ts'
import type { ChunkCache } from './chunk-cache.ts'
import { ChunkPromises } from './chunk-promises.ts'
import { shortageOf } from './disk-room.ts'
import {
  bytesOf,
  type ChunkMessage,
  type Committed,
  heldBytesOf,
  type IngestSession,
  type Item,
  payloadOf,
  queuedKey,
} from './ingest-item.ts'
import type { Payload } from './repository/frame.ts'
import { encodeLedgerEntry, type LedgerBody, type LedgerEntry } from './repository/ledger-entry.ts'
import { addToGroups, type RecordGroup } from './repository/record-group.ts'
import type { Repository } from './repository/repository.ts'
import type { RunningTime } from './running-time.ts'
import { endsOf } from './tail.ts'
import type { Unfolded, UnfoldedBatch } from './unfolded.ts'

/** Received bytes, as they are held, that may wait for a commit before senders are held back. */
const QUEUE_BYTES_MAX = 8 * COMMIT_BYTES_TARGET
/** An entry of the ledger that fails costs a restart: none is begun with less. */
const LEDGER_ROOM_BYTES = 1 << 20
/** Pause before files are begun anew after the disk failed. */
const RETRY_MS = 1000

type Batch = CatalogBatch | UnfoldedBatch

export class Ingest {
  readonly #repository: Repository
  readonly #catalog: Catalog
  readonly #cache: ChunkCache
  readonly #log: Log
  readonly #onCommit: (agents: ReadonlySet<Label>) => void
  readonly #age: RunningTime
  readonly #wall: WallClock
  readonly #naming = new Set<(name: Digest) => void>()
  readonly #promises: ChunkPromises
  readonly #gate: AckGate
  #queue: Item[] = []
  #queuedBytes = 0
  /** Agent, NUL, digest -> how often: what one agent sends and spoils is no other's. */
  readonly #queuedChunks = new Map<string, number>()
  #wakeLoop: (() => void) | undefined
  readonly #wakeSenders: (() => void)[] = []
  #failure: PacsimileError | undefined
  #isProven = false
  /** While the catalog is behind what is taken in. */
  #unfolded: Unfolded | undefined
  #durable: Reflected

  constructor(parts: {
    repository: Repository
    catalog: Catalog
    cache: ChunkCache
    log: Log
    /** Where the catalog lacks more than was to be waited for. */
    unfolded?: Unfolded | undefined
    /** Without one, what is durable here is acknowledged. */
    gate?: AckGate | undefined
    onCommit: (agents: ReadonlySet<Label>) => void
    age: RunningTime
    wall?: WallClock
  }) {
    this.#repository = parts.repository
    this.#catalog = parts.catalog
    this.#cache = parts.cache
    this.#log = parts.log
    this.#onCommit = parts.onCommit
    this.#age = parts.age
    this.#promises = new ChunkPromises(() => parts.age.ms)
    this.#wall = parts.wall ?? systemClock
    this.#gate = parts.gate ?? new AckGate(() => true)
    this.#unfolded = parts.unfolded
    this.#durable = endsOf(parts.repository)
  }

  /** Up to where everything is durable in the repository; the catalog reflects as much, unless it is behind. */
  get durable(): Reflected {
    return this.#durable
  }

  /** Whether the catalog is behind what is taken in: what it says of anything is what was once. */
  get isUnfolded(): boolean {
    return this.#unfolded !== undefined
  }

  /** The end of an agent's chain as it is durable here; undefined for an agent never heard of. */
  chainEnd(agent: Label): ChainEnd | undefined {
    return (this.#unfolded ?? this.#catalog).chainEnd(agent)
  }

  /** Why nothing can be taken in at the moment; undefined when all is well. */
  get failure(): PacsimileError | undefined {
    return this.#failure
  }

  /** Whether the last commit went through, and there was one. */
  get isProven(): boolean {
    return this.#isProven
  }

  /** Whether a chunk is durable or on its way to be. */
  hasChunk(agent: Label, name: Digest): boolean {
    const isThere = this.#queuedChunks.has(`${agent}\0${name}`) || (this.#unfolded ?? this.#catalog).chunk(name) !== undefined
    // Who is told so does not send it, and its record is on its way.
    if (isThere) this.#promises.add(name)
    return isThere
  }

  /** Whether somebody was told not long ago that the chunk is there. */
  isPromised(name: Digest): boolean {
    return this.#promises.has(name)
  }

  /** Whether all that is durable here may be acknowledged. */
  get isHeld(): boolean {
    return this.#gate.isHeld(this.#durable)
  }

  /** Acknowledges what is durable here, when it may be. */
  acknowledge(session: IngestSession, head: ChainHead): void {
    this.#gate.when(this.#durable, () => session.committed(head))
  }

  /** Whether senders should hold back. */
  get isCrowded(): boolean {
    return this.#queuedBytes > QUEUE_BYTES_MAX / 2
  }

  /** Resolves when there is room for more, not when it is durable. */
  async submit(item: Item): Promise<void> {
    if ('chunk' in item) {
      const key = queuedKey(item.session, item.chunk)
      this.#queuedChunks.set(key, (this.#queuedChunks.get(key) ?? 0) + 1)
    }
    this.#queue.push(item)
    this.#queuedBytes += heldBytesOf(item)
    this.#wakeLoop?.()
    while (this.#queuedBytes > QUEUE_BYTES_MAX) await new Promise<void>((resolve) => this.#wakeSenders.push(resolve))
  }

  /** Stores a chunk once more, because its frame is damaged; resolves when it is read from the new one. @throws io, space */
  rewrite(name: Digest, plain: Buffer): Promise<void> {
    return this.move({ digest: name, plainLength: plain.length, ...storedForm(plain, undefined) })
  }

  /** The same of what is stored somewhere. @throws io, space */
  move({ digest, plainLength, filtered, compressed, bytes }: Payload): Promise<void> {
    return new Promise((resolve, reject) => {
      const rewrite: ChunkMessage = { kind: 'chunk', digest, length: plainLength, filtered, compressed, bytes }
      // Whoever waits is told by the commit.
      void this.submit({ rewrite, resolve, reject })
    })
  }

  /** Entries of the ledger, durable when this resolves. `make` is called in the order of commits. @throws io, space, rebuilding */
  note(make: (batch: CatalogBatch) => readonly LedgerBody[]): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    if (this.isUnfolded) return Promise.reject(new PacsimileError('rebuilding', 'The ledger is not folded yet, and cannot be continued'))
    const shortage = shortageOf(this.#repository.directory, LEDGER_ROOM_BYTES)
    if (shortage !== undefined) return Promise.reject(shortage)
    return new Promise((resolve, reject) => {
      // Who writes the ledger waits for it, and is told by the commit.
      void this.submit({ ledger: make, resolve, reject })
    })
  }

  /** Everything that is durable is in the catalog when `fold` ends; nothing is committed while it runs. @throws what it throws */
  endUnfolded(fold: () => Promise<void>): Promise<void> {
    const still = async (): Promise<void> => {
      await fold()
      this.#unfolded = undefined
    }
    return new Promise((resolve, reject) => {
      void this.submit({ still, resolve, reject })
    })
  }

  /** Tells of every chunk that a record names which is committed from now on, before it is; until the disposal. */
  whileNaming(listen: (name: Digest) => void): Disposable {
    this.#naming.add(listen)
    return { [Symbol.dispose]: () => this.#naming.delete(listen) }
  }

  /** The commit loop; ends when the signal is given and what was submitted is committed. @throws io, space when the catalog fails */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#wakeLoop?.()
    signal.addEventListener('abort', stop)
    try {
      for (;;) {
        if (this.#queue.length === 0) {
          if (signal.aborted) return
          await new Promise<void>((resolve) => {
            this.#wakeLoop = resolve
          })
          this.#wakeLoop = undefined
          continue
        }
        const next = this.#queue[0]
        if (next !== undefined && 'still' in next) {
          this.#dropFirst(1)
          await next.still().then(next.resolve, (error: unknown) => next.reject(asPacsimileError(error, 'Folding the repository')))
          continue
        }
        const items = this.#take()
        const words = await this.#commit(items)
        for (const item of items) if ('chunk' in item) this.#release(queuedKey(item.session, item.chunk))
        for (const say of words) say()
        for (const wake of this.#wakeSenders.splice(0)) wake()
      }
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  #take(): Committed[] {
    const items: Committed[] = []
    let bytes = 0
    for (const item of this.#queue) {
      if ('still' in item || (items.length > 0 && bytes >= COMMIT_BYTES_TARGET)) break
      bytes += bytesOf(item)
      items.push(item)
      // What an entry of the ledger speaks of stands before it, and nothing else.
      if ('ledger' in item) break
    }
    this.#dropFirst(items.length)
    return items
  }

  #dropFirst(count: number): void {
    for (const item of this.#queue.slice(0, count)) this.#queuedBytes -= heldBytesOf(item)
    this.#queue = this.#queue.slice(count)
  }

  #release(key: string): void {
    const left = (this.#queuedChunks.get(key) ?? 1) - 1
    if (left > 0) this.#queuedChunks.set(key, left)
    else this.#queuedChunks.delete(key)
  }

  /** @returns what is to be said to the sessions and followers, now that it is true */
  async #commit(items: readonly Committed[]): Promise<(() => void)[]> {
    const batch = this.#unfolded?.batch() ?? new CatalogBatch(this.#catalog)
    const groups: RecordGroup[] = []
    const heads = new Map<IngestSession, ChainHead>()
    const broken = new Map<IngestSession, PacsimileError>()
    const ledger: Buffer[] = []
    try {
      for (const item of items) {
        if ('ledger' in item) {
          if (!(batch instanceof CatalogBatch)) throw new Error('no entry of the ledger is taken while it is not folded')
          for (const body of item.ledger(batch)) ledger.push(await this.#addToLedger(body, batch))
          continue
        }
        if ('rewrite' in item) {
          this.#storeChunk(item.rewrite, batch)
          continue
        }
        if (broken.has(item.session)) continue
        try {
          if ('chunk' in item) this.#takeChunk(item.chunk, batch)
          else heads.set(item.session, await this.#takeRecords(item.session, item.records, batch, groups))
        } catch (error) {
          if (!isPeersFault(error)) throw error
          broken.set(item.session, new PacsimileError('protocol', `${item.session.agent}: ${error.message}`, { cause: error }))
        }
      }
      await this.#repository.commit(groups, ledger)
    } catch (error) {
      // Whether an entry that was being written is there, only who reads the repository anew can tell; the next one builds on it.
      if (ledger.length > 0) throw asPacsimileError(error, 'Committing to the ledger')
      return this.#fail(asPacsimileError(error, 'Committing to the repository'), items)
    }
    const reflected = endsOf(this.#repository)
    try {
      await batch.write(reflected)
    } catch (error) {
      // After a failed write LevelDB may acknowledge what it loses. Everything is durable in the repository: the collector
      // starts anew, and folds it again.
      throw asPacsimileError(error, 'Writing the catalog')
    }
    this.#isProven = true
    this.#durable = reflected
    if (this.#failure !== undefined) {
      this.#failure = undefined
      this.#log.info('the repository takes data again')
    }
    const words = [...heads].map(
      ([session, head]) =>
        (): void =>
          this.#gate.when(reflected, () => session.committed(head)),
    )
    for (const item of items) if ('resolve' in item) words.push(item.resolve)
    for (const [session, error] of broken) words.push(() => session.failed(error))
    const agents = new Set([...heads.keys(), ...broken.keys()].map((session) => session.agent))
    words.push(() => this.#onCommit(agents))
    return words
  }

  async #addToLedger(body: LedgerBody, batch: CatalogBatch): Promise<Buffer> {
    const { number, hash: previous } = batch.ledgerEnd
    const entry: LedgerEntry = { previous, number: number + 1, wallMs: this.#wall.now(), ageMs: this.#age.ms, body }
    const encoded = encodeLedgerEntry(entry)
    await batch.addLedgerEntry(entry, encoded)
    return encoded
  }

  #takeChunk(chunk: ChunkMessage, batch: Batch): void {
    if (batch.chunk(chunk.digest) === undefined) this.#storeChunk(chunk, batch)
  }

  #storeChunk(chunk: ChunkMessage, batch: Batch): void {
    const plain = plainOf(chunk, chunk.length)
    if (digestOf(plain) !== chunk.digest)
      throw new PacsimileError('damage', `chunk ${digestHex(chunk.digest)} does not have the content that its digest names`)
    const place = this.#repository.appendChunk(payloadOf(chunk, plain))
    batch.addChunk(chunk.digest, { ...place, plainLength: chunk.length })
    // What came as it is lies in the memory of its message, or of several.
    this.#cache.set(chunk.digest, chunk.compressed ? plain : Buffer.from(plain))
  }

  async #takeRecords(session: IngestSession, encoded: readonly Uint8Array[], batch: Batch, groups: RecordGroup[]): Promise<ChainHead> {
    const taken: Uint8Array[] = []
    try {
      for (const bytes of encoded) {
        const record = decodeRecord(bytes)
        const end = batch.chainEnd(session.agent)
        // A record that was durable before the session began may be on its way twice; the ack says how far we are.
        if (end !== undefined && record.epoch === end.epoch && record.seq <= end.seq) continue
        this.#requireChunks(session, record, batch)
        await batch.addRecord(session.agent, record, bytes)
        taken.push(bytes)
      }
    } finally {
      // What was taken before a bad record is whole, and stays.
      addToGroups(groups, session.agent, taken)
    }
    const end = batch.chainEnd(session.agent)
    if (end === undefined) throw new PacsimileError('format-invalid', 'no record could be taken')
    return { epoch: end.epoch, seq: end.seq, hash: end.hash }
  }

  #requireChunks(session: IngestSession, record: JournalRecord, batch: Batch): void {
    if (record.kind !== 'put' || record.version.kind !== 'file') return
    for (const chunk of record.version.chunks) {
      for (const listen of this.#naming) listen(chunk.digest)
      const place = batch.chunk(chunk.digest)
      if (place === undefined && session.lost.has(chunk.digest)) continue
      const what = `record ${record.epoch}:${record.seq} names chunk ${digestHex(chunk.digest)}`
      if (place === undefined) throw new PacsimileError('format-invalid', `${what}, which was not sent`)
      if (place.plainLength !== chunk.length)
        throw new PacsimileError('format-invalid', `${what} with ${chunk.length} bytes, but it has ${place.plainLength}`)
    }
  }

  /** The disk failed: nothing of this batch is acknowledged, every session sends again from its last ack. */
  async #fail(error: PacsimileError, items: readonly Committed[]): Promise<(() => void)[]> {
    if (this.#failure === undefined) this.#log.error('the repository cannot take data', { code: error.code, reason: reasonOf(error) })
    this.#failure = error
    this.#isProven = false
    this.#repository.abandonOpenFiles()
    await new Promise<void>((resolve) => {
      setTimeout(resolve, RETRY_MS)
    })
    const sessions = new Set(items.flatMap((item) => ('session' in item ? [item.session] : [])))
    const rejections = items.flatMap((item) => ('reject' in item ? [(): void => item.reject(error)] : []))
    return [...rejections, ...[...sessions].map((session) => (): void => session.failed(error))]
  }
}

function isPeersFault(error: unknown): error is PacsimileError {
  return error instanceof PacsimileError && (error.code === 'damage' || error.code === 'format-invalid' || error.code === 'format-unknown')
}
