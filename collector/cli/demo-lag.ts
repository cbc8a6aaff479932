/**
 * Replication lag as a user would measure it: from close() on the source to the same bytes, under the same name, in the
 * replica.
 *
 * The bytes are compared, not the size alone. It prevents a file that is still being filled from counting as replicated.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PacsimileError } from '../../shared/errors.ts'
import type { Image } from './demo-archive.ts'

const POLL_MS = 1
const PATIENCE_MS = 10_000

export class LagMeter {
  readonly #replica: string
  readonly #lags: number[] = []

  constructor(replica: string) {
    this.#replica = replica
  }

  /** Resolves when the image is in the replica. `closedAt` by performance.now(). @throws timeout */
  async follow(image: Image, closedAt: number): Promise<void> {
    const file = join(this.#replica, image.path)
    while (!isThere(file, image.bytes)) {
      if (performance.now() - closedAt > PATIENCE_MS)
        throw new PacsimileError('timeout', `${image.path} is not in the replica after ${PATIENCE_MS / 1000} s`)
      await sleep(POLL_MS)
    }
    this.#lags.push(performance.now() - closedAt)
  }

  get count(): number {
    return this.#lags.length
  }

  /** In ms; `share` 0.5 is the median, 1 the worst. */
  quantile(share: number): number {
    const sorted = [...this.#lags].sort((a, b) => a - b)
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  }
}

function isThere(file: string, bytes: Buffer): boolean {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat?.size === bytes.length && readFileSync(file).equals(bytes)
}
