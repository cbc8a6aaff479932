/**
 * The scan threads, seen from the main thread: a scan is an async iterable of what they find.
 *
 * One pool scans whole volumes, another what events ask for, so that a new directory never waits behind ten million files. A
 * scan begins in one thread; where it lasts, more are started, which take over parts of it.
 * Invariant: a scan that is left early is told to end, and one of whose threads dies ends with an error. It prevents a
 * scan that is waited for in vain.
 */

import { availableParallelism } from 'node:os'
import type { Worker } from 'node:worker_threads'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { SCAN_THREADS_MAX } from '../shared/limits.ts'
import { CONTROL, type ScanMessage, type ScanOrder, type ScanRequest, type ScanTask, type ScanThreadData } from './scan-task.ts'
import { systemCalls } from './system-calls.ts'
import { endThread, startThread } from './threads.ts'

/** The volume's directory is missing or another one: nothing that the scan said may be believed. */
export class RootLost extends Error {}

export type ScanNews = Extract<ScanMessage, { kind: 'found' | 'method' }> | { readonly kind: 'entries'; readonly entries: number }

interface Pooled {
  readonly worker: Worker
  isIdle: boolean
}

interface Scan {
  readonly request: ScanRequest
  readonly messages: (ScanMessage | Error)[]
  /** Tasks that no thread has yet. */
  readonly waiting: ScanTask[]
  /** Tasks without a `done`. */
  tasks: number
  wake: (() => void) | undefined
  readonly patience: Patience
}

const THREADS = Math.min(Math.max(availableParallelism(), 2), SCAN_THREADS_MAX)
const ALONE_MS = 100
/** After one that took so many times as long the next one is divided from its beginning. */
const LONG_FACTOR = 1.5
/** More are of use where their news were waited for that share of the time. */
const WAITED_SHARE = 0.5
/** Several threads end when no scan has wanted them for this long, a single one later. */
const IDLE_MS = { several: 5000, single: 10_000 } as const

export class ScanThread {
  readonly #control = new Int32Array(new SharedArrayBuffer(CONTROL.count * Int32Array.BYTES_PER_ELEMENT))
  #threads: Pooled[] = []
  readonly #ending = new Set<Promise<void>>()
  readonly #aloneMs: number
  #scan: Scan | undefined
  #idle: NodeJS.Timeout | undefined
  #growing: NodeJS.Timeout | undefined
  #lastId = 0
  /** What the last scan took that ended. */
  #lastMs = 0

  /** A scan that lasts longer than `aloneMs`, or is likely to, gets more threads. */
  constructor(aloneMs = ALONE_MS) {
    this.#aloneMs = aloneMs
  }

  /** One at a time. @throws RootLost, internal, the signal's reason */
  async *run(asked: Omit<ScanRequest, 'id'>, signal: AbortSignal): AsyncGenerator<ScanNews, void> {
    const request = { ...asked, id: ++this.#lastId }
    const scan: Scan = { request, messages: [], waiting: [{ kind: 'all' }], tasks: 1, wake: undefined, patience: new Patience() }
    this.#scan = scan
    clearTimeout(this.#idle)
    const wake = (): void => scan.wake?.()
    signal.addEventListener('abort', wake)
    const mayGrow = !asked.isShallow
    const isLong = this.#lastMs >= LONG_FACTOR * this.#aloneMs
    const startedMs = performance.now()
    try {
      if (mayGrow && isLong) this.#grow()
      else this.#assign()
      while (scan.tasks > 0) {
        const message = await next(scan, signal)
        if (message instanceof Error) throw message
        // Its thread has begun.
        if (message.kind === 'method' && mayGrow && !isLong) this.#growIfOfUse()
        yield* this.#news(scan, message)
      }
      this.#lastMs = performance.now() - startedMs
    } finally {
      clearTimeout(this.#growing)
      signal.removeEventListener('abort', wake)
      this.#scan = undefined
      Atomics.store(this.#control, CONTROL.cancelled, request.id)
      Atomics.store(this.#control, CONTROL.hungry, 0)
      for (const message of scan.messages) if (!(message instanceof Error) && message.kind === 'found') this.#taken()
      this.#idle = setTimeout(() => this.#shrink(), this.#threads.length > 1 ? IDLE_MS.several : IDLE_MS.single).unref()
    }
  }

  *#news(scan: Scan, message: ScanMessage): Generator<ScanNews, void> {
    switch (message.kind) {
      case 'method':
        yield message
        return
      case 'found':
        try {
          yield message
        } finally {
          this.#taken()
        }
        return
      case 'handover':
        return
      case 'done':
        scan.tasks -= 1
        if (message.rootProblem !== undefined) throw new RootLost(message.rootProblem)
        yield { kind: 'entries', entries: message.entries }
    }
  }

  /** Gives waiting tasks to idle threads, and lets the others know how many are left. */
  #assign(): void {
    const scan = this.#scan
    if (scan === undefined) return
    if (this.#threads.length === 0) this.#start()
    for (const thread of this.#threads) {
      if (!thread.isIdle) continue
      const task = scan.waiting.shift()
      if (task === undefined) break
      thread.isIdle = false
      thread.worker.postMessage({ request: scan.request, task } satisfies ScanOrder, [])
    }
    Atomics.store(this.#control, CONTROL.hungry, this.#threads.filter(({ isIdle }) => isIdle).length)
  }

  /** Unless it is not the thread that is waited for, but whoever takes what it finds. */
  #growIfOfUse(): void {
    clearTimeout(this.#growing)
    this.#growing = setTimeout(() => {
      if (this.#scan === undefined) return
      if (this.#scan.patience.share() >= WAITED_SHARE) this.#grow()
      else this.#growIfOfUse()
    }, this.#aloneMs)
  }

  #grow(): void {
    while (this.#threads.length < THREADS) this.#start()
    this.#assign()
  }

  /** All threads end, and what they held in memory with them: beginning anew takes less than any of them takes from the host meanwhile. */
  #shrink(): void {
    for (const { worker } of this.#threads.splice(0)) this.#end(worker)
  }

  #end(worker: Worker): void {
    const ending = endThread(worker, 'end' satisfies ScanOrder).finally(() => {
      this.#ending.delete(ending)
      // The C library keeps what was freed for threads to come.
      systemCalls?.trimMemory()
    })
    this.#ending.add(ending)
  }

  #start(): void {
    const worker = startThread('scan-worker', { control: this.#control.buffer } satisfies ScanThreadData)
    const thread: Pooled = { worker, isIdle: true }
    worker.on('message', (message: ScanMessage) => this.#take(thread, message))
    worker.on('error', (error) => this.#fail(thread, error))
    worker.on('exit', () => this.#fail(thread, new Error('it ended')))
    this.#threads.push(thread)
  }

  #take(thread: Pooled, message: ScanMessage): void {
    if (message.kind === 'done') thread.isIdle = true
    const scan = this.#scan
    if (scan?.request.id === message.id) {
      if (message.kind === 'handover') {
        scan.tasks += 1
        scan.waiting.push(message.task)
      }
      scan.messages.push(message)
      scan.wake?.()
    } else if (message.kind === 'found') {
      this.#taken()
    }
    if (message.kind === 'done' || message.kind === 'handover') this.#assign()
  }

  #taken(): void {
    Atomics.sub(this.#control, CONTROL.inFlight, 1)
    Atomics.notify(this.#control, CONTROL.inFlight)
  }

  #fail(thread: Pooled, error: unknown): void {
    if (!this.#threads.includes(thread)) return
    this.#threads = this.#threads.filter((other) => other !== thread)
    this.#scan?.messages.push(new PacsimileError('internal', `A scan thread failed: ${reasonOf(error)}`, { cause: error }))
    this.#scan?.wake?.()
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle)
    const threads = this.#threads.splice(0)
    if (this.#scan !== undefined) {
      Atomics.store(this.#control, CONTROL.cancelled, this.#scan.request.id)
      this.#scan.messages.push(new PacsimileError('internal', 'A scan ended because the agent is stopping'))
      this.#scan.wake?.()
    }
    for (const { worker } of threads) this.#end(worker)
    await Promise.all(this.#ending)
  }
}

async function next(scan: Scan, signal: AbortSignal): Promise<ScanMessage | Error> {
  for (;;) {
    // The disk may hang for longer than anybody wants to wait.
    signal.throwIfAborted()
    const message = scan.messages.shift()
    if (message !== undefined) return message
    scan.patience.begin()
    await new Promise<void>((resolve) => {
      scan.wake = resolve
    })
    scan.wake = undefined
    scan.patience.end()
  }
}

/** For what part of the time news are waited for. */
class Patience {
  #lookedMs = performance.now()
  #waitedMs = 0
  #sinceMs: number | undefined

  begin(): void {
    this.#sinceMs = performance.now()
  }

  end(): void {
    if (this.#sinceMs !== undefined) this.#waitedMs += performance.now() - Math.max(this.#sinceMs, this.#lookedMs)
    this.#sinceMs = undefined
  }

  /** Since it was last asked for. */
  share(): number {
    const nowMs = performance.now()
    const waiting = this.#sinceMs === undefined ? 0 : nowMs - Math.max(this.#sinceMs, this.#lookedMs)
    const share = (this.#waitedMs + waiting) / Math.max(nowMs - this.#lookedMs, 1)
    this.#lookedMs = nowMs
    this.#waitedMs = 0
    return share
  }
}
