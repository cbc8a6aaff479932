import { describe, expect, it } from 'vitest'
import { Renames } from '../../agent/renames.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

const place = (name: string) => ({ volume: VOLUME, path: path(name) })

describe('renames of which an event told', () => {
  it('concern what lies at, below and above the old name', () => {
    const renames = new Renames()
    renames.add(VOLUME, path('a/b'), path('c'))
    for (const name of ['a/b', 'a/b/x', 'a', '']) expect(renames.concerns(place(name))).toBe(true)
    for (const name of ['a/bc', 'c', 'c/x', 'b']) expect(renames.concerns(place(name))).toBe(false)
  })

  it('hold back what lies below the new name, but not the new name itself', () => {
    const renames = new Renames()
    renames.add(VOLUME, path('a'), path('c/d'))
    expect(renames.isBelowTarget(place('c/d/x'))).toBe(true)
    expect(renames.isBelowTarget(place('c/d'))).toBe(false)
    expect(renames.isBelowTarget(place('c'))).toBe(false)
  })

  it('are one where a directory is renamed twice', () => {
    const renames = new Renames()
    renames.add(VOLUME, path('a'), path('b'))
    const both = renames.add(VOLUME, path('b'), path('c'))
    expect(both).toMatchObject({ from: 'a', to: 'c' })
    expect(renames.to(place('b'))).toBeUndefined()
    expect(renames.to(place('c'))).toBe(both)
  })

  it('follow a directory above them that was renamed', () => {
    const renames = new Renames()
    const above = renames.add(VOLUME, path('p'), path('q'))
    const below = renames.add(VOLUME, path('p/a'), path('p/b'))
    renames.recorded(VOLUME, path('p'), path('q'))
    expect(above.isRecorded).toBe(true)
    expect(below).toMatchObject({ from: 'q/a', to: 'q/b', isRecorded: false })
  })

  it('are doubted where something at or below their old name is taken as gone, also after another rename', () => {
    const renames = new Renames()
    const [one, other] = [renames.add(VOLUME, path('a'), path('b')), renames.add(VOLUME, path('c/d'), path('e'))]
    renames.doubt(place('a/x/y'))
    expect([one.isDoubted, other.isDoubted]).toEqual([true, false])
    renames.doubt(place('c'))
    expect(other.isDoubted).toBe(false)
    renames.doubt(place('c/d'))
    expect(other.isDoubted).toBe(true)
    expect(renames.add(VOLUME, path('b'), path('f'))).toMatchObject({ from: 'a', isDoubted: true })
  })

  it('are doubted where something was moved into the directory under a name that it had only between two', () => {
    const renames = new Renames()
    renames.add(VOLUME, path('a'), path('between'))
    const into = renames.add(VOLUME, path('x'), path('between/y/x'))
    expect(renames.add(VOLUME, path('between'), path('c'))).toMatchObject({ from: 'a', to: 'c', isDoubted: true })
    expect(into.isDoubted).toBe(false)
    renames.add(VOLUME, path('d'), path('e'))
    renames.add(VOLUME, path('z'), path('elsewhere/e'))
    expect(renames.add(VOLUME, path('e'), path('f'))).toMatchObject({ from: 'd', isDoubted: false })
  })

  it('are forgotten when they are dealt with, or their volume is lost', () => {
    const renames = new Renames()
    const one = renames.add(VOLUME, path('a'), path('b'))
    renames.add(VOLUME, path('c'), path('d'))
    renames.remove(one)
    expect(renames.has(VOLUME)).toBe(true)
    renames.abandon(VOLUME)
    expect(renames.has(VOLUME)).toBe(false)
  })
})
