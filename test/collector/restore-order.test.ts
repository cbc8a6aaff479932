import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesOf, portionsOf } from '../../collector/restore-order.ts'
import { NO_DIGEST } from '../../shared/digest.ts'

const MiB = 1 << 20

describe('the portions in which content is brought', () => {
  it('are all of it, in order, and bounded', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 16 * MiB }), { maxLength: 40 }), (lengths) => {
        const refs = lengths.map((length) => ({ digest: NO_DIGEST, length }))
        const portions = portionsOf(refs)
        expect(portions.flat()).toEqual(refs)
        for (const portion of portions) {
          expect(portion.length).toBeGreaterThan(0)
          expect(bytesOf(portion)).toBeLessThanOrEqual(32 * MiB)
        }
        // No two neighbours would fit into one.
        for (const [i, portion] of portions.entries())
          expect(i === 0 || bytesOf(portion) + bytesOf(portions[i - 1] ?? []) > 32 * MiB).toBe(true)
      }),
    )
  })
})
