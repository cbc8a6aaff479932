import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ReedSolomon } from '../../collector/repository/reed-solomon.ts'

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

describe('the Reed-Solomon code', () => {
  it('gives the parity of the vector that Backblaze published, which other implementations test by', () => {
    const data = [bytes(0, 1), bytes(4, 5), bytes(2, 3), bytes(6, 7), bytes(8, 9)]
    const parity = [bytes(12, 13), bytes(10, 11), bytes(14, 15), bytes(90, 91), bytes(94, 95)]
    expect(new ReedSolomon(5, 5).encode(data)).toEqual(parity)
  })

  it('makes the data again from any blocks that are left, if those are enough', () => {
    const stripes = fc
      .record({
        data: fc.integer({ min: 1, max: 20 }),
        parity: fc.integer({ min: 1, max: 6 }),
        length: fc.integer({ min: 0, max: 40 }),
      })
      .chain(({ data, parity, length }) =>
        fc.record({
          parity: fc.constant(parity),
          blocks: fc.array(fc.uint8Array({ minLength: length, maxLength: length }), { minLength: data, maxLength: data }),
          lost: fc.uniqueArray(fc.integer({ min: 0, max: data + parity - 1 }), { maxLength: parity + 1 }),
        }),
      )
    fc.assert(
      fc.property(stripes, ({ parity, blocks, lost }) => {
        const code = new ReedSolomon(blocks.length, parity)
        const all = [...blocks, ...code.encode(blocks)].map((block, i) => (lost.includes(i) ? undefined : block))
        expect(code.reconstruct(all)).toEqual(lost.length > parity ? undefined : blocks)
      }),
    )
  })

  it('has no stripes of more blocks than its field has elements', () => {
    expect(new ReedSolomon(254, 2).dataBlocks).toBe(254)
    expect(() => new ReedSolomon(255, 2)).toThrow(RangeError)
    expect(() => new ReedSolomon(1, 0)).toThrow(RangeError)
  })
})
