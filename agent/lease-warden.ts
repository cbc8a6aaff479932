/**
 * Keeps writers from waiting for the agent: one thread that looks at every read lease which the capture threads hold, and
 * gives up those that somebody waits for, while the capture thread compresses or hashes.
 *
 * Invariant: a broken lease is given up within a few milliseconds (WARDEN_POLL_MS), and none is taken while the warden is not
 * there; the capture thread finds it broken and discards what it read. It prevents a large chunk that is being compressed from
 * holding up an archive that stores a study.
 */
import { reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import type { Log } from '../shared/log.ts'
import { type LeaseMemory, NO_LEASE, WARDEN, WARDEN_WORDS, WORDS_PER_THREAD } from './lease.ts'
import { startThread } from './threads.ts'

/** One that fails at once must not fail all the time. */
const RESTART_MS = 1000

export class LeaseWarden {
  readonly #log: Log
  readonly #shared: SharedArrayBuffer
  readonly #words: Int32Array
  #ended = Promise.resolve()
  #restarting: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(log: Log, threads: number) {
    this.#log = log
    this.#shared = new SharedArrayBuffer((WARDEN_WORDS + threads * WORDS_PER_THREAD) * Int32Array.BYTES_PER_ELEMENT)
    const words = new Int32Array(this.#shared)
    for (let slot = WARDEN_WORDS; slot < words.length; slot++) words[slot] = (slot - WARDEN_WORDS) % WORDS_PER_THREAD === 0 ? 0 : NO_LEASE
    this.#words = words
    this.#start()
  }

  #start(): void {
    const worker = startThread('lease-warden-worker', this.#shared)
    const ended = Promise.withResolvers<void>()
    this.#ended = ended.promise
    worker.on('error', (error) => this.#log.error('the thread that watches over leases failed', { reason: reasonOf(error) }))
    worker.on('exit', () => {
      Atomics.store(this.#words, WARDEN.isThere, 0)
      ended.resolve()
      // Until the next one is there, those of now are held for as long as a capture thread takes for one chunk.
      if (!this.#isClosed) this.#restarting = setTimeout(() => this.#start(), RESTART_MS).unref()
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
    clearTimeout(this.#restarting)
    Atomics.store(this.#words, WARDEN.isToEnd, 1)
    Atomics.add(this.#words, WARDEN.wakeUps, 1)
    Atomics.notify(this.#words, WARDEN.wakeUps)
    await this.#ended
  }
}
