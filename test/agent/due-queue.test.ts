import fc from 'fast-check'
import { expect, it } from 'vitest'
import { DueQueue } from '../../agent/due-queue.ts'

it('gives what was pushed by time, and by arrival among equal times', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9 })), (times) => {
      const queue = new DueQueue<number>()
      for (const [item, dueMs] of times.entries()) queue.push(item, dueMs)
      const given = times.map(() => queue.pop())
      const expected = times.map((dueMs, item) => ({ item, dueMs })).toSorted((a, b) => a.dueMs - b.dueMs)
      expect(given.map((slot) => ({ item: slot?.item, dueMs: slot?.dueMs }))).toEqual(expected)
      expect(queue.pop()).toBeUndefined()
    }),
  )
})
