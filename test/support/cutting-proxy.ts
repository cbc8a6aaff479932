/** A TCP proxy that can be cut: at once, or when a number of bytes have passed towards the server. It has a thread of its own. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { onTestFinished } from 'vitest'

export interface ProxyTask {
  readonly target: number
  readonly shared: SharedArrayBuffer
}

/** Places in what is shared: whether it is cut, how many bytes may still pass, how often they were used up. */
export const [CUT, LEFT_BYTES, CUTS] = [0, 1, 2] as const
const NO_END = 2 ** 31 - 1

export class CuttingProxy {
  readonly port: number
  readonly #state: Int32Array

  private constructor(port: number, state: Int32Array) {
    this.port = port
    this.#state = state
  }

  static async to(target: number): Promise<CuttingProxy> {
    const shared = new SharedArrayBuffer(12)
    const state = new Int32Array(shared)
    Atomics.store(state, LEFT_BYTES, NO_END)
    const url = new URL('./cutting-proxy-worker.ts', import.meta.url)
    const worker = new Worker(url, {
      workerData: { target, shared } satisfies ProxyTask,
      execArgv: ['--disable-warning=ExperimentalWarning'],
    })
    onTestFinished(async () => {
      await worker.terminate()
    })
    const [port] = (await once(worker, 'message')) as [number]
    return new CuttingProxy(port, state)
  }

  /** How often it was cut while something was under way. */
  get cuts(): number {
    return Atomics.load(this.#state, CUTS)
  }

  /** Cuts when so many bytes more have passed towards the server. */
  cutAfter(bytes: number): void {
    Atomics.store(this.#state, LEFT_BYTES, bytes)
  }

  restore(): void {
    Atomics.store(this.#state, LEFT_BYTES, NO_END)
    Atomics.store(this.#state, CUT, 0)
  }
}
