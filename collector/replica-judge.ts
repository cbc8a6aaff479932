/**
 * Looks at what came into the journal before any of it is applied: which volumes are being lost.
 *
 * Invariant: a round applies nothing that was not looked at, and what is looked at after a start begins a window before what was
 * applied. It prevents a crash in the middle of a mass change from letting it through.
 */
import { millisecondsOf } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position } from '../shared/record.ts'
import { Breaker, type BreakerRule, type MassChange } from './breaker.ts'
import type { Catalog } from './catalog.ts'
import { DicomHeads } from './dicom-heads.ts'
import type { History } from './history.ts'
import type { ReplicaStandings, Stop } from './replica-standing.ts'

interface Judged {
  /** Of those that are behind the others, where looking begins; of the others, `start`. */
  readonly starts: ReadonlyMap<Label, Position>
  readonly start: Position
  until: Position
  readonly breakers: Map<Label, Breaker>
  /** What was found, and is not stopped yet. */
  readonly found: Map<Label, MassChange>
}

export class ReplicaJudge {
  readonly #catalog: Catalog
  readonly #history: History
  readonly #standings: ReplicaStandings
  readonly #rule: BreakerRule
  readonly #breathe: () => Promise<void>
  readonly #heads: DicomHeads
  readonly #agents = new Map<Label, Judged>()

  constructor(parts: {
    catalog: Catalog
    history: History
    standings: ReplicaStandings
    rule: BreakerRule
    breathe: () => Promise<void>
  }) {
    this.#catalog = parts.catalog
    this.#history = parts.history
    this.#standings = parts.standings
    this.#rule = parts.rule
    this.#breathe = parts.breathe
    this.#heads = new DicomHeads((name) => this.#history.readChunk(name))
  }

  /** What is being lost by the records up to `head`. `applied`: undefined where that is not known. */
  async judge(agent: Label, applied: Position | undefined, head: Position): Promise<ReadonlyMap<Label, MassChange>> {
    const judged = this.#agents.get(agent) ?? (await this.#begin(agent, applied ?? head))
    const { found } = judged
    for await (const record of this.#catalog.summaries(agent, judged.until, head)) {
      await this.#breathe()
      if (record.kind !== 'epoch' && !found.has(record.volume) && comparePositions(record, startOf(judged, record.volume)) > 0) {
        const { stop, expected } = this.#standings.of(agent, record.volume)
        if (isJudged(stop)) {
          const ms = millisecondsOf(record.time)
          const isExpected = expected !== undefined && ms >= expected.fromMs && ms <= expected.untilMs
          const change = await this.#breaker(agent, record.volume, judged).take(record, isExpected)
          if (change !== undefined) found.set(record.volume, change)
        }
      }
      judged.until = { epoch: record.epoch, seq: record.seq }
    }
    return found
  }

  /** What is allowed of a volume has changed, or it does not follow any more. */
  forget(agent: Label, volume: Label): void {
    this.#agents.get(agent)?.breakers.delete(volume)
    this.#agents.get(agent)?.found.delete(volume)
  }

  /** Whether a volume is being lost and was not stopped yet. */
  hasFound(agent: Label, volume: Label): boolean {
    return this.#agents.get(agent)?.found.has(volume) === true
  }

  #breaker(agent: Label, volume: Label, judged: Judged): Breaker {
    const { breakers } = judged
    const known = breakers.get(volume)
    if (known !== undefined) return known
    const start = startOf(judged, volume)
    const { accepted } = this.#standings.of(agent, volume)
    const breaker = new Breaker({
      agent,
      volume,
      catalog: this.#catalog,
      heads: this.#heads,
      rule: this.#rule,
      accepted: comparePositions(accepted, start) > 0 ? accepted : start,
      breathe: this.#breathe,
    })
    breakers.set(volume, breaker)
    return breaker
  }

  /** A window before what was applied: what made the count then is counted again, of each volume. */
  async #begin(agent: Label, applied: Position): Promise<Judged> {
    const start = await this.#before(agent, applied)
    const starts = new Map<Label, Position>()
    for (const { name } of await this.#catalog.volumes(agent)) {
      const { stop } = this.#standings.of(agent, name)
      if (stop !== undefined && isJudged(stop)) starts.set(name, await this.#before(agent, stop.at))
    }
    const until = [...starts.values()].reduce((least, other) => (comparePositions(other, least) < 0 ? other : least), start)
    const judged = { starts, start, until, breakers: new Map<Label, Breaker>(), found: new Map<Label, MassChange>() }
    this.#agents.set(agent, judged)
    return judged
  }

  async #before(agent: Label, applied: Position): Promise<Position> {
    const time = this.#catalog.summary(agent, applied)?.time
    const [volume] = await this.#catalog.volumes(agent)
    if (time === undefined || volume === undefined) return BEFORE_ALL
    try {
      const point = await this.#history.point(agent, volume.name, { kind: 'time', ms: millisecondsOf(time) - this.#rule.windowMs })
      return comparePositions(point.position, applied) < 0 ? point.position : applied
    } catch (error) {
      if (error instanceof PacsimileError && error.code === 'outside-window') return BEFORE_ALL
      throw error
    }
  }
}

function startOf({ starts, start }: Judged, volume: Label): Position {
  return starts.get(volume) ?? start
}

/** What was stopped for a mass change is known of; everything else is looked at, also what is to be applied later. */
function isJudged(stop: Stop | undefined): boolean {
  return stop === undefined || (stop.clean === undefined && stop.phase !== 'off')
}
