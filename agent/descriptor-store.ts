/**
 * Descriptors that outlive this process: handed to whoever started it, and found again at the next start.
 *
 * systemd keeps them for a service with FileDescriptorStoreMax= (sd_notify(3), FDSTORE=1; sd_listen_fds(3)); without systemd
 * the agent's own supervisor does the same with the same words (supervise.ts). Invariant: what is taken is this process's to
 * close; what is kept stays open elsewhere as well. It prevents a queue in the kernel from ending with its reader.
 */
import { closeSync } from 'node:fs'
import { reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { sendDescriptor } from './descriptor-calls.ts'

/** The first one that is passed on (SD_LISTEN_FDS_START). */
const FIRST = 3

export class DescriptorStore {
  readonly #socket: string | undefined
  readonly #log: Log
  readonly #inherited = new Map<string, number>()

  private constructor(socket: string | undefined, log: Log) {
    this.#socket = socket
    this.#log = log
  }

  /** Takes over what this process was started with; a second call in one process finds nothing. */
  static fromEnvironment(log: Log, environment: NodeJS.ProcessEnv = process.env): DescriptorStore {
    const store = new DescriptorStore(environment['NOTIFY_SOCKET'], log)
    const isForUs = environment['LISTEN_PID'] === undefined || environment['LISTEN_PID'] === String(process.pid)
    const count = isForUs ? Number(environment['LISTEN_FDS'] ?? 0) : 0
    const names = (environment['LISTEN_FDNAMES'] ?? '').split(':')
    for (let i = 0; i < count; i++) {
      const name = names[i] ?? ''
      // Of two with one name the older one is a leftover of a start that was cut short.
      const twin = store.#inherited.get(name)
      if (twin !== undefined) closeSync(twin)
      store.#inherited.set(name, FIRST + i)
    }
    for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete environment[name]
    return store
  }

  /** Whether anybody keeps descriptors for this process. */
  get isKept(): boolean {
    return this.#socket !== undefined
  }

  /** The descriptor of this name that an earlier process left. */
  take(name: string): number | undefined {
    const fd = this.#inherited.get(name)
    this.#inherited.delete(name)
    return fd
  }

  /** Best effort: without a keeper, or where it refuses, a restart scans instead. */
  keep(name: string, fd: number): void {
    this.#send(`FDSTORE=1\nFDNAME=${name}`, fd)
  }

  forget(names: readonly string[]): void {
    for (const name of names) this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`, undefined)
  }

  #send(message: string, fd: number | undefined): void {
    if (this.#socket === undefined) return
    try {
      sendDescriptor(this.#socket, message, fd)
    } catch (error) {
      this.#log.warn('a descriptor could not be handed over: a restart will scan', { reason: reasonOf(error) })
    }
  }
}
