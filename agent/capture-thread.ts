/**
 * One capture thread with what it has been given; started again when it dies.
 *
 * Invariant: every job that was given has exactly one outcome, also when the thread dies of it: it is then tried once more,
 * and reported as unreadable after that. It prevents one file that crashes a decoder from being retried for ever, and any
 * path from being waited for in vain.
 */
import type { Worker } from 'node:worker_threads'
import type { ChunkSizes } from '../shared/chunker.ts'
import { reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { Stored } from '../shared/stored-form.ts'
import type { CapturedMessage, CaptureJob, CaptureMessage, CaptureThreadData, JobsMessage, Outcome, ShippedChunk } from './capture-job.ts'
import type { VolumeRoot } from './file-stat.ts'
import type { LeaseMemory } from './lease.ts'
import type { LeaseWarden } from './lease-warden.ts'
import { endThread, startThread } from './threads.ts'

/** A captured chunk as it is shipped and kept. */
export interface StoredChunk extends Stored {
  /** Plain bytes. */
  readonly length: number
}

/** Whoever wants to know what becomes of a job. */
export interface CaptureClient {
  /** Content of the job's file; resolves when it has been taken over, so that more may come. */
  taken(chunk: ShippedChunk, stored: StoredChunk): Promise<void> | undefined
  ended(outcome: Outcome): void
}

export interface AssignedJob {
  readonly job: CaptureJob
  readonly root: VolumeRoot
  readonly sizes: ChunkSizes
  readonly client: CaptureClient
}

interface Started {
  readonly worker: Worker
  readonly bytesInFlight: Int32Array
  readonly atMs: number
}

/** Pause before a thread that ended soon after its start is started again. */
const RESTART_MS = 1000

export class CaptureThread {
  readonly #log: Log
  readonly #onOutcomes: () => void
  readonly #warden: LeaseWarden
  readonly #leases: LeaseMemory
  readonly #assigned = new Map<number, AssignedJob>()
  /** Jobs that a thread has died of, or beside. */
  readonly #suspects = new Set<number>()
  #started: Started | undefined
  #restart: NodeJS.Timeout | undefined
  #isClosed = false

  /** The warden knows it by its number. */
  constructor(log: Log, onOutcomes: () => void, warden: LeaseWarden, number: number) {
    this.#log = log
    this.#warden = warden
    this.#leases = warden.memory(number)
    this.#onOutcomes = onOutcomes
    this.#start()
  }

  /** Jobs without an outcome. */
  get load(): number {
    return this.#assigned.size
  }

  /** The jobs of one call are of one volume. */
  give(batch: readonly AssignedJob[]): void {
    for (const assigned of batch) this.#assigned.set(assigned.job.id, assigned)
    if (this.#started !== undefined) post(this.#started.worker, batch)
  }

  #start(): void {
    const shared = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
    const data: CaptureThreadData = { bytesInFlight: shared, leases: this.#leases }
    const worker = startThread('capture-worker', data)
    const started: Started = { worker, bytesInFlight: new Int32Array(shared), atMs: performance.now() }
    worker.on('message', (message: CapturedMessage) => this.#take(started, message))
    worker.on('error', (error) => this.#log.error('a capture thread failed', { reason: reasonOf(error) }))
    worker.on('exit', () => this.#died(started))
    this.#started = started
    // One by one, so that the next death tells which of them it was.
    for (const assigned of this.#assigned.values()) post(worker, [assigned])
  }

  #died(started: Started): void {
    this.#started = undefined
    this.#warden.forget(this.#leases)
    if (this.#isClosed) return
    for (const [id, { client }] of this.#assigned) {
      if (!this.#suspects.has(id)) {
        this.#suspects.add(id)
        continue
      }
      this.#forget(id)
      client.ended({ kind: 'unreadable', reason: 'the capture thread failed twice on it' })
      // The others were only waiting behind it.
      break
    }
    this.#restart = setTimeout(() => this.#start(), performance.now() - started.atMs > RESTART_MS ? 0 : RESTART_MS)
    this.#onOutcomes()
  }

  #forget(id: number): void {
    this.#assigned.delete(id)
    this.#suspects.delete(id)
  }

  #take(started: Started, message: CapturedMessage): void {
    void this.#takeChunks(started, message)
    for (const [id, outcome] of message.outcomes) {
      const assigned = this.#assigned.get(id)
      this.#forget(id)
      assigned?.client.ended(outcome)
    }
    if (message.outcomes.length > 0) this.#onOutcomes()
  }

  /** The thread may ship more when what it shipped has been taken over. */
  async #takeChunks({ bytesInFlight }: Started, { bytes, chunks }: CapturedMessage): Promise<void> {
    const takings = chunks.flatMap((chunk) => {
      const stored = {
        length: chunk.length,
        filtered: chunk.filtered,
        compressed: chunk.compressed,
        bytes: bytes.subarray(chunk.offset, chunk.offset + chunk.storedLength),
      }
      return this.#assigned.get(chunk.job)?.client.taken(chunk, stored) ?? []
    })
    await Promise.all(takings)
    Atomics.sub(bytesInFlight, 0, bytes.length)
    Atomics.notify(bytesInFlight, 0)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#restart)
    if (this.#started !== undefined) await endThread(this.#started.worker, 'end' satisfies CaptureMessage)
  }
}

function post(worker: Worker, batch: readonly AssignedJob[]): void {
  const [first] = batch
  if (first === undefined) return
  const message: JobsMessage = { root: first.root, sizes: first.sizes, jobs: batch.map(({ job }) => job) }
  worker.postMessage(message, [])
}
