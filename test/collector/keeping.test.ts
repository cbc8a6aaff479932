import { describe, expect, it } from 'vitest'
import { type BindingRetention, Keeping, type KeepReason, Timeline } from '../../collector/keeping.ts'
import type { Hold, LedgerEntry } from '../../collector/repository/ledger-entry.ts'
import type { Retention } from '../../collector/retention.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { label, relativePath } from '../../shared/path.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const NONE: Retention = { all: 0, hourly: 0, daily: 0, monthly: 0, worm: 0 }
const START_MS = Date.UTC(2026, 0, 1)
const HOURS = 24 * 100

const at = (seq: number): { epoch: number; seq: number } => ({ epoch: 1, seq })

/** A tick each hour of a hundred days, ten records between two of them, by a clock that may be another one. */
function timeline(wallOf = (hour: number): number => START_MS + hour * HOUR_MS): Timeline {
  const entries: LedgerEntry[] = []
  for (let hour = 0; hour <= HOURS; hour++)
    entries.push({
      previous: NO_DIGEST,
      number: hour + 1,
      wallMs: wallOf(hour),
      ageMs: hour * HOUR_MS,
      body: { kind: 'tick', newestPack: 1 },
    })
  const heads = entries.slice(1).map(({ number }) => ({ number, position: at(10 * (number - 1)) }))
  return new Timeline(entries, heads, HOURS * HOUR_MS)
}

function why(
  from: number,
  until: number | undefined,
  retention: Partial<Retention>,
  more: Partial<BindingRetention> & { holds?: Hold[]; marks?: number[] } = {},
): KeepReason | undefined {
  const { holds = [], earlier = [], marks = [] } = more
  const keeping = new Keeping({
    timeline: timeline(),
    retention: { now: { ...NONE, ...retention }, earlier },
    marks: marks.map(at),
    holds,
    // A record a minute.
    timeOf: ({ seq }) => START_MS + seq * 60_000,
  })
  return keeping.why({ path: relativePath('study/1.dcm'), from: at(from), until: until === undefined ? undefined : at(until) })
}

/** A seq in the middle of the hour before so many hours ago. */
const hoursAgo = (hours: number): number => (HOURS - hours) * 10 - 5

describe('what is kept', () => {
  it('is what is there now, and everything where nothing says otherwise', () => {
    expect(why(1, undefined, {})).toBe('current')
    const keeping = new Keeping({ timeline: timeline(), retention: { now: undefined, earlier: [] }, marks: [], holds: [], timeOf: () => 0 })
    expect(keeping.why({ path: relativePath('a'), from: at(1), until: at(2) })).toBe('recent')
  })

  it('is every version for the window after its end', () => {
    expect(why(1, hoursAgo(23), { all: DAY_MS })).toBe('recent')
    expect(why(1, hoursAgo(25), { all: DAY_MS })).toBeUndefined()
    // Nothing shows that it is older than now.
    expect(why(1, HOURS * 10 + 1, {})).toBe('recent')
  })

  it('is thinned to what was there at the beginning of an hour, a day, a month', () => {
    const short = [hoursAgo(30) + 1, hoursAgo(30) + 3] as const
    const overHour = [hoursAgo(30), hoursAgo(29)] as const
    expect(why(...short, { hourly: 10 * DAY_MS })).toBeUndefined()
    expect(why(...overHour, { hourly: 10 * DAY_MS })).toBe('hourly')
    expect(why(...overHour, { hourly: DAY_MS })).toBeUndefined()
    expect(why(...overHour, { daily: 10 * DAY_MS })).toBeUndefined()
    expect(why(hoursAgo(60), hoursAgo(30), { daily: 10 * DAY_MS })).toBe('daily')
    // January ended 31 days after the beginning, 69 days ago.
    const overMonth = [31 * 240 - 5, 31 * 240 + 5] as const
    expect(why(...overMonth, { monthly: 70 * DAY_MS })).toBe('monthly')
    expect(why(...overMonth, { monthly: 60 * DAY_MS })).toBeUndefined()
    expect(why(32 * 240, 40 * 240, { monthly: 99 * DAY_MS })).toBeUndefined()
  })

  it('is what the WORM window of any retention covers that was in force', () => {
    expect(why(1, hoursAgo(24 * 9), { worm: 10 * DAY_MS })).toBe('worm')
    expect(why(1, hoursAgo(24 * 11), { worm: 10 * DAY_MS })).toBeUndefined()
    const earlier = [{ worm: 50 * DAY_MS, until: at(hoursAgo(24 * 30)) }]
    expect(why(hoursAgo(24 * 31), hoursAgo(24 * 20), {}, { earlier })).toBe('worm')
    expect(why(hoursAgo(24 * 29), hoursAgo(24 * 20), {}, { earlier })).toBeUndefined()
    expect(why(1, hoursAgo(24 * 51), {}, { earlier })).toBeUndefined()
  })

  it('is what was there at a mark', () => {
    for (const mark of [100, 199]) expect(why(100, 200, {}, { marks: [300, mark, 50] })).toBe('marked')
    expect(why(100, 200, {}, { marks: [200, 99] })).toBeUndefined()
    expect(why(100, 200, {}, { marks: [] })).toBeUndefined()
  })

  it('is what is held, by path and span', () => {
    const [agent, volume, name] = [label('pacs1', 'a'), label('images', 'v'), label('h', 'n')]
    const hold = (pattern: string, from?: number, until?: number): { holds: Hold[] } => {
      const moment = (seq: number | undefined): number | undefined => (seq === undefined ? undefined : START_MS + seq * 60_000)
      return { holds: [{ name, agent, volume, pattern, fromMs: moment(from), untilMs: moment(until) }] }
    }
    expect(why(100, 200, {}, hold('study'))).toBe('held')
    expect(why(100, 200, {}, hold('stud?/*.txt'))).toBeUndefined()
    expect(why(100, 200, {}, hold('', 150, 160))).toBe('held')
    expect(why(100, 200, {}, hold('', 50, 99))).toBeUndefined()
    expect(why(100, 200, {}, hold('', 201))).toBeUndefined()
    expect(why(100, 200, {}, hold('', undefined, 100))).toBe('held')
  })
})

describe('a clock that is wrong', () => {
  it('makes nothing older than the time that has passed', () => {
    const jump = (hour: number): number => START_MS + hour * HOUR_MS + (hour > 2000 ? 10 * 365 * DAY_MS : 0)
    const keeping = new Keeping({
      timeline: timeline(jump),
      retention: { now: { ...NONE, all: DAY_MS, daily: 90 * DAY_MS }, earlier: [] },
      marks: [],
      holds: [],
      timeOf: () => undefined,
    })
    const life = (from: number, until: number): KeepReason | undefined =>
      keeping.why({ path: relativePath('a'), from: at(from), until: at(until) })
    expect(life(1, hoursAgo(23))).toBe('recent')
    expect(life(hoursAgo(60), hoursAgo(30))).toBe('daily')
    expect(life(hoursAgo(24 * 80), hoursAgo(24 * 78))).toBe('daily')
  })
})
