/**
 * Hybrid logical time: wall-clock milliseconds with a counter, never backwards, comparable over agents.
 *
 * A time is a u64: milliseconds since 1970 UTC in the upper 48 bits, a counter in the lower 16.
 * Invariant: `tick` is strictly greater than every time that it gave or was shown before. It prevents a clock that is
 * set back from reordering history. Source: Kulkarni et al., "Logical Physical Clocks" (2014).
 */
import { CLOCK_SKEW_MS_MAX } from './limits.ts'

export type HybridTime = bigint & { readonly __brand: 'HybridTime' }

/** Times in a millisecond. */
const COUNTER_MAX = 0x1_0000

export const TIME_ZERO = 0n as HybridTime
/** Later than every time: "the head". */
export const TIME_END = 0xffff_ffff_ffff_ffffn as HybridTime

export function hybridTime(value: bigint): HybridTime {
  return value as HybridTime
}

/** The last time within a wall-clock millisecond: a point given as wall-clock time includes all of that millisecond. */
export function endOfMillisecond(ms: number): HybridTime {
  return ((BigInt(Math.floor(ms)) << 16n) | 0xffffn) as HybridTime
}

export function startOfMillisecond(ms: number): HybridTime {
  return (BigInt(Math.floor(ms)) << 16n) as HybridTime
}

export function millisecondsOf(time: HybridTime): number {
  return Number(time >> 16n)
}

/** The wall clock, as a port: tests put their own in its place. */
export interface WallClock {
  /** Milliseconds since 1970 UTC. */
  now(): number
}

export const systemClock: WallClock = { now: () => Date.now() }

export class HybridClock {
  readonly #wall: WallClock
  #last: HybridTime

  constructor(wall: WallClock, last: HybridTime = TIME_ZERO) {
    this.#wall = wall
    this.#last = last
  }

  get last(): HybridTime {
    return this.#last
  }

  tick(): HybridTime {
    const physical = startOfMillisecond(this.#wall.now())
    this.#last = (physical > this.#last ? physical : this.#last + 1n) as HybridTime
    return this.#last
  }

  /** So many times within one millisecond, for what belongs to one moment: a point never holds only a part of it. */
  ticks(count: number): HybridTime[] {
    const first = this.tick()
    const isWithin = millisecondsOf((first + BigInt(count)) as HybridTime) === millisecondsOf(first)
    const start = isWithin || count > COUNTER_MAX ? first : startOfMillisecond(millisecondsOf(first) + 1)
    const times = Array.from({ length: count }, (_, i) => (start + BigInt(i)) as HybridTime)
    this.#last = times.at(-1) ?? first
    return times
  }

  /** Own times that were found on disk: never go below them, however far ahead. */
  atLeast(time: HybridTime): void {
    if (time > this.#last) this.#last = time
  }

  /**
   * A peer's time. Moves this clock forward unless the peer is further ahead than CLOCK_SKEW_MS_MAX, so that one wrong
   * clock cannot drag every other one with it. @returns the peer's lead in ms (negative: it is behind)
   */
  observe(time: HybridTime): number {
    const lead = millisecondsOf(time) - this.#wall.now()
    if (lead <= CLOCK_SKEW_MS_MAX) this.atLeast(time)
    return lead
  }
}
