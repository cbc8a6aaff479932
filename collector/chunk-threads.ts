/**
 * The threads that read chunks, seen from outside: each wish goes to whichever is free.
 *
 * A thread holds one wish at a time, so memory follows their number and what is asked for. Invariant: every wish is answered, also when a thread
 * dies. It prevents a reader that waits for ever.
 */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { asBuffer } from '../shared/bytes.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { ChunkAnswer, ChunkPlaces, ChunkTask } from './chunk-worker.ts'

/** Beyond this many the disk is what is waited for. */
const THREADS_MAX = 4

interface Wish {
  readonly task: ChunkTask
  readonly answer: PromiseWithResolvers<Buffer | undefined>
}

export class ChunkThreads implements AsyncDisposable {
  readonly #threads: ChunkThread[]
  readonly #waiting: Wish[] = []

  constructor(places: ChunkPlaces) {
    const count = Math.min(THREADS_MAX, Math.max(2, availableParallelism()))
    this.#threads = Array.from({ length: count }, () => new ChunkThread(places, () => this.#give()))
  }

  /** The content, verified; undefined where it is not to be had there. @throws internal */
  read(task: ChunkTask): Promise<Buffer | undefined> {
    const answer = Promise.withResolvers<Buffer | undefined>()
    this.#waiting.push({ task, answer })
    this.#give()
    return answer.promise
  }

  #give(): void {
    for (const thread of this.#threads) {
      if (this.#waiting.length === 0) return
      if (!thread.isBusy) thread.take(this.#waiting.shift() as Wish)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { answer } of this.#waiting.splice(0)) answer.reject(new PacsimileError('internal', 'Nothing is read any more'))
    await Promise.all(this.#threads.map((thread) => thread.end()))
  }
}

class ChunkThread {
  readonly #worker: Worker
  readonly #exited: Promise<unknown>
  readonly #onFree: () => void
  #answer: PromiseWithResolvers<Buffer | undefined> | undefined
  #failure: PacsimileError | undefined

  constructor(places: ChunkPlaces, onFree: () => void) {
    this.#onFree = onFree
    const url = new URL(`./chunk-worker${extname(import.meta.filename)}`, import.meta.url)
    // What it opens by calls of its own is closed by it.
    this.#worker = new Worker(url, { workerData: places, execArgv: [], trackUnmanagedFds: false })
    this.#exited = once(this.#worker, 'exit').catch(() => undefined)
    this.#worker.on('message', ({ bytes }: ChunkAnswer) => {
      const answer = this.#answer
      this.#answer = undefined
      answer?.resolve(bytes === undefined ? undefined : asBuffer(bytes))
      this.#onFree()
    })
    this.#worker.on('error', (error) => this.#fail(error))
    this.#worker.on('exit', () => this.#fail(new PacsimileError('internal', 'A thread that reads content ended')))
  }

  get isBusy(): boolean {
    return this.#answer !== undefined
  }

  take({ task, answer }: Wish): void {
    if (this.#failure !== undefined) {
      answer.reject(this.#failure)
      return
    }
    this.#answer = answer
    this.#worker.postMessage(task, [])
  }

  #fail(error: unknown): void {
    this.#failure ??= asPacsimileError(error, 'Reading content')
    this.#answer?.reject(this.#failure)
    this.#answer = undefined
  }

  /** Not by `terminate`: native code that is interrupted in a call ends the whole process. */
  async end(): Promise<void> {
    this.#worker.postMessage({ kind: 'end' } satisfies ChunkTask, [])
    await this.#exited
  }
}
