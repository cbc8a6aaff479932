/**
 * The agent's supervisor where there is no systemd: a small process that starts the agent, keeps its descriptors, and starts
 * it again when it dies.
 *
 * It speaks systemd's words (NOTIFY_SOCKET, FDSTORE, LISTEN_FDS), so that the agent knows one way only. Invariant: the agent
 * never outlives it (prctl(2), PR_SET_PDEATHSIG), and what the agent asked to keep is passed on to the next one. It prevents
 * two agents on one journal, and events from being lost between two lives.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERRORS } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { listenForDescriptors, receiveDescriptor, sendDescriptor } from './descriptor-calls.ts'

/** Tells the agent that its parent is this supervisor. */
export const SUPERVISED = 'PACSIMILE_SUPERVISED'

/** Pause before the agent is started again: none for one that lived, longer for one that dies at once. */
const LIVED_MS = 5000
const RESTART_MS_MAX = 5000
const RESTART_FIRST_MS = 100
/** Exit statuses that do not mend themselves: the same that the systemd unit names. */
const FINAL = new Set([0, ERRORS.usage.exit, ERRORS['key-missing'].exit])

export class AgentSupervisor {
  readonly #log: Log
  readonly #arguments: readonly string[]
  readonly #kept = new Map<string, number>()
  readonly #socket = `@pacsimile-agent-${process.pid}-${randomBytes(6).toString('hex')}`
  #child: ChildProcess | undefined
  #isStopping = false
  #isOver = false

  /** `args` are the agent's own, as they follow the executable. */
  constructor(log: Log, args: readonly string[]) {
    this.#log = log
    this.#arguments = args
  }

  /** Until the agent ends for good. @returns its exit status */
  async run(): Promise<number> {
    const socket = listenForDescriptors(this.#socket)
    const receiving = this.#receive(socket)
    try {
      return await this.#keepAlive()
    } finally {
      // The thread that waits for a datagram would keep this process for ever.
      this.#isOver = true
      sendDescriptor(this.#socket, 'STOPPING=1', undefined)
      await receiving
    }
  }

  async #keepAlive(): Promise<number> {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => this.#stop(name))
    let pauseMs = RESTART_FIRST_MS
    for (;;) {
      const startedMs = performance.now()
      const { status, signal } = await this.#live()
      if (this.#isStopping) return status ?? 1
      if (status !== null && FINAL.has(status)) return status
      const hasLived = performance.now() - startedMs > LIVED_MS
      pauseMs = hasLived ? RESTART_FIRST_MS : Math.min(2 * pauseMs, RESTART_MS_MAX)
      this.#log.error('the agent ended and is started again', { status, signal, keptDescriptors: this.#kept.size })
      await sleep(hasLived ? 0 : pauseMs)
      if (this.#isStopping) return 1
    }
  }

  async #live(): Promise<{ readonly status: number | null; readonly signal: NodeJS.Signals | null }> {
    const kept = [...this.#kept]
    const child = spawn(process.execPath, [...process.execArgv, ...this.#arguments], {
      stdio: ['inherit', 'inherit', 'inherit', ...kept.map(([, fd]) => fd)],
      env: {
        ...process.env,
        [SUPERVISED]: String(process.pid),
        NOTIFY_SOCKET: this.#socket,
        LISTEN_FDS: String(kept.length),
        LISTEN_FDNAMES: kept.map(([name]) => name).join(':'),
      },
    })
    this.#child = child
    try {
      await once(child, 'exit')
    } finally {
      this.#child = undefined
    }
    return { status: child.exitCode, signal: child.signalCode }
  }

  #stop(signal: NodeJS.Signals): void {
    this.#isStopping = true
    this.#child?.kill(signal)
  }

  async #receive(socket: number): Promise<void> {
    for (;;) {
      const { message, descriptor } = await receiveDescriptor(socket)
      if (this.#isOver) return
      const words = new Map(message.split('\n').map((line) => line.split('=', 2) as [string, string]))
      const name = words.get('FDNAME') ?? ''
      const before = this.#kept.get(name)
      if (words.has('FDSTORE') && descriptor !== undefined) {
        if (before !== undefined) closeSync(before)
        this.#kept.set(name, descriptor)
      } else {
        if (descriptor !== undefined) closeSync(descriptor)
        if (!words.has('FDSTOREREMOVE') || before === undefined) continue
        this.#kept.delete(name)
        closeSync(before)
      }
    }
  }
}
