/**
 * The volumes of the replica that do not follow, while something is done with them: one piece of work at a time for each, beside
 * the rounds of the others.
 *
 * Invariant: for each volume whose standing asks for work there is somebody who does it, until it is done. It prevents a rewind that is
 * asked for at the moment in which the work before it ends from never being done.
 */
import { asPacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { Follow } from './follow.ts'
import type { ReplicaStandings, Stop } from './replica-standing.ts'
import type { StoppedVolume } from './stopped-volume.ts'

const RETRY_MS = 5000
const ACTIVE: readonly Stop['phase'][] = ['rewinding', 'freezing', 'closing', 'checking', 'catching-up']

export class StoppedVolumes {
  readonly #standings: ReplicaStandings
  readonly #log: Log
  readonly #open: (agent: Label, volume: Label) => StoppedVolume
  readonly #onEnd: () => void
  readonly #isKnown: (agent: Label) => boolean
  /** By AGENT:VOLUME. */
  readonly #working = new Map<string, Promise<void>>()

  constructor(parts: {
    standings: ReplicaStandings
    log: Log
    open: (agent: Label, volume: Label) => StoppedVolume
    /** Whether it is known what is on disk of an agent. */
    isKnown: (agent: Label) => boolean
    /** Some work has ended. */
    onEnd: () => void
  }) {
    this.#standings = parts.standings
    this.#log = parts.log
    this.#open = parts.open
    this.#onEnd = parts.onEnd
    this.#isKnown = parts.isKnown
  }

  /** Goes on with a volume, where there is something to be done. */
  wake(agent: Label, volume: Label, signal: AbortSignal): void {
    const key = `${agent}:${volume}`
    if (!this.#asks(agent, volume) || this.#working.has(key) || signal.aborted) return
    const work = this.#work(agent, volume, signal).finally(() => {
      this.#working.delete(key)
      this.#onEnd()
      // What was asked for while the last of it ended.
      this.wake(agent, volume, signal)
    })
    this.#working.set(key, work)
  }

  isBusy(agent: Label): boolean {
    return [...this.#working.keys()].some((key) => key.startsWith(`${agent}:`))
  }

  /** Resolves when all work has ended. */
  async end(): Promise<void> {
    await Promise.all(this.#working.values())
  }

  #asks(agent: Label, volume: Label): boolean {
    const { stop } = this.#standings.of(agent, volume)
    return stop !== undefined && ACTIVE.includes(stop.phase) && this.#isKnown(agent)
  }

  async #work(agent: Label, volume: Label, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#asks(agent, volume)) {
      try {
        await this.#open(agent, volume).work()
        return
      } catch (error) {
        if (signal.aborted || !this.#asks(agent, volume)) return
        const { code, message } = asPacsimileError(error, `Working on the replica of ${agent}:${volume}`)
        this.#log.error('the replica of a volume cannot be worked on', { agent, volume, code, reason: message })
        // Nobody signals here: a busy archive does not make it try more often.
        await new Follow().next(RETRY_MS, signal)
      }
    }
  }
}
