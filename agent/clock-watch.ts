/**
 * Notices that the machine slept, or that its clock was set: times in which the agent saw nothing, or after which its
 * times and those of others say different things.
 *
 * Three clocks are read together: CLOCK_MONOTONIC stands still while the machine is suspended, CLOCK_BOOTTIME does not, and
 * the wall clock follows CLOCK_BOOTTIME unless somebody sets it. Invariant: a reading that itself was interrupted is not
 * compared. It prevents a suspended machine from going on as if it had watched all the time, and a busy one from being
 * called suspended. What the journal says never depends on it: its order is the hybrid clock's.
 */
import { readFileSync } from 'node:fs'

export interface ClockReading {
  readonly monotonicMs: number
  readonly boottimeMs: number
  /** ms since 1970. */
  readonly wallMs: number
}

/** Less than this is a clock that is being disciplined, or the granularity of /proc/uptime. */
const LEAP_MS_MIN = 2000
/** A reading that took longer was interrupted between its clocks. */
const READING_MS_MAX = 100

/** What happened between two readings, in words. */
function leapsBetween(before: ClockReading, after: ClockReading): string[] {
  const bootMs = after.boottimeMs - before.boottimeMs
  const sleptMs = bootMs - (after.monotonicMs - before.monotonicMs)
  const setMs = after.wallMs - before.wallMs - bootMs
  const leaps: string[] = []
  if (sleptMs > LEAP_MS_MIN) leaps.push(`the machine was suspended for ${seconds(sleptMs)}`)
  if (Math.abs(setMs) > LEAP_MS_MIN) leaps.push(`the clock was set ${setMs > 0 ? 'forward' : 'back'} by ${seconds(Math.abs(setMs))}`)
  return leaps
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}

/** Undefined where the reading was interrupted, or the kernel does not tell. */
export function readClocks(): ClockReading | undefined {
  const monotonicMs = performance.now()
  const wallMs = Date.now()
  const boottimeMs = readBoottimeMs()
  const isWhole = performance.now() - monotonicMs < READING_MS_MAX
  return isWhole && boottimeMs !== undefined ? { monotonicMs, boottimeMs, wallMs } : undefined
}

/** proc(5): the first figure of /proc/uptime is CLOCK_BOOTTIME, in seconds. */
function readBoottimeMs(): number | undefined {
  try {
    const ms = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000
    return Number.isFinite(ms) ? ms : undefined
  } catch {
    return undefined
  }
}

export class ClockWatch {
  readonly #onLeap: (cause: string) => void
  readonly #read: () => ClockReading | undefined
  #last: ClockReading | undefined

  /** Begins to watch. `onLeap` is told of each suspension and each jump, by the look that finds it. */
  constructor(onLeap: (cause: string) => void, read = readClocks) {
    this.#onLeap = onLeap
    this.#read = read
    this.#last = read()
  }

  /** Compares with the last look; to be called every second or so. */
  look(): void {
    const reading = this.#read()
    if (reading === undefined) return
    const leaps = this.#last === undefined ? [] : leapsBetween(this.#last, reading)
    this.#last = reading
    for (const cause of leaps) this.#onLeap(cause)
  }
}
