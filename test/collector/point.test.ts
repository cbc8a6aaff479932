import { describe, expect, it } from 'vitest'
import { parsePoint, showMoment } from '../../collector/point.ts'

const NOW = Date.UTC(2026, 10, 24, 12, 0, 0)
const local = (...parts: [number, number, number, number?, number?, number?, number?]): number => {
  const [year, month, ...rest] = parts
  return new Date(year, month - 1, ...rest).getTime()
}

describe('a moment', () => {
  it.each([
    ['2026-11-24T09:30:00Z', Date.UTC(2026, 10, 24, 9, 30)],
    ['2026-11-24T09:30:00.250Z', Date.UTC(2026, 10, 24, 9, 30, 0, 250)],
    ['2026-11-24T09:30:00.123456789Z', Date.UTC(2026, 10, 24, 9, 30, 0, 123)],
    ['2026-11-24T09:30:00+02:00', Date.UTC(2026, 10, 24, 7, 30)],
    ['2026-11-24 09:30:00-0530', Date.UTC(2026, 10, 24, 15, 0)],
    ['2026-11-24 09:30:15', local(2026, 11, 24, 9, 30, 15)],
    ['2026-11-24 09:30', local(2026, 11, 24, 9, 30)],
    ['2026-11-24T09:30:00.5', local(2026, 11, 24, 9, 30, 0, 500)],
    ['2026-11-24', local(2026, 11, 24)],
    ['10m ago', NOW - 600_000],
    ['1.5h ago', NOW - 5_400_000],
    ['2 days ago', NOW - 2 * 86_400_000],
    ['90 seconds ago', NOW - 90_000],
  ])('%s is understood', (text, ms) => {
    expect(parsePoint(text, NOW)).toEqual({ kind: 'time', ms })
  })

  it('may be a mark', () => {
    expect(parsePoint('mark:before-upgrade')).toEqual({ kind: 'mark', name: 'before-upgrade' })
  })

  it('may be a seq, with its epoch or without, or the head', () => {
    expect(parsePoint('seq:12')).toEqual({ kind: 'seq', epoch: undefined, seq: 12 })
    expect(parsePoint('seq:2:12')).toEqual({ kind: 'seq', epoch: 2, seq: 12 })
    expect(parsePoint(' now ')).toEqual({ kind: 'head' })
  })

  it.each([
    'yesterday',
    '',
    '10 parsecs ago',
    '2026-02-30T00:00:00Z',
    '2026-13-01',
    '2026-11-24T25:00:00Z',
    '2026-11-24Z',
    'seq:',
    'seq:-1',
    '24.11.2026',
  ])('%j is refused, not guessed', (text) => {
    expect(() => parsePoint(text, NOW)).toThrow('is not a moment')
  })

  it('is shown in local time and UTC', () => {
    expect(showMoment(Date.UTC(2026, 10, 24, 9, 30, 0, 7))).toMatch(
      /^2026-11-2\d \d\d:\d\d:\d\d\.007 [+-]\d\d:\d\d \(2026-11-24T09:30:00\.007Z\)$/,
    )
  })
})
