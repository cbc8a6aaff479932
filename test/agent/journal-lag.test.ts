import { describe, expect, it } from 'vitest'
import { JournalLag } from '../../agent/journal-lag.ts'

const NOW_MS = 1_800_000_000_000
const agoNs = (ms: number): bigint => BigInt(NOW_MS) * 1_000_000n - BigInt(Math.round(ms * 1e6))

describe('the lag of the journal', () => {
  it('is not known before the first change', () => {
    expect(new JournalLag().summary).toBeUndefined()
  })

  it('is told as median, 99 % and the worst', () => {
    const lag = new JournalLag()
    for (let ms = 100; ms >= 1; ms--) lag.note(agoNs(ms), NOW_MS)
    expect(lag.summary).toEqual({ changes: 100, p50Ms: 51, p99Ms: 100, maxMs: 100 })
  })

  it('is of the last thousand changes', () => {
    const lag = new JournalLag()
    for (let i = 0; i < 1500; i++) lag.note(agoNs(i < 600 ? 5000 : 2.5), NOW_MS)
    expect(lag.summary).toEqual({ changes: 1000, p50Ms: 2.5, p99Ms: 5000, maxMs: 5000 })
    for (let i = 0; i < 100; i++) lag.note(agoNs(2.5), NOW_MS)
    expect(lag.summary).toEqual({ changes: 1000, p50Ms: 2.5, p99Ms: 2.5, maxMs: 2.5 })
  })

  it('is not negative where the clock was set back', () => {
    const lag = new JournalLag()
    lag.note(agoNs(-60_000), NOW_MS)
    expect(lag.summary).toMatchObject({ maxMs: 0 })
  })
})
