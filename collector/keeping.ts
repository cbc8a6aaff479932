/**
 * Which versions are kept, and why. Pure.
 *
 * Order and age are those of the ledger: an agent's head at each of its ticks, and how long the collector has run since. No time that a
 * record or a file carries decides anything, but for the span of a hold. Invariant: what cannot be shown to be older than the retention
 * asks for is kept. It prevents a wrong clock, and a ledger with a part missing, from making history go.
 */
import type { RelativePath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { HeadAt } from './ledger-view.ts'
import { pathMatcher } from './path-pattern.ts'
import type { Hold, LedgerEntry } from './repository/ledger-entry.ts'
import type { Retention } from './retention.ts'

export const KEEP_REASONS = ['current', 'recent', 'worm', 'hourly', 'daily', 'monthly', 'marked', 'held'] as const
export type KeepReason = (typeof KEEP_REASONS)[number]

/** What one path was, from a record to the next one that changed it. */
export interface Life {
  readonly path: RelativePath
  readonly from: Position
  /** Undefined: it is so now. */
  readonly until: Position | undefined
}

/** A retention with the WORM windows of all that were in force before. */
export interface BindingRetention {
  /** Undefined: everything is kept. */
  readonly now: Retention | undefined
  /** Windows of earlier ones, each with the agent's head when it was replaced: they bind what began before. */
  readonly earlier: readonly { readonly worm: number; readonly until: Position }[]
}

interface At {
  readonly head: Position
}

interface Tick extends At {
  readonly ageMs: number
}

const GRIDS = ['hourly', 'daily', 'monthly'] as const
type Grid = (typeof GRIDS)[number]

const NOTHING: Position = { epoch: 0, seq: 0 }

/** The ledger's ticks as one agent's history. */
export class Timeline {
  readonly #ticks: readonly Tick[]
  readonly #points: Readonly<Record<Grid, readonly Tick[]>>
  readonly #nowMs: number

  /** `entries` and `heads` by rising number; `nowMs`: the collector's running time. */
  constructor(entries: readonly LedgerEntry[], heads: readonly HeadAt[], nowMs: number) {
    this.#nowMs = nowMs
    const ticks: Tick[] = []
    const points: Record<Grid, Tick[]> = { hourly: [], daily: [], monthly: [] }
    const last: Partial<Record<Grid, number>> = {}
    let next = 0
    let head = NOTHING
    for (const { number, wallMs, ageMs, body } of entries) {
      for (let at = heads[next]; at !== undefined && at.number <= number; at = heads[next]) {
        head = at.position
        next += 1
      }
      if (body.kind !== 'tick') continue
      const tick = { ageMs, head }
      ticks.push(tick)
      for (const grid of GRIDS) {
        const cell = cellOf(grid, wallMs)
        if (last[grid] !== cell) points[grid].push(tick)
        last[grid] = cell
      }
    }
    this.#ticks = ticks
    this.#points = points
  }

  /** Running time since a record was there, at least; undefined where no tick shows that it is older than now. */
  sinceMs(position: Position): number | undefined {
    const first = this.#ticks[lowerBound(this.#ticks, position)]
    return first === undefined ? undefined : this.#nowMs - first.ageMs
  }

  /** Whether one of the grid's points that is not older than `spanMs` shows what was from one record to before another. */
  hasPoint(grid: Grid, from: Position, until: Position, spanMs: number): boolean {
    const points = this.#points[grid]
    const last = points[lowerBound(points, until) - 1]
    return last !== undefined && comparePositions(last.head, from) >= 0 && this.#nowMs - last.ageMs <= spanMs
  }
}

/** The number of the hour, day or month, UTC. */
function cellOf(grid: Grid, wallMs: number): number {
  if (grid === 'hourly') return Math.floor(wallMs / 3_600_000)
  if (grid === 'daily') return Math.floor(wallMs / 86_400_000)
  const date = new Date(wallMs)
  return date.getUTCFullYear() * 12 + date.getUTCMonth()
}

/** The index of the first whose head is at or behind the position. */
function lowerBound(ticks: readonly At[], position: Position): number {
  let [low, high] = [0, ticks.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    const tick = ticks[middle]
    if (tick !== undefined && comparePositions(tick.head, position) < 0) low = middle + 1
    else high = middle
  }
  return low
}

/** Of one volume. */
export class Keeping {
  readonly #timeline: Timeline
  /** In their order. */
  readonly #marks: readonly At[]
  readonly #retention: BindingRetention
  readonly #holds: readonly { readonly hold: Hold; readonly matches: (path: RelativePath) => boolean }[]
  readonly #timeOf: (position: Position) => number | undefined

  /** `marks`: the points that have a name; `timeOf`: when a record was made, in ms since 1970, as its agent said. */
  constructor(parts: {
    timeline: Timeline
    marks: readonly Position[]
    retention: BindingRetention
    holds: readonly Hold[]
    timeOf: (position: Position) => number | undefined
  }) {
    this.#timeline = parts.timeline
    this.#marks = parts.marks.toSorted(comparePositions).map((head) => ({ head }))
    this.#retention = parts.retention
    this.#holds = parts.holds.map((hold) => ({ hold, matches: pathMatcher(hold.pattern) }))
    this.#timeOf = parts.timeOf
  }

  /** Undefined where it may go. */
  why(life: Life): KeepReason | undefined {
    const { from, until } = life
    if (until === undefined) return 'current'
    const { now, earlier } = this.#retention
    const sinceMs = this.#timeline.sinceMs(until)
    if (now === undefined || sinceMs === undefined || sinceMs < now.all) return 'recent'
    const isBound = earlier.some(({ worm, until: replaced }) => sinceMs < worm && comparePositions(from, replaced) <= 0)
    if (isBound || sinceMs < now.worm) return 'worm'
    return (
      GRIDS.find((grid) => now[grid] > 0 && this.#timeline.hasPoint(grid, from, until, now[grid])) ??
      (this.#isMarked(from, until) ? 'marked' : undefined) ??
      (this.#isHeld(life, until) ? 'held' : undefined)
    )
  }

  #isMarked(from: Position, until: Position): boolean {
    const mark = this.#marks[lowerBound(this.#marks, from)]
    return mark !== undefined && comparePositions(mark.head, until) < 0
  }

  #isHeld({ path, from }: Life, until: Position): boolean {
    return this.#holds.some(({ hold, matches }) => {
      if (!matches(path)) return false
      const [fromMs, untilMs] = [this.#timeOf(from), this.#timeOf(until)]
      const beginsBefore = hold.untilMs === undefined || fromMs === undefined || fromMs <= hold.untilMs
      const endsBehind = hold.fromMs === undefined || untilMs === undefined || untilMs >= hold.fromMs
      return beginsBefore && endsBehind
    })
  }
}
