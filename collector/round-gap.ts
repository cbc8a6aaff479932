/**
 * Between two rounds: where something is done that must not meet a round half way.
 *
 * Invariant: what is asked for is done in the gap or refused, never forgotten. It prevents a command that waits for a loop that has ended.
 */
import { PacsimileError } from '../shared/errors.ts'

interface Task {
  readonly act: () => Promise<void>
  readonly refuse: (error: Error) => void
}

export class RoundGap {
  readonly #signal: () => void
  readonly #tasks: Task[] = []
  #isClosed = false

  /** `signal`: wakes whoever goes from round to round. */
  constructor(signal: () => void) {
    this.#signal = signal
  }

  get isAwaited(): boolean {
    return this.#tasks.length > 0
  }

  /** @throws what `act` throws; collector-unreachable when there will be no gap any more */
  in<Result>(act: () => Result | Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const refuse = (error: unknown): void => reject(error instanceof Error ? error : new Error(String(error)))
      const run = async (): Promise<void> => {
        try {
          resolve(await act())
        } catch (error) {
          refuse(error)
        }
      }
      if (this.#isClosed) return refuse(ended())
      this.#tasks.push({ act: run, refuse })
      this.#signal()
    })
  }

  /** Here is one. */
  async open(): Promise<void> {
    for (const { act } of this.#tasks.splice(0)) await act()
  }

  /** There will be none any more. */
  close(): void {
    this.#isClosed = true
    for (const { refuse } of this.#tasks.splice(0)) refuse(ended())
  }
}

function ended(): PacsimileError {
  return new PacsimileError('collector-unreachable', 'The collector is ending')
}
