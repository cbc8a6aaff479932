/**
 * The scan threads, seen from the main thread: a walk is an async iterable of entries.
 *
 * One thread walks whole volumes, the other what events ask for, so that a new directory never waits behind ten million
 * files. Invariant: a walk that is left early is told to end, and one whose thread dies ends with an error. It prevents a
 * scan that is waited for in vain.
 */
import type { Worker } from 'node:worker_threads'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { decodeScanEntries, type ScanEntry, type ScanMessage, type ScanRequest, type ScanThreadData } from './scan-entry.ts'
import { startThread } from './threads.ts'

/** The volume's directory is missing or another one: nothing that the walk said may be believed. */
export class RootLost extends Error {}

interface Queue {
  readonly messages: (ScanMessage | Error)[]
  wake: (() => void) | undefined
}

export class ScanThread {
  #worker: Worker | undefined
  readonly #batchesInFlight = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  readonly #cancelled = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  readonly #walks = new Map<number, Queue>()
  #lastId = 0

  /** @throws RootLost, internal, the signal's reason */
  async *walk(request: Omit<ScanRequest, 'id'>, signal: AbortSignal): AsyncGenerator<Iterable<ScanEntry>, void> {
    const id = ++this.#lastId
    const queue: Queue = { messages: [], wake: undefined }
    this.#walks.set(id, queue)
    const wake = (): void => queue.wake?.()
    signal.addEventListener('abort', wake)
    try {
      this.#thread().postMessage({ ...request, id } satisfies ScanRequest, [])
      for (;;) {
        const message = await next(queue, signal)
        if (message instanceof Error) throw message
        if (message.kind === 'end') {
          if (message.rootProblem !== undefined) throw new RootLost(message.rootProblem)
          return
        }
        yield decodeScanEntries(message.bytes)
        this.#taken()
      }
    } finally {
      signal.removeEventListener('abort', wake)
      this.#walks.delete(id)
      Atomics.store(this.#cancelled, 0, id)
      for (const message of queue.messages) if (!(message instanceof Error) && message.kind === 'entries') this.#taken()
    }
  }

  #thread(): Worker {
    if (this.#worker !== undefined) return this.#worker
    Atomics.store(this.#batchesInFlight, 0, 0)
    const data: ScanThreadData = { batchesInFlight: this.#batchesInFlight.buffer, cancelled: this.#cancelled.buffer }
    const worker = startThread('scan-worker', data)
    worker.on('message', (message: ScanMessage) => this.#deliver(message))
    worker.on('error', (error) => this.#fail(worker, error))
    worker.on('exit', () => this.#fail(worker, new Error('it ended')))
    this.#worker = worker
    return worker
  }

  #deliver(message: ScanMessage): void {
    const queue = this.#walks.get(message.id)
    if (queue === undefined) {
      if (message.kind === 'entries') this.#taken()
      return
    }
    queue.messages.push(message)
    queue.wake?.()
  }

  #taken(): void {
    Atomics.sub(this.#batchesInFlight, 0, 1)
    Atomics.notify(this.#batchesInFlight, 0)
  }

  #fail(worker: Worker, error: unknown): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    for (const queue of this.#walks.values()) {
      queue.messages.push(new PacsimileError('internal', `The scan thread failed: ${reasonOf(error)}`, { cause: error }))
      queue.wake?.()
    }
  }

  async close(): Promise<void> {
    const worker = this.#worker
    if (worker === undefined) return
    this.#fail(worker, new Error('the agent is stopping'))
    await worker.terminate()
  }
}

async function next(queue: Queue, signal: AbortSignal): Promise<ScanMessage | Error> {
  for (;;) {
    // The disk may hang for longer than anybody wants to wait.
    signal.throwIfAborted()
    const message = queue.messages.shift()
    if (message !== undefined) return message
    await new Promise<void>((resolve) => {
      queue.wake = resolve
    })
    queue.wake = undefined
  }
}
