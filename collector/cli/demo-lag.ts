/**
 * Replication lag as a user would measure it: from close() on the source to the same bytes, under the same name, in the
 * replica.
 *
 * Invariant: images arrive at their own pace, whether or not the ones before have been replicated, and their bytes are
 * compared, not the size alone. It prevents a measurement that waits politely for a slow replica and so never sees a queue,
 * and a file that is still being filled from counting as replicated.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PacsimileError } from '../../shared/errors.ts'
import type { Image } from './demo-archive.ts'

const POLL_MS = 1
const PATIENCE_MS = 10_000

interface Expected {
  readonly image: Image
  /** By performance.now(). */
  readonly closedAt: number
}

export class LagMeter {
  readonly #replica: string
  readonly #expected = new Set<Expected>()
  readonly #lags: number[] = []
  #isEnded = false

  constructor(replica: string) {
    this.#replica = replica
  }

  expect(image: Image, closedAt: number): void {
    this.#expected.add({ image, closedAt })
  }

  /** Nothing more will be expected. */
  end(): void {
    this.#isEnded = true
  }

  /** Looks until all that is expected is in the replica, and no more will be. @throws timeout */
  async run(signal: AbortSignal): Promise<void> {
    while (!this.#isEnded || this.#expected.size > 0) {
      signal.throwIfAborted()
      for (const expected of this.#expected) this.#look(expected)
      await sleep(POLL_MS)
    }
  }

  #look(expected: Expected): void {
    const { image, closedAt } = expected
    const isHere = isThere(join(this.#replica, image.path), image.bytes)
    const lag = performance.now() - closedAt
    if (isHere) {
      this.#lags.push(lag)
      this.#expected.delete(expected)
    } else if (lag > PATIENCE_MS) {
      throw new PacsimileError('timeout', `${image.path} is not in the replica after ${PATIENCE_MS / 1000} s`)
    }
  }

  get count(): number {
    return this.#lags.length
  }

  /** In ms; `share` 0.5 is the median, 1 the worst. */
  quantile(share: number): number {
    const sorted = [...this.#lags].sort((a, b) => a - b)
    return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0
  }
}

function isThere(file: string, bytes: Buffer): boolean {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat?.size === bytes.length && readFileSync(file).equals(bytes)
}
