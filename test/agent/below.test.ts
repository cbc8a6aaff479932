import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Below } from '../../agent/below.ts'
import { isWithin } from '../../shared/path.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

const place = (name: string) => ({ volume: VOLUME, path: path(name) })

describe('what lies below a place', () => {
  const names = fc.array(fc.constantFrom('a', 'b', 'ab'), { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))

  it('is what a look at everything finds, whatever came and went', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ isThere: fc.boolean(), name: names }), { maxLength: 60 }), names, (steps, asked) => {
        const below = new Below<string>()
        const there = new Set<string>()
        for (const { isThere, name } of steps) {
          if (isThere) below.add(place(name), name)
          else below.delete(place(name), name)
          if (isThere) there.add(name)
          else there.delete(name)
        }
        for (const from of [asked, '']) {
          const expected = [...there].filter((name) => name !== from && isWithin(path(name), path(from))).sort()
          expect([...below.of(place(from))].sort()).toEqual(expected)
          expect(below.has(place(from))).toBe(expected.length > 0)
        }
      }),
    )
  })

  it('is never a volume itself, nor anything of another volume', () => {
    const below = new Below<string>()
    below.add(place(''), 'the root')
    below.add(place('a/b'), 'b')
    expect([...below.of(place(''))]).toEqual(['b'])
    expect(below.has({ ...place('a'), volume: path('other') as never })).toBe(false)
  })
})
