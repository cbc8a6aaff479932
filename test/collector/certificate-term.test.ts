import { describe, expect, it } from 'vitest'
import { termState } from '../../collector/certificate-term.ts'

const DAY_MS = 24 * 3_600_000

describe('a certificate of so many days', () => {
  it.each([
    [90, 0, 'good'],
    [90, 59, 'good'],
    [90, 60, 'ending'],
    [90, 89, 'ending'],
    [90, 90, 'expired'],
    [90, 400, 'expired'],
    // Of a long life no more than the last 30 days.
    [365, 334, 'good'],
    [365, 335, 'ending'],
    [6, 3, 'good'],
    [6, 4, 'ending'],
  ])('%i is after %i %s', (days, after, state) => {
    expect(termState({ fromMs: 0, untilMs: days * DAY_MS }, after * DAY_MS)).toBe(state)
  })
})
