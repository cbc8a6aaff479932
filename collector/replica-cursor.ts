/**
 * How far the replica of each agent has got, durably: small files beside the replica.
 *
 * Invariant: a cursor is written only after a syncfs of what it covers, so that it may lag behind the replica, never lead
 * it. What it lags is applied again, which changes nothing.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { makeDirectory, readIfPresent, removeFileDurably, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'

const cursor = z.object({ epoch: z.number().int().nonnegative(), seq: z.number().int().nonnegative(), whole: z.boolean() })

export class ReplicaCursor {
  readonly #directory: string

  constructor(replicaDirectory: string) {
    // No agent's name begins with a dot.
    this.#directory = join(replicaDirectory, '.cursors')
    makeDirectory(this.#directory)
  }

  /** Undefined where there is none, none that can be read, or one of a replica that was not whole: it is then compared as a whole. */
  read(agent: Label): Position | undefined {
    const found = this.#read(agent)
    return found?.whole === true ? { epoch: found.epoch, seq: found.seq } : undefined
  }

  /** How far it has got, whole or not. */
  place(agent: Label): Position | undefined {
    const found = this.#read(agent)
    return found === undefined ? undefined : { epoch: found.epoch, seq: found.seq }
  }

  #read(agent: Label): z.output<typeof cursor> | undefined {
    const bytes = readIfPresent(this.#fileOf(agent))
    if (bytes === undefined) return undefined
    try {
      return cursor.parse(JSON.parse(bytes.toString('utf8')))
    } catch {
      return undefined
    }
  }

  /** `whole`: every path up to there could be written. */
  write(agent: Label, position: Position, whole: boolean): void {
    writeFileDurably(this.#fileOf(agent), `${JSON.stringify({ epoch: position.epoch, seq: position.seq, whole })}\n`)
  }

  /** What is on disk is not known any more. */
  forget(agent: Label): void {
    removeFileDurably(this.#fileOf(agent))
  }

  #fileOf(agent: Label): string {
    return join(this.#directory, `${agent}.json`)
  }
}
