/**
 * Watching through chokidar (inotify), for wherever fanotify is not: no privilege is needed, and no guarantee is given.
 *
 * Measured at full speed it lost 14-34 % of the files without an error; its word is therefore never more than
 * `best-effort`, and the volume is scanned on a schedule. Invariant: a watcher that fails says so to whoever reads its
 * events. It prevents a volume from being called watched when nobody is watching.
 */
import type { Worker } from 'node:worker_threads'
import { PacsimileError, reasonOf } from '../../shared/errors.ts'
import { EVENTS_QUEUED_MAX } from '../../shared/limits.ts'
import { ROOT } from '../../shared/path.ts'
import { endThread, startThread } from '../threads.ts'
import type { ChokidarMessage, ChokidarOrder } from './chokidar-worker.ts'
import type { Fence, WatchEvent, Watcher, WatchRequest } from './watcher.ts'

const REASON = 'inotify can lose events; a scheduled scan finds what it lost'

export class ChokidarWatcher implements Watcher {
  readonly mode = 'best-effort'
  readonly isContinuous = false
  readonly provenMs = undefined
  readonly silentMs = 0
  readonly #worker: Worker
  /** Why it is not fanotify that watches. */
  readonly #refusal: string
  #problem: string | undefined
  #queue: WatchEvent[] = []
  #failure: PacsimileError | undefined
  #isClosed = false
  #wake: (() => void) | undefined

  private constructor(request: WatchRequest, refusal: string) {
    this.#refusal = refusal
    this.#worker = startThread('watch/chokidar-worker', request)
  }

  /** Resolves when every directory is watched. @throws io */
  static async open(request: WatchRequest, refusal: string, signal: AbortSignal): Promise<ChokidarWatcher> {
    const watcher = new ChokidarWatcher(request, refusal)
    await watcher.#ready(signal)
    return watcher
  }

  #ready(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const stop = (): void => void this.close().then(resolve)
      signal.addEventListener('abort', stop, { once: true })
      this.#worker.on('message', (message: ChokidarMessage) => {
        this.#take(message)
        if (message.kind === 'ready') resolve()
      })
      this.#worker.on('error', (error) => this.#fail(reasonOf(error)))
      this.#worker.on('exit', () => {
        signal.removeEventListener('abort', stop)
        this.#fail('its thread ended')
        resolve()
      })
    })
  }

  get reason(): string {
    const reason = `no fanotify: ${this.#refusal}; ${REASON}`
    return this.#problem === undefined ? reason : `${reason}; ${this.#problem}`
  }

  #take(message: ChokidarMessage): void {
    switch (message.kind) {
      case 'events':
        if (this.#queue.length + message.events.length > EVENTS_QUEUED_MAX) {
          this.#queue = [{ kind: 'rescan', path: ROOT, isShallow: false, cause: 'more events at once than could be followed' }]
        } else {
          this.#queue = [...this.#queue, ...message.events]
        }
        this.#wake?.()
        return
      case 'ready':
      case 'problem':
        this.#problem = message.problem ?? this.#problem
    }
  }

  #fail(reason: string): void {
    if (!this.#isClosed) this.#failure ??= new PacsimileError('io', `Watching failed: ${reason}`)
    this.#wake?.()
  }

  async *events(): AsyncGenerator<readonly WatchEvent[], void> {
    while (!this.#isClosed) {
      if (this.#failure !== undefined) throw this.#failure
      const events = this.#queue
      if (events.length > 0) {
        this.#queue = []
        yield events
        continue
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }

  /** Nothing is promised, so nothing is waited for. */
  fence(): Promise<Fence> {
    return Promise.resolve({ isBehind: false, closedBeforeNs: 0n })
  }

  /** A restart of this kind of watching always scans. */
  verified(): void {}

  doubted(): void {}

  mark(): number {
    return 0
  }

  settled(): void {}

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#wake?.()
    await endThread(this.#worker, 'end' satisfies ChokidarOrder)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
