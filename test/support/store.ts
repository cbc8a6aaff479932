/** A repository with its catalog in a scratch directory, fed as ingest feeds it. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { CatalogBatch } from '../../collector/catalog-batch.ts'
import { CatchUp } from '../../collector/catch-up.ts'
import { ChunkCache } from '../../collector/chunk-cache.ts'
import { History } from '../../collector/history.ts'
import { Ingest } from '../../collector/ingest.ts'
import type { IngestSession } from '../../collector/ingest-item.ts'
import { endOfLedger } from '../../collector/ledger-view.ts'
import { Repository, type Sealing } from '../../collector/repository/repository.ts'
import { RunningTime } from '../../collector/running-time.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import type { Digest } from '../../shared/digest.ts'
import type { PacsimileError } from '../../shared/errors.ts'
import { silentLog } from '../../shared/log.ts'
import { type Label, ROOT } from '../../shared/path.ts'
import { MemoryTree, type TreeEntry } from '../../shared/tree.ts'
import type { ChainHead } from '../../shared/wire.ts'
import type { JournalWriter } from './journal-writer.ts'
import { scratchDirectory } from './scratch.ts'

/** A session without a connection: remembers what ingest says. */
export class RecordedSession implements IngestSession {
  readonly agent: Label
  readonly lost = new Set<Digest>()
  readonly acks: ChainHead[] = []
  readonly failures: PacsimileError[] = []
  #wake: (() => void) | undefined

  constructor(agent: Label) {
    this.agent = agent
  }

  committed(head: ChainHead): void {
    this.acks.push(head)
    this.#wake?.()
  }

  failed(error: PacsimileError): void {
    this.failures.push(error)
    this.#wake?.()
  }

  /** Resolves at the next word from ingest. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}

export class Store {
  directory: string
  readonly dataKey = randomBytes(32)
  repository!: Repository
  catalog!: Catalog
  catchUp!: CatchUp
  ingest!: Ingest
  history!: History
  readonly committed: ReadonlySet<Label>[] = []
  /** The collector's monotonic clock: time passes when a test says so. */
  nowMs = 0
  age!: RunningTime
  /** Its wall clock, where a test sets it. */
  wallMs: number | undefined
  #stop = new AbortController()
  #running: Promise<void> = Promise.resolve()
  readonly #sent = new Map<JournalWriter, number>()

  readonly #sealAs: Sealing

  private constructor(directory: string, sealAs: Sealing) {
    this.directory = directory
    this.#sealAs = sealAs
  }

  get repositoryDirectory(): string {
    return join(this.directory, 'repository')
  }

  static async open(sealAs: Sealing = {}): Promise<Store> {
    const store = new Store(scratchDirectory(), sealAs)
    Repository.create(store.repositoryDirectory, { id: randomBytes(16).toString('hex'), chunkSizes: DEFAULT_CHUNK_SIZES })
    await store.start()
    onTestFinished(() => store.stop())
    return store
  }

  /** As a collector begins; what of segments is behind the catalog is folded at once up to `soonBytes`. */
  async start(soonBytes = Number.POSITIVE_INFINITY): Promise<void> {
    this.catalog = await Catalog.open(join(this.directory, 'catalog'))
    this.repository = Repository.openForAppending(this.repositoryDirectory, this.dataKey, this.catalog.reflected(), this.#sealAs)
    this.catchUp = await CatchUp.begin({ repository: this.repository, catalog: this.catalog, log: silentLog, soonBytes })
    const cache = new ChunkCache(1 << 20)
    this.history = new History(this.catalog, this.repository, { cache })
    this.age = new RunningTime(endOfLedger(this.catalog).ageMs, () => this.nowMs)
    this.ingest = new Ingest({
      age: this.age,
      wall: { now: () => this.wallMs ?? Date.now() },
      repository: this.repository,
      catalog: this.catalog,
      unfolded: this.catchUp.unfolded,
      cache,
      log: silentLog,
      onCommit: (agents) => this.committed.push(agents),
    })
    this.#stop = new AbortController()
    this.#running = this.ingest.run(this.#stop.signal)
  }

  async stop(): Promise<void> {
    if (this.#stop.signal.aborted) return
    this.#stop.abort()
    await this.#running
    await this.catalog.close()
    await this.repository.sealed()
    this.repository.close()
  }

  /** Of what the writer has written, the first `length` records are there. */
  holds(writer: JournalWriter, length: number): void {
    this.#sent.set(writer, length)
  }

  /** Seals what is being appended to, as a start seals what was full. */
  async seal(agent: Label): Promise<void> {
    this.repository.abandonOpenFiles()
    // Nothing, committed behind both files.
    const session = new RecordedSession(agent)
    const answered = session.next()
    await this.ingest.submit({ session, records: [] })
    await answered
    await this.stop()
    await this.start()
    await this.repository.sealed()
  }

  /** Sends what the writer has written since the last call, and waits for the word on it. */
  async send(writer: JournalWriter): Promise<RecordedSession> {
    const session = new RecordedSession(writer.agent)
    const records = writer.written.slice(this.#sent.get(writer) ?? 0)
    this.#sent.set(writer, writer.written.length)
    for (const { record } of records) {
      if (record.kind !== 'put' || record.version.kind !== 'file') continue
      for (const { digest } of record.version.chunks) {
        if (!this.ingest.hasChunk(writer.agent, digest)) await this.ingest.submit({ session, chunk: writer.chunkMessage(digest) })
      }
    }
    const answered = session.next()
    await this.ingest.submit({ session, records: records.map(({ bytes }) => bytes) })
    await answered
    return session
  }

  /** Whether what was written since the last call of `send` has places that can exist, by the fold of what was sent before. */
  async accepts(writer: JournalWriter): Promise<boolean> {
    const end = this.catalog.chainEnd(writer.agent)
    const batch = new CatalogBatch(this.catalog)
    try {
      for (const { record, bytes } of writer.written.slice(end?.seq ?? 0)) await batch.addRecord(writer.agent, record, bytes)
      return true
    } catch {
      return false
    }
  }

  /** The fold of all that was written, sent or not. */
  newestTree(writer: JournalWriter): TreeEntry[] {
    const tree = new MemoryTree()
    for (const { record } of writer.written) tree.apply(record)
    return [...tree.within(ROOT)]
  }
}
