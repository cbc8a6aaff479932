/**
 * The capture threads together: jobs are spread over them.
 *
 * Invariant: no thread is given more than it does in a few milliseconds of small files. It prevents a change that happens
 * now from waiting behind thousands of files that a scan found.
 */
import { availableParallelism } from 'node:os'
import type { ChunkSizes } from '../shared/chunker.ts'
import type { Log } from '../shared/log.ts'
import { assertBeneath } from './beneath.ts'
import type { CaptureJob } from './capture-job.ts'
import { type AssignedJob, type CaptureClient, CaptureThread } from './capture-thread.ts'
import type { VolumeRoot } from './file-stat.ts'
import { LeaseWarden } from './lease-warden.ts'

/** A job without its number, which is given here. */
export type CaptureRequest = CaptureJob extends infer Job ? (Job extends CaptureJob ? Omit<Job, 'id'> : never) : never

/** Jobs given to one thread ahead of what it is doing. */
const JOBS_PER_THREAD_MAX = 32
const THREADS_MAX = 4

export class Capture {
  readonly #warden: LeaseWarden
  readonly #threads: readonly CaptureThread[]
  #lastId = 0

  /** `onOutcomes` is called after outcomes have been told to their clients: there is room for more jobs. @throws unsupported */
  constructor(log: Log, onOutcomes: () => void) {
    assertBeneath()
    const count = Math.max(2, Math.min(THREADS_MAX, availableParallelism()))
    this.#warden = new LeaseWarden(log, count)
    this.#threads = Array.from({ length: count }, (_, i) => new CaptureThread(log, onOutcomes, this.#warden, i))
  }

  /** How many jobs may be given now. */
  get room(): number {
    return this.#threads.reduce((sum, thread) => sum + Math.max(0, JOBS_PER_THREAD_MAX - thread.load), 0)
  }

  dispatch(root: VolumeRoot, sizes: ChunkSizes, requests: readonly (readonly [CaptureRequest, CaptureClient])[]): void {
    const assigned = requests.map(([request, client]): AssignedJob => ({ job: { ...request, id: ++this.#lastId }, root, sizes, client }))
    // Threads share even a short list, and none is given all of a long one.
    const size = Math.max(1, Math.min(JOBS_PER_THREAD_MAX / 2, Math.ceil(assigned.length / this.#threads.length)))
    for (let at = 0; at < assigned.length; at += size) {
      const idlest = this.#threads.reduce((least, thread) => (thread.load < least.load ? thread : least))
      idlest.give(assigned.slice(at, at + size))
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()))
    await this.#warden.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
