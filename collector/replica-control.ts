/**
 * What somebody may ask of a volume of the replica: to go on, to go back, to expect a mass change, to be used while its source is away.
 *
 * Each is written down between two rounds and then done, so that the command, given again after a crash, finds what it had begun.
 * Invariant: nothing is taken for an answer that was not asked: a volume that was stopped goes on only when somebody says so. It prevents a
 * script that restarts the collector from applying what the breaker has held back.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import type { DriftFound, DriftRounds } from './drift-rounds.ts'
import type { HistorySource } from './history-source.ts'
import type { PointRequest } from './point.ts'
import type { Replica } from './replica.ts'
import type { Standing, Stop } from './replica-standing.ts'

export interface ControlParts {
  readonly catalog: Catalog
  readonly history: HistorySource
  readonly replica: Replica | undefined
  readonly drift: DriftRounds | undefined
}

export interface Expected {
  readonly forMs: number
  readonly reason: string
}

export class ReplicaControl {
  readonly #parts: ControlParts

  constructor(parts: ControlParts) {
    this.#parts = parts
  }

  /** What is held back is applied. @throws not-found, replica-stopped */
  async resume(agent: Label, volume: Label): Promise<Standing> {
    const replica = this.#replicaOf(agent, volume)
    await change(replica, agent, volume, ({ stop }) => {
      if (stop?.phase === 'catching-up') return undefined
      const paused = requirePhase(stop, ['paused'], agent, volume)
      return { stop: { ...paused, phase: 'catching-up', clean: undefined }, accepted: this.#end(agent) }
    })
    return replica.standing(agent, volume)
  }

  /** Made what it was at a moment, without which the last clean point is meant; it stays stopped. Resolves when it is. @throws not-found, outside-window, replica-stopped */
  async rewind(agent: Label, volume: Label, at: PointRequest | undefined, signal: AbortSignal): Promise<Standing> {
    const replica = this.#replicaOf(agent, volume)
    const point = at === undefined ? undefined : await this.#parts.history.point(agent, volume, at)
    await change(replica, agent, volume, ({ stop }) => {
      const paused = requirePhase(stop, ['paused', 'rewinding'], agent, volume)
      const to = point?.position ?? paused.clean
      if (to === undefined) throw new PacsimileError('usage', `No clean point is known of ${agent}:${volume}; name one with --to`)
      return { stop: { ...paused, phase: 'rewinding', to } }
    })
    return this.#until(replica, agent, volume, (stop) => stop?.phase !== 'rewinding', signal)
  }

  /** Looks for what others wrote into it. @throws not-found, replica-stopped */
  check(agent: Label, volume: Label, signal: AbortSignal): Promise<DriftFound> {
    this.#replicaOf(agent, volume)
    const { drift } = this.#parts
    if (drift === undefined) throw new PacsimileError('not-found', 'There is no replica here')
    return drift.check(agent, volume, signal)
  }

  /** For so long from now no mass change stops the volume. @throws not-found */
  async expect(agent: Label, volume: Label, { forMs, reason }: Expected): Promise<Standing> {
    const replica = this.#replicaOf(agent, volume)
    const fromMs = Date.now()
    await change(replica, agent, volume, () => ({ expected: { fromMs, untilMs: fromMs + forMs, reason } }))
    return replica.standing(agent, volume)
  }

  /** Freezes the volume for others to use; resolves when its files are what the tree was at one moment. @throws not-found, replica-stopped */
  async beginFailover(agent: Label, volume: Label, reason: string, signal: AbortSignal): Promise<Standing> {
    const replica = this.#replicaOf(agent, volume)
    await change(replica, agent, volume, ({ stop }) => {
      if (stop?.phase === 'freezing' || stop?.phase === 'failover') return undefined
      const head = this.#end(agent)
      if (stop === undefined) {
        const at = replica.applied(agent)
        return { stop: { phase: 'freezing', reason, sinceMs: Date.now(), at, head, isKnown: true, to: head } }
      }
      const paused = requirePhase(stop, ['paused'], agent, volume)
      if (comparePositions(paused.at, paused.head) !== 0)
        throw new PacsimileError(
          'replica-stopped',
          `The replica of ${agent}:${volume} was paused in the middle of a change; rewind it first`,
        )
      return { stop: { ...paused, phase: 'freezing', reason, sinceMs: Date.now(), to: paused.at } }
    })
    return this.#until(replica, agent, volume, (stop) => stop?.phase !== 'freezing', signal)
  }

  /** What was written into it is in that branch: it is made what it was, and follows again. @throws not-found, replica-stopped */
  async endFailover(agent: Label, volume: Label, branch: string, signal: AbortSignal): Promise<Standing> {
    const replica = this.#replicaOf(agent, volume)
    await change(replica, agent, volume, ({ stop }) => {
      if (stop?.phase === 'closing' && stop.branch === branch) return undefined
      const used = requirePhase(stop, ['failover'], agent, volume)
      return { stop: { ...used, phase: 'closing', branch } }
    })
    return this.#until(replica, agent, volume, (stop) => stop?.phase !== 'closing', signal)
  }

  standing(agent: Label, volume: Label): Standing {
    return this.#replicaOf(agent, volume).standing(agent, volume)
  }

  #end(agent: Label): Position {
    const { epoch, seq } = this.#parts.catalog.chainEnd(agent) ?? { epoch: 0, seq: 0 }
    return { epoch, seq }
  }

  #replicaOf(agent: Label, volume: Label): Replica {
    const { replica, catalog } = this.#parts
    if (catalog.volume(agent, volume) === undefined) throw new PacsimileError('not-found', `There is no volume ${agent}:${volume}`)
    if (replica === undefined || !replica.isKept(agent, volume))
      throw new PacsimileError('not-found', `${agent}:${volume} has no replica here: collector.toml says so`)
    return replica
  }

  async #until(
    replica: Replica,
    agent: Label,
    volume: Label,
    isDone: (stop: Stop | undefined) => boolean,
    signal: AbortSignal,
  ): Promise<Standing> {
    for (;;) {
      const standing = replica.standing(agent, volume)
      if (isDone(standing.stop)) return standing
      signal.throwIfAborted()
      await replica.progress.next(200, signal)
    }
  }
}

/** Between two rounds. */
function change(replica: Replica, agent: Label, volume: Label, decide: Parameters<Replica['stand']>[2]): Promise<void> {
  return replica.gap.in(() => replica.stand(agent, volume, decide))
}

/** @throws replica-stopped */
function requirePhase(stop: Stop | undefined, phases: readonly Stop['phase'][], agent: Label, volume: Label): Stop {
  if (stop !== undefined && phases.includes(stop.phase)) return stop
  throw new PacsimileError(
    'replica-stopped',
    `The replica of ${agent}:${volume} is ${stop?.phase ?? 'following'}, not ${phases[0]}: nothing was changed`,
  )
}
