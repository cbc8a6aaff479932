import { describe, expect, it } from 'vitest'
import { type Rescan, Rescans } from '../../agent/rescans.ts'
import { path } from '../support/agent-parts.ts'

function deep(name: string): Rescan {
  return { path: path(name), isShallow: false }
}

/** What is still to be scanned, one after the other. */
function waiting(rescans: Rescans): string[] {
  const paths: string[] = []
  for (let next = rescans.take(); next !== undefined; next = rescans.take()) paths.push(next.path)
  return paths
}

describe('subtrees that are to be scanned', () => {
  it('are scanned with one that holds them', () => {
    const rescans = new Rescans()
    rescans.add(deep('a/b'))
    rescans.add(deep('a'))
    rescans.add(deep('a/c'))
    expect(waiting(rescans)).toEqual(['a'])
  })

  it('are scanned where they are when they are moved', () => {
    const rescans = new Rescans()
    rescans.add(deep('a/b'))
    rescans.renamed(path('a'), path('c'))
    expect(waiting(rescans)).toContain('c/b')
  })

  it('are scanned where they are when they are moved out of one that holds them', () => {
    const rescans = new Rescans()
    rescans.add(deep('a'))
    rescans.add(deep('a/b/c'))
    rescans.renamed(path('a/b'), path('d'))
    expect(waiting(rescans)).toEqual(['a', 'd'])
  })

  it('are scanned again when they are moved while one that holds them is scanned', () => {
    const rescans = new Rescans()
    rescans.add(deep('a'))
    rescans.take()
    rescans.renamed(path('a/b'), path('a/c'))
    expect(waiting(rescans)).toEqual(['a/c'])
  })

  it('are not scanned twice when they are moved within one that holds them', () => {
    const rescans = new Rescans()
    rescans.add(deep('a'))
    rescans.renamed(path('a/b'), path('a/c'))
    expect(waiting(rescans)).toEqual(['a'])
  })

  it('are scanned where they are when they are moved out of one of which it is still to be seen', () => {
    const rescans = new Rescans()
    const announced = rescans.announce(path('a/b'))
    rescans.renamed(path('a/b/c'), path('d'))
    expect(waiting(rescans)).toEqual(['d'])
    rescans.renamed(path('a'), path('e'))
    expect(announced.path).toBe('e/b')
    expect(rescans.isAnnounced(path('e/b/f'))).toBe(true)
    rescans.decided(announced)
    expect(rescans.isAnnounced(path('e/b/f'))).toBe(false)
  })

  it('keep others waiting while it is found out whether one is to be scanned', () => {
    const rescans = new Rescans()
    const announced = rescans.announce(path('a'))
    expect(rescans.isBusy).toBe(false)
    announced.isLooked = true
    expect(rescans.isBusy).toBe(true)
    rescans.decided(announced)
    expect(rescans.isBusy).toBe(false)
  })

  it('do not grow by what was moved out of a directory of which only the names are compared', () => {
    const rescans = new Rescans()
    rescans.add({ path: path('a'), isShallow: true })
    rescans.renamed(path('a/b'), path('c'))
    expect(waiting(rescans)).toEqual(['a'])
  })
})
