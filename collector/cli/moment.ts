/**
 * What was understood by a moment, said back: local time and UTC, the nearest points, and what is not certain there.
 *
 * Invariant: every answer about a moment names it in both times before anything else is said. It prevents a restore in
 * the wrong time zone from passing for the right one.
 */
import { type HybridTime, millisecondsOf } from '../../shared/clock.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { type Point, showLocalTime, showMoment } from '../point.ts'
import { showDuration } from './amounts.ts'
import { isoTime, spanFields } from './json.ts'
import { note, warn } from './output.ts'

/** What was asked for; for the head or a seq, the time of its record. */
function momentMs(point: Point): number {
  return point.requestedMs ?? (point.time === undefined ? 0 : millisecondsOf(point.time))
}

/** The moment, and in lines of their own the changes before and after it. */
export function pointLines(point: Point): string[] {
  const { requestedMs, time, next, position } = point
  const seq = `seq ${position.epoch}:${position.seq}`
  if (requestedMs === undefined) return [`${showMoment(momentMs(point))}, ${seq}${next === undefined ? ', the newest' : ''}`]
  const line = (title: string, at: HybridTime, sense: string, more: string): string => {
    const ms = millisecondsOf(at)
    return `  ${title}  ${showLocalTime(ms)}, ${showDuration(Math.abs(ms - requestedMs))} ${sense}${more}`
  }
  return [
    showMoment(requestedMs),
    time === undefined ? '  last change  none' : line('last change', time, 'earlier', ` (${seq})`),
    next === undefined ? '  next change  none so far' : line('next change', next, 'later', ''),
    `  watched      ${coverageText(point, requestedMs)}`,
  ]
}

/** Before an answer for people: of what, at which moment, and what to know of it. */
export function sayPoint(target: string, point: Point, doing = ''): void {
  const [first = '', ...more] = pointLines(point)
  for (const line of [`${doing}${target} ${doing === '' ? 'at' : 'as it was at'} ${first}`, ...more]) note(line)
  for (const warning of pointWarnings(point)) warn(warning)
}

/** Whether it was proven that nothing was missed up to the moment. */
function coverageText({ coverage }: Point, ms: number): string {
  if (coverage === undefined) return 'not proven: no watching had begun by then'
  const until = millisecondsOf(coverage.until)
  if (ms <= until) return `${coverage.mode}, proven`
  return `${coverage.mode}, proven until ${showLocalTime(until)}, ${showDuration(ms - until)} earlier`
}

/** By so much the clocks of two hosts may differ before a moment is called a future one. */
const FUTURE_MS = 60_000

/** What a reader must know before trusting the state. */
export function pointWarnings(point: Point): string[] {
  const warnings: string[] = []
  const aheadMs = (point.requestedMs ?? 0) - Date.now()
  if (aheadMs > FUTURE_MS) warnings.push(`the moment is ${showDuration(aheadMs)} in the future: what is shown is the newest state`)
  if (!point.whole) warnings.push('the first full scan was not done at that moment: the state may lack files')
  if (point.gap !== undefined) {
    warnings.push(
      `the moment lies in a gap, ${showLocalTime(millisecondsOf(point.gap.from))} to ${showLocalTime(millisecondsOf(point.gap.until))} (${point.gap.cause}): changes of that time may be missing`,
    )
  }
  return warnings
}

/** @throws outside-window where something may have been missed in the state of that moment */
export function requireComplete(point: Point): void {
  const why = incompleteness(point)
  if (why !== undefined) throw new PacsimileError('outside-window', `${showMoment(momentMs(point))} is not known to be complete: ${why}`)
}

function incompleteness({ whole, gap, coverage, requestedMs }: Point): string | undefined {
  if (!whole) return 'the first full scan was not done by then'
  if (gap !== undefined) {
    const [from, until] = [gap.from, gap.until].map((time) => showLocalTime(millisecondsOf(time)))
    return `it lies in a gap, ${from} to ${until} (${gap.cause})`
  }
  // The state of a record, or the newest one, is what was recorded up to it, whatever else there may have been by then.
  if (requestedMs === undefined) return undefined
  if (coverage === undefined) return 'nothing proves that the volume was watched'
  const untilMs = millisecondsOf(coverage.until)
  return requestedMs <= untilMs ? undefined : `watching is proven until ${showLocalTime(untilMs)} only`
}

export function pointFields(point: Point): object {
  const iso = (time: HybridTime | undefined): string | null => (time === undefined ? null : isoTime(millisecondsOf(time)))
  return {
    moment: isoTime(momentMs(point)),
    momentLocal: showLocalTime(momentMs(point)),
    epoch: point.position.epoch,
    seq: point.position.seq,
    lastChange: iso(point.time),
    nextChange: iso(point.next),
    whole: point.whole,
    covered: point.coverage !== undefined && momentMs(point) <= millisecondsOf(point.coverage.until),
    coveredUntil: iso(point.coverage?.until),
    gap: point.gap === undefined ? null : { ...spanFields(point.gap), cause: point.gap.cause },
  }
}
