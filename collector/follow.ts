/**
 * A signal that something was committed, for those who follow the journal at their own pace.
 *
 * It carries nothing: a follower looks at the catalog from its own cursor, so a missed or repeated signal costs nothing.
 */
export class Follow {
  #waiting: (() => void)[] = []

  signal(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Resolves at the next signal, after `ms`, or when the abort signal is given. */
  async next(ms: number, abort?: AbortSignal): Promise<void> {
    if (abort?.aborted === true) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        abort?.removeEventListener('abort', done)
        this.#waiting = this.#waiting.filter((waiting) => waiting !== done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      abort?.addEventListener('abort', done, { once: true })
      this.#waiting.push(done)
    })
  }
}
