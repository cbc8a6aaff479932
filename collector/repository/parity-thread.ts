/** Makes the parity of a file in a thread of its own (parity-worker.ts). */
import { once } from 'node:events'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { MakeParity } from './frame-file.ts'
import type { ParityShape } from './parity.ts'
import type { ParityTask } from './parity-worker.ts'

export function parityOf(shape: ParityShape): MakeParity {
  return async (path, bytes) => {
    const worker = new Worker(new URL(`./parity-worker${extname(import.meta.filename)}`, import.meta.url), {
      workerData: { path, bytes, shape } satisfies ParityTask,
      execArgv: [],
    })
    const ended = once(worker, 'exit')
    // An error of the thread is told by the race.
    ended.catch(() => {})
    const first = await Promise.race([once(worker, 'message'), ended.then(() => [])])
    const payloads: unknown = first[0]
    if (!Array.isArray(payloads)) throw new Error('the thread that makes parity ended without it')
    return payloads as Uint8Array[]
  }
}
