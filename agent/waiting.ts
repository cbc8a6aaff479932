/**
 * Waiting for something to happen, or to be told to stop, without leaving listeners or timers behind.
 *
 * Invariant: every wait ends when its signal is given. It prevents a stop that hangs on a loop nobody wakes.
 */

/** Between two looks at what keeps something from its end. */
const END_POLL_MS = 100

/** Resolves after `ms`, or at once when the signal is given; it never throws. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
  })
}

/** Resolves when all of the work has ended, well or not, or when the signal is given. */
export function ended(work: readonly Promise<unknown>[], signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const end = (): void => {
      signal.removeEventListener('abort', end)
      resolve()
    }
    signal.addEventListener('abort', end)
    void Promise.allSettled(work).then(end)
  })
}

/** Resolves when all have ended, however they did. `meanwhile` is called until then. */
export async function allEnded(running: readonly Promise<unknown>[], meanwhile: () => Promise<void>): Promise<void> {
  const ended = new AbortController()
  void Promise.allSettled(running).then(() => ended.abort())
  while (!ended.signal.aborted) {
    await meanwhile()
    await sleep(END_POLL_MS, ended.signal)
  }
}

/** Those who wait for one thing; all are woken together, and look again for themselves. */
export class Waiters {
  readonly #waiting: (() => void)[] = []

  wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        signal.removeEventListener('abort', end)
        resolve()
      }
      signal.addEventListener('abort', end, { once: true })
      this.#waiting.push(end)
    })
  }

  wake(): void {
    for (const end of this.#waiting.splice(0)) end()
  }
}

/** One loop's alarm clock: it sleeps until it is woken, until a time, or until its signal is given. A wake-up between two sleeps counts. */
export class Alarm {
  #isRung = false
  #end: (() => void) | undefined

  ring(): void {
    this.#isRung = true
    this.#end?.()
  }

  /** `ms` undefined: until rung. */
  async sleep(ms: number | undefined, signal: AbortSignal): Promise<void> {
    if (!this.#isRung && !signal.aborted && (ms === undefined || ms > 0)) {
      await new Promise<void>((resolve) => {
        const timer = ms === undefined ? undefined : setTimeout(resolve, ms)
        this.#end = (): void => {
          clearTimeout(timer)
          resolve()
        }
        signal.addEventListener('abort', this.#end)
      })
      if (this.#end !== undefined) signal.removeEventListener('abort', this.#end)
      this.#end = undefined
    }
    this.#isRung = false
  }
}
