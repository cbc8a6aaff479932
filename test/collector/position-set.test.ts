import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PositionSet } from '../../collector/position-set.ts'
import { comparePositions, type Position } from '../../shared/record.ts'

const position = fc.record({
  epoch: fc.integer({ min: 1, max: 3 }),
  seq: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 32_700, max: 32_800 }), fc.maxSafeNat()),
})

function setOf(positions: readonly Position[]): PositionSet {
  const set = new PositionSet()
  for (const each of positions) set.add(each)
  return set
}

describe('a set of positions', () => {
  it('gives what was added once, rising', () => {
    fc.assert(
      fc.property(fc.array(position), (added) => {
        const unique = [...new Map(added.map((each) => [`${each.epoch}:${each.seq}`, each])).values()]
        expect([...setOf([...added, ...added])]).toEqual(unique.sort(comparePositions))
      }),
    )
  })

  it('has what was added and nothing else', () => {
    fc.assert(
      fc.property(fc.array(position), position, (added, other) => {
        const set = setOf(added)
        expect(added.every((each) => set.has(each))).toBe(true)
        expect(set.has(other)).toBe(added.some((each) => comparePositions(each, other) === 0))
      }),
    )
  })

  it('gives it in groups that are full, but for the last one', () => {
    const set = setOf([4, 1, 3, 5, 2].map((seq) => ({ epoch: 1, seq })))
    expect([...set.groups(2)].map((group) => group.map(({ seq }) => seq))).toEqual([[1, 2], [3, 4], [5]])
    expect([...new PositionSet().groups(2)]).toEqual([])
  })
})
