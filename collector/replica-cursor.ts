/**
 * How far the replica of each agent has got, durably: small files beside the replica.
 *
 * Invariant: a cursor is written only after a syncfs of what it covers, so that it may lag behind the replica, never lead
 * it. What it lags is applied again, which changes nothing.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'

const cursor = z.object({ epoch: z.number().int().nonnegative(), seq: z.number().int().nonnegative() })

export class ReplicaCursor {
  readonly #directory: string

  constructor(replicaDirectory: string) {
    // No agent's name begins with a dot.
    this.#directory = join(replicaDirectory, '.cursors')
    makeDirectory(this.#directory)
  }

  /** Undefined where there is none, or none that can be read: the replica is then compared as a whole. */
  read(agent: Label): Position | undefined {
    const bytes = readIfPresent(this.#fileOf(agent))
    if (bytes === undefined) return undefined
    try {
      return cursor.parse(JSON.parse(bytes.toString('utf8')))
    } catch {
      return undefined
    }
  }

  write(agent: Label, position: Position): void {
    writeFileDurably(this.#fileOf(agent), `${JSON.stringify({ epoch: position.epoch, seq: position.seq })}\n`)
  }

  #fileOf(agent: Label): string {
    return join(this.#directory, `${agent}.json`)
  }
}
