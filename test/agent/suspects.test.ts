import { describe, expect, it } from 'vitest'
import { Suspects } from '../../agent/suspects.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

const place = (name: string) => ({ volume: VOLUME, path: path(name) })

describe('a path that a scan found changed', () => {
  it('was told of where it or a directory above it was told of', () => {
    const suspects = new Suspects()
    const [a, b, c] = [suspects.add(place('a')), suspects.add(place('b/x')), suspects.add(place('c'))]
    suspects.told(place('a'))
    suspects.toldWithin(VOLUME, path('b'))
    expect([a, b, c].map(({ isTold }) => isTold)).toEqual([true, true, false])
  })

  it('was told of where nobody knows any more what was told, until scans have found all of it', () => {
    const suspects = new Suspects()
    const before = suspects.add(place('a'))
    const [one, other] = [suspects.allTold(), suspects.allTold()]
    expect(before.isTold).toBe(true)
    one()
    expect(suspects.add(place('b')).isTold).toBe(true)
    other()
    expect(suspects.add(place('c')).isTold).toBe(false)
  })
})
