/**
 * How this agent watches: fanotify where the kernel and our rights allow it, else chokidar, with the reason.
 *
 * One fanotify serves all volumes and outlives the epochs of the journal. Invariant: a volume that is not watched
 * completely says so and why; whoever asked for fanotify gets it or an error. It prevents a fallback that nobody notices.
 */
import { errnoOf, PacsimileError, reasonOf } from '../../shared/errors.ts'
import type { Log } from '../../shared/log.ts'
import type { DescriptorStore } from '../descriptor-store.ts'
import { ChokidarWatcher } from './chokidar.ts'
import { Fanotify } from './fanotify.ts'
import type { WatchChoice } from './watch-choice.ts'
import type { Watcher, WatchRequest } from './watcher.ts'

export interface WatchingOptions {
  readonly choice: WatchChoice
  readonly stateDir: string
  readonly descriptors: DescriptorStore
  readonly log: Log
}

/** For showing what an overflow of the kernel's queue does: the queue is then as short as it is by default. */
const QUEUE_VARIABLE = 'PACSIMILE_TEST_QUEUE'

export class Watching {
  readonly #options: WatchingOptions
  #fanotify: Fanotify | undefined
  /** Why there is no fanotify at all. */
  #refusal: string | undefined

  constructor(options: WatchingOptions) {
    this.#options = options
    if (options.choice === 'chokidar') this.#refusal = 'chosen in the configuration'
  }

  /** @throws unsupported where fanotify was asked for and cannot be had */
  async watch(request: WatchRequest, signal: AbortSignal): Promise<Watcher> {
    const refusal = await this.#prepare()
    if (refusal !== undefined) return this.#fallBack(request, refusal, signal)
    try {
      if (this.#fanotify === undefined) throw new TypeError('fanotify is not open')
      return await this.#fanotify.watch(request)
    } catch (error) {
      if (error instanceof PacsimileError || errnoOf(error) === undefined) throw error
      return this.#fallBack(request, refusedBy(error), signal)
    }
  }

  async #prepare(): Promise<string | undefined> {
    if (this.#fanotify?.hasFailed === true) {
      await this.#fanotify.close()
      this.#fanotify = undefined
    }
    if (this.#fanotify !== undefined || this.#refusal !== undefined) return this.#refusal
    const { stateDir, descriptors, log } = this.#options
    try {
      this.#fanotify = Fanotify.open({ stateDir, descriptors, log, isQueueLimited: process.env[QUEUE_VARIABLE] === 'limited' })
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.#refusal = refusedBy(error)
    }
    return this.#refusal
  }

  #fallBack(request: WatchRequest, refusal: string, signal: AbortSignal): Promise<Watcher> {
    if (this.#options.choice === 'fanotify')
      throw new PacsimileError('unsupported', `Volume ${request.volume} cannot be watched through fanotify: ${refusal}`)
    if (this.#options.choice === 'auto')
      this.#options.log.warn('a volume is watched at best effort', { volume: request.volume, reason: refusal })
    return ChokidarWatcher.open(request, refusal, signal)
  }

  /** Nothing more is read from the kernel: what comes now is the next process's. What was read is still handed on. */
  async end(): Promise<void> {
    await this.#fanotify?.end()
  }

  async close(): Promise<void> {
    await this.#fanotify?.close()
    this.#fanotify = undefined
  }
}

/** What the kernel's word means for whoever reads a status. */
function refusedBy(error: unknown): string {
  switch (errnoOf(error)) {
    case 'EPERM':
      return error instanceof Error && 'syscall' in error && error.syscall === 'open_by_handle_at'
        ? 'opening directories by their handles needs CAP_DAC_READ_SEARCH'
        : 'fanotify needs CAP_SYS_ADMIN in the first user namespace'
    case 'ENOSYS':
    case 'EINVAL':
      return 'this kernel is too old for fanotify with names (5.9 or newer is needed)'
    case 'EXDEV':
      return 'fanotify cannot mark a btrfs subvolume as a whole: mount its top level (subvolid=5) and protect it there'
    case 'EOPNOTSUPP':
      return 'this filesystem has no file handles that fanotify could name (overlayfs without nfs_export, proc, …)'
    case 'ENODEV':
      return 'this filesystem has no identity that fanotify could name (FUSE, …)'
    default:
      return reasonOf(error)
  }
}
