/**
 * Points: how a person names a moment, and what exactly was understood.
 *
 * Invariant: a text either names one moment in a documented way or is refused; what was understood is always shown back,
 * in local time and UTC. It prevents a restore to another moment than the one that was meant.
 */
import { endOfMillisecond, type HybridTime } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { Position, WatchMode } from '../shared/record.ts'

export type PointRequest =
  | { readonly kind: 'head' }
  /** The state after everything up to and within that millisecond. */
  | { readonly kind: 'time'; readonly ms: number }
  /** The state after that record; of the newest epoch where none is given. */
  | { readonly kind: 'seq'; readonly epoch: number | undefined; readonly seq: number }
  /** The state at the newest mark of that name. */
  | { readonly kind: 'mark'; readonly name: string }

/** A restorable moment, as found in an agent's history. */
export interface Point {
  readonly position: Position
  /** Time of the last record that the state holds; undefined where it holds none. */
  readonly time: HybridTime | undefined
  /** The moment that was asked for, in ms since 1970; undefined for a seq or the head. */
  readonly requestedMs: number | undefined
  /** Time of the first record after it; undefined at the head. */
  readonly next: HybridTime | undefined
  /** The gap that the moment lies in: intermediate versions may be unknown there. */
  readonly gap: { readonly from: HybridTime; readonly until: HybridTime; readonly cause: string } | undefined
  /** Whether the volume had been scanned whole by then; before, the state may lack files that were there. */
  readonly whole: boolean
  /** The last span of proven watching that had begun by then; the moment may lie behind its end. */
  readonly coverage: { readonly from: HybridTime; readonly until: HybridTime; readonly mode: WatchMode } | undefined
}

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 }
const UNIT_NAMES: Readonly<Record<string, string>> = {
  sec: 's',
  secs: 's',
  second: 's',
  seconds: 's',
  min: 'm',
  mins: 'm',
  minute: 'm',
  minutes: 'm',
  hour: 'h',
  hours: 'h',
  day: 'd',
  days: 'd',
  week: 'w',
  weeks: 'w',
}

/**
 * `now`, `10m ago` (s, m, h, d, w; also `2 hours ago`), `seq:N`, `seq:EPOCH:N`, `mark:NAME`, RFC 3339 (`2026-11-24T09:30:00Z`, with any
 * offset and fraction), or local time (`2026-11-24 09:30:00`, `2026-11-24 09:30`, `2026-11-24T09:30:00.250`, `09:30`, `09:30:15` today).
 * @throws usage
 */
export function parsePoint(text: string, now = Date.now()): PointRequest {
  const trimmed = text.trim()
  if (trimmed === 'now' || trimmed === 'head') return { kind: 'head' }
  const seq = /^seq:(?:(\d+):)?(\d+)$/.exec(trimmed)
  if (seq !== null) return { kind: 'seq', epoch: seq[1] === undefined ? undefined : Number(seq[1]), seq: Number(seq[2]) }
  const mark = /^mark:(.+)$/.exec(trimmed)?.[1]
  if (mark !== undefined) return { kind: 'mark', name: mark }
  const ago = /^(\d+(?:\.\d+)?)\s*([a-z]+)\s+ago$/.exec(trimmed)
  if (ago !== null) {
    const unit = UNITS[UNIT_NAMES[ago[2] ?? ''] ?? ago[2] ?? '']
    if (unit !== undefined) return { kind: 'time', ms: now - Number(ago[1]) * unit }
  }
  const ms = parseDate(trimmed, now)
  if (ms !== undefined) return { kind: 'time', ms }
  throw new PacsimileError(
    'usage',
    `${JSON.stringify(text)} is not a moment. Use RFC 3339 (2026-11-24T09:30:00Z), local time ("2026-11-24 09:30:00"), "10m ago", mark:NAME, seq:N, or now`,
  )
}

const DATE = /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?)?\s*(Z|z|[+-]\d{2}:?\d{2})?$/
const TODAY = /^(\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?$/

function parseDate(text: string, now: number): number | undefined {
  const today = TODAY.exec(text)
  if (today !== null) {
    const date = new Date(now)
    return localTime(date.getFullYear(), date.getMonth() + 1, date.getDate(), today.slice(1, 5))
  }
  const match = DATE.exec(text)
  if (match === null) return undefined
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])]
  const zone = match[8]
  const clock = match.slice(4, 8)
  if (zone === undefined) return localTime(year, month, day, clock)
  if (match[4] === undefined) return undefined
  const [hour, minute, second, milli] = clockNumbers(clock)
  const utc = Date.UTC(year, month - 1, day, hour, minute, second, milli)
  if (!isCalendarDate(year, month, day) || hour > 23 || minute > 59 || second > 60) return undefined
  const offset = /^([+-])(\d{2}):?(\d{2})$/.exec(zone)
  if (offset === null) return utc
  const minutes = (Number(offset[2]) * 60 + Number(offset[3])) * (offset[1] === '-' ? -1 : 1)
  return utc - minutes * 60_000
}

function localTime(year: number, month: number, day: number, clock: readonly (string | undefined)[]): number | undefined {
  const [hour, minute, second, milli] = clockNumbers(clock)
  if (!isCalendarDate(year, month, day) || hour > 23 || minute > 59 || second > 60) return undefined
  return new Date(year, month - 1, day, hour, minute, second, milli).getTime()
}

function clockNumbers(clock: readonly (string | undefined)[]): [number, number, number, number] {
  return [Number(clock[0] ?? 0), Number(clock[1] ?? 0), Number(clock[2] ?? 0), Number((clock[3] ?? '0').padEnd(3, '0').slice(0, 3))]
}

function isCalendarDate(year: number, month: number, day: number): boolean {
  const date = new Date(Date.UTC(year, month - 1, day))
  return date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day
}

/** The latest hybrid time that a requested moment includes. */
export function includedUntil(ms: number): HybridTime {
  return endOfMillisecond(ms)
}

const pad = (value: number, width = 2): string => String(value).padStart(width, '0')

/** Local time with its offset, to the millisecond: `2026-11-24 09:30:00.250 +01:00`. */
export function showLocalTime(ms: number): string {
  const date = new Date(ms)
  const offset = -date.getTimezoneOffset()
  const zone = `${offset < 0 ? '-' : '+'}${pad(Math.floor(Math.abs(offset) / 60))}:${pad(Math.abs(offset) % 60)}`
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)} ${zone}`
}

/** Both: local time and UTC. */
export function showMoment(ms: number): string {
  return `${showLocalTime(ms)} (${new Date(ms).toISOString()})`
}
