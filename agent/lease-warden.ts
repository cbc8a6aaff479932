/**
 * Keeps writers from waiting for the agent: one thread that looks at every read lease which the capture threads hold, and
 * gives up those that somebody waits for, while the capture thread compresses or hashes.
 *
 * Invariant: a broken lease is given up within a few milliseconds (WARDEN_POLL_MS); the capture thread finds it broken and
 * discards what it read. It prevents a large chunk that is being compressed from holding up an archive that stores a study.
 */
import type { Worker } from 'node:worker_threads'
import { reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import type { Log } from '../shared/log.ts'
import { type LeaseMemory, NO_LEASE, WARDEN_WORDS, WORDS_PER_THREAD } from './lease.ts'
import { startThread } from './threads.ts'

export class LeaseWarden {
  readonly #shared: SharedArrayBuffer
  readonly #worker: Worker
  readonly #ended = Promise.withResolvers<void>()
  #isClosed = false

  constructor(log: Log, threads: number) {
    this.#shared = new SharedArrayBuffer((WARDEN_WORDS + threads * WORDS_PER_THREAD) * Int32Array.BYTES_PER_ELEMENT)
    const words = new Int32Array(this.#shared)
    for (let slot = WARDEN_WORDS; slot < words.length; slot++) words[slot] = (slot - WARDEN_WORDS) % WORDS_PER_THREAD === 0 ? 0 : NO_LEASE
    this.#worker = startThread('lease-warden-worker', this.#shared)
    this.#worker.on('error', (error) => log.error('the thread that watches over leases failed', { reason: reasonOf(error) }))
    this.#worker.on('exit', () => {
      this.#ended.resolve()
      // Without it a writer waits for as long as a capture thread takes for one chunk, which is bearable.
      if (!this.#isClosed) log.error('the thread that watches over leases ended; writers may wait longer until the agent is restarted')
    })
  }

  memory(thread: number): LeaseMemory {
    return { shared: this.#shared, at: WARDEN_WORDS + thread * WORDS_PER_THREAD }
  }

  /** The thread has died: its descriptors may be open still, and nobody would give up their leases. */
  forget({ shared, at }: LeaseMemory): void {
    const words = new Int32Array(shared)
    Atomics.store(words, at, 0)
    for (let slot = at + 1; slot < at + WORDS_PER_THREAD; slot++) {
      const fd = Atomics.exchange(words, slot, NO_LEASE)
      if (fd !== NO_LEASE) libc?.releaseLease(fd)
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const words = new Int32Array(this.#shared)
    Atomics.store(words, 1, 1)
    Atomics.add(words, 0, 1)
    Atomics.notify(words, 0)
    await this.#ended.promise
  }
}
