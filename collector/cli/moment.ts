/**
 * What was understood by a moment, said back: local time and UTC, the nearest points, and what is not certain there.
 */
import { millisecondsOf } from '../../shared/clock.ts'
import { type Point, showLocalTime, showMoment } from '../point.ts'
import { showDuration } from './output.ts'

function momentMs(point: Point): number {
  return point.requestedMs ?? (point.time === undefined ? 0 : millisecondsOf(point.time))
}

export function describePoint(point: Point): string {
  const at = momentMs(point)
  const last =
    point.time === undefined
      ? ''
      : `, last change before it ${showLocalTime(millisecondsOf(point.time))} (seq ${point.position.epoch}:${point.position.seq})`
  const next = point.next === undefined ? ', none after it' : `, next ${showDuration(Math.max(0, millisecondsOf(point.next) - at))} later`
  return `${showMoment(at)}${last}${next}`
}

/** What a reader must know before trusting the state. */
export function pointWarnings(point: Point): string[] {
  const warnings: string[] = []
  if (!point.whole) warnings.push('the first full scan was not done at that moment: the state may lack files')
  if (point.gap !== undefined) {
    warnings.push(
      `the moment lies in a gap, ${showLocalTime(millisecondsOf(point.gap.from))} to ${showLocalTime(millisecondsOf(point.gap.until))} (${point.gap.cause}): changes of that time may be missing`,
    )
  }
  return warnings
}

export function pointFields(point: Point): object {
  const iso = (ms: number): string => new Date(ms).toISOString()
  return {
    moment: iso(momentMs(point)),
    momentLocal: showLocalTime(momentMs(point)),
    epoch: point.position.epoch,
    seq: point.position.seq,
    lastChange: point.time === undefined ? null : iso(millisecondsOf(point.time)),
    nextChange: point.next === undefined ? null : iso(millisecondsOf(point.next)),
    whole: point.whole,
    gap:
      point.gap === undefined
        ? null
        : { from: iso(millisecondsOf(point.gap.from)), until: iso(millisecondsOf(point.gap.until)), cause: point.gap.cause },
  }
}
