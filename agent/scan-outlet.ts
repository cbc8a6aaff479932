/**
 * A scan task's way to the main thread: what it found, in batches, and the parts that it hands over.
 *
 * Invariant: at most SCAN_BATCHES_IN_FLIGHT batches of all scan threads together are under way; a thread waits beyond that.
 * It prevents a scan of ten million files from filling the memory of a busy agent.
 */
import type { MessagePort } from 'node:worker_threads'
import { SCAN_BATCHES_IN_FLIGHT } from '../shared/limits.ts'
import type { SeenBlock } from './inode-block.ts'
import type { Difference } from './scan.ts'
import { CONTROL, type ScanMessage, type ScanMethod, type ScanTask } from './scan-task.ts'
import type { Listed } from './state.ts'

const BATCH_MAX = 256
/** What was found is told at the latest after this time. */
const HOLD_MS = 100
/** Between two parts that one task hands over. */
const HANDOVER_MS = 1
const WAIT_MS = 100

export class ScanOutlet {
  readonly #port: MessagePort
  readonly #control: Int32Array
  readonly #id: number
  #differences: Difference[] = []
  #listed: Listed[] = []
  #blocks: SeenBlock[] = []
  #flushedMs = performance.now()
  #handedMs = 0
  /** Paths, or inodes of the volume, that were compared. */
  entries = 0

  constructor(port: MessagePort, control: Int32Array, id: number) {
    this.#port = port
    this.#control = control
    this.#id = id
  }

  readonly found = (difference: Difference): void => {
    this.#differences.push(difference)
    if (this.#differences.length >= BATCH_MAX) this.flush()
  }

  listed(listed: Listed): void {
    this.#listed.push(listed)
    if (this.#listed.length >= BATCH_MAX) this.flush()
  }

  seen(block: SeenBlock): void {
    this.#blocks.push(block)
    if (this.#blocks.length >= BATCH_MAX) this.flush()
  }

  method(method: ScanMethod, reason: string): void {
    this.#post({ kind: 'method', id: this.#id, method, reason })
  }

  /** Now and then, between two steps: tells what has been found for long. @returns whether somebody waits for a part of the task */
  pause(): boolean {
    const nowMs = performance.now()
    if (nowMs - this.#flushedMs > HOLD_MS) this.flush()
    return Atomics.load(this.#control, CONTROL.hungry) > 0 && nowMs - this.#handedMs > HANDOVER_MS
  }

  /** False when somebody else has fed whoever was waiting. */
  handOver(task: ScanTask): boolean {
    for (let hungry = Atomics.load(this.#control, CONTROL.hungry); hungry > 0; hungry = Atomics.load(this.#control, CONTROL.hungry)) {
      if (Atomics.compareExchange(this.#control, CONTROL.hungry, hungry, hungry - 1) !== hungry) continue
      this.#handedMs = performance.now()
      this.#post({ kind: 'handover', id: this.#id, task })
      return true
    }
    return false
  }

  get isCancelled(): boolean {
    return Atomics.load(this.#control, CONTROL.cancelled) === this.#id
  }

  flush(): void {
    this.#flushedMs = performance.now()
    if (this.#differences.length + this.#listed.length + this.#blocks.length === 0) return
    for (let count = this.#inFlight; count >= SCAN_BATCHES_IN_FLIGHT && !this.isCancelled; count = this.#inFlight) {
      Atomics.wait(this.#control, CONTROL.inFlight, count, WAIT_MS)
    }
    Atomics.add(this.#control, CONTROL.inFlight, 1)
    this.#post({ kind: 'found', id: this.#id, differences: this.#differences, listed: this.#listed, blocks: this.#blocks })
    this.#differences = []
    this.#listed = []
    this.#blocks = []
  }

  get #inFlight(): number {
    return Atomics.load(this.#control, CONTROL.inFlight)
  }

  done(rootProblem: string | undefined): void {
    this.flush()
    this.#post({ kind: 'done', id: this.#id, entries: this.entries, rootProblem })
  }

  #post(message: ScanMessage): void {
    this.#port.postMessage(message, [])
  }
}
