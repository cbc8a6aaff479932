import { describe, expect, it } from 'vitest'
import { HybridClock, hybridTime, millisecondsOf, startOfMillisecond } from '../../shared/clock.ts'

describe('times that belong together', () => {
  const clock = new HybridClock({ now: () => 1000 })

  it('are of one millisecond, rising, and after all before them', () => {
    let last = clock.tick()
    for (const count of [1, 2, 1000, 60_000, 30_000, 65_536, 1]) {
      const times = clock.ticks(count)
      expect(times).toHaveLength(count)
      expect(new Set(times.map(millisecondsOf)).size).toBe(1)
      for (const time of times) {
        expect(time > last).toBe(true)
        last = time
      }
      expect(clock.last).toBe(last)
    }
    expect(clock.tick()).toBe(hybridTime(last + 1n))
  })

  it('are none where none are asked for', () => {
    expect(new HybridClock({ now: () => 5 }).ticks(0)).toEqual([])
    expect(startOfMillisecond(5)).toBe(hybridTime(5n << 16n))
  })
})
