/**
 * How each volume of the replica stands, durably: whether it follows, or where it was stopped, why, and what is to be done with it.
 *
 * A small file for each volume, written before anything is done that it speaks of, so that a crash at any moment leaves what is
 * to be gone on with. Invariant: a volume whose file cannot be read is stopped. It prevents an archive that was stopped because it was being
 * encrypted from going on by itself after a restart.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { reasonOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import { BEFORE_ALL } from '../shared/record.ts'

const count = z.number().int().nonnegative()
const position = z.object({ epoch: count, seq: count })

const STOP = z.object({
  /**
   * `paused`: nothing is written until somebody decides. `rewinding`: made what it was at `to`, then paused. `freezing`: the same, then
   * `failover`: used by others. `closing`: what they wrote goes into `branch`. `catching-up`: goes on to where the others are. `off`: not
   * kept, as the configuration says. `checking`: looked at for what others wrote although it is not in use.
   */
  phase: z.enum(['paused', 'rewinding', 'freezing', 'failover', 'closing', 'checking', 'catching-up', 'off']),
  reason: z.string(),
  sinceMs: z.number(),
  /** Everything up to here is in the files. */
  at: position,
  /** Nothing beyond this is in the files. Where it is `at`, they are what the tree was there. */
  head: position,
  /** False: what is on disk is not known at all. */
  isKnown: z.boolean(),
  /** Of a mass change: the last point before it. */
  clean: position.optional(),
  /** While rewinding or freezing. */
  to: position.optional(),
  /** While closing: its name. */
  branch: z.string().optional(),
  /** While closing: it is of what others wrote although the replica was not in use. */
  isDrift: z.boolean().optional(),
})
export type Stop = z.output<typeof STOP>

const STANDING = z.object({
  /** Undefined: it follows. */
  stop: STOP.optional(),
  /** What was recorded up to here is taken for what it should be. */
  accepted: position.default(BEFORE_ALL),
  /** When it was last begun to look for what others wrote. */
  checkedMs: z.number().optional(),
  /** A mass change that somebody has announced. */
  expected: z.object({ fromMs: z.number(), untilMs: z.number(), reason: z.string() }).optional(),
})
export type Standing = z.output<typeof STANDING>

const FOLLOWING: Standing = { accepted: BEFORE_ALL }

export class ReplicaStandings {
  readonly #directory: string
  readonly #known = new Map<string, Standing>()

  constructor(replicaDirectory: string) {
    // No agent's name begins with a dot.
    this.#directory = join(replicaDirectory, '.standings')
    makeDirectory(this.#directory)
  }

  of(agent: Label, volume: Label): Standing {
    const key = `${agent}:${volume}`
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const read = this.#read(agent, volume)
    this.#known.set(key, read)
    return read
  }

  set(agent: Label, volume: Label, change: Partial<Standing>): void {
    const standing: Standing = { ...this.of(agent, volume), ...change }
    makeDirectory(join(this.#directory, agent))
    writeFileDurably(this.#fileOf(agent, volume), `${JSON.stringify(standing)}\n`)
    this.#known.set(`${agent}:${volume}`, standing)
  }

  #read(agent: Label, volume: Label): Standing {
    const bytes = readIfPresent(this.#fileOf(agent, volume))
    if (bytes === undefined) return FOLLOWING
    try {
      return STANDING.parse(JSON.parse(bytes.toString('utf8')))
    } catch (error) {
      const reason = `its state in ${this.#fileOf(agent, volume)} cannot be read: ${reasonOf(error)}`
      return {
        ...FOLLOWING,
        stop: { phase: 'paused', reason, sinceMs: Date.now(), at: BEFORE_ALL, head: BEFORE_ALL, isKnown: false },
      }
    }
  }

  #fileOf(agent: Label, volume: Label): string {
    return join(this.#directory, agent, `${volume}.json`)
  }
}
