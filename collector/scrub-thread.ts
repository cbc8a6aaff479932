/** The thread that scrubs files (scrub-file.ts), seen from outside; it begins with the first file. */
import { once } from 'node:events'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { PacsimileError } from '../shared/errors.ts'
import type { FrameFileIdentity } from './repository/file-header.ts'
import type { ScrubbedFile, ScrubOptions } from './scrub-file.ts'
import type { ScrubAnswer, ScrubOrder, ScrubThreadData } from './scrub-worker.ts'

export class ScrubThread implements AsyncDisposable {
  readonly #data: ScrubThreadData
  #worker: Worker | undefined

  constructor(dataKey: Uint8Array, options: ScrubOptions) {
    this.#data = { ...options, dataKey }
  }

  /** One file at a time. @throws io, space, format-unknown */
  async scrub(path: string, identity: FrameFileIdentity, repairs = true): Promise<ScrubbedFile> {
    const worker = this.#started()
    const over = new AbortController()
    const ended = once(worker, 'exit', over)
    // Told by the race, or of no interest any more.
    ended.catch(() => {})
    worker.postMessage({ path, identity, repairs } satisfies ScrubOrder, [])
    let answer: ScrubAnswer | undefined
    try {
      const answered = once(worker, 'message', over)
      answered.catch(() => {})
      ;[answer] = (await Promise.race([answered, ended.then(() => [])])) as [ScrubAnswer?]
    } finally {
      over.abort()
    }
    if (answer === undefined) throw new PacsimileError('internal', 'the scrubbing thread ended')
    if ('scrubbed' in answer) return answer.scrubbed
    throw new PacsimileError(answer.code, answer.message)
  }

  #started(): Worker {
    if (this.#worker !== undefined) return this.#worker
    const url = new URL(`./scrub-worker${extname(import.meta.filename)}`, import.meta.url)
    const worker = new Worker(url, { workerData: this.#data, execArgv: [] })
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined
    })
    this.#worker = worker
    return worker
  }

  /** Not by `terminate`: native code that is interrupted in a call ends the whole process. */
  async [Symbol.asyncDispose](): Promise<void> {
    const worker = this.#worker
    if (worker === undefined) return
    const ended = once(worker, 'exit').catch(() => undefined)
    worker.postMessage('end' satisfies ScrubOrder, [])
    await ended
  }
}
