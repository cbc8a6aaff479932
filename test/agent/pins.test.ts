import { describe, expect, it } from 'vitest'
import { type Pin, Pins } from '../../agent/pins.ts'
import type { Due } from '../../agent/settle-entry.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

function pin(name: string, released: string[] = [], id = name): Pin {
  return { volume: VOLUME, path: path(name), fd: 0, writer: undefined, attempts: 0, busy: 0, release: () => void released.push(id) }
}

function look(name: string): Due {
  return {
    volume: VOLUME,
    path: path(name),
    origin: 'event',
    isUrgent: false,
    asIs: false,
    isDeep: false,
    retries: 0,
    waitedFor: undefined,
    writer: undefined,
  }
}

describe('versions that are held open', () => {
  it('are given in their order, one of each path at a time', () => {
    const pins = new Pins()
    const all = [pin('f'), pin('f'), pin('g'), pin('f')]
    for (const one of all) pins.add(one)
    expect(pins.take(10)).toEqual([all[0], all[2]])
    expect(pins.take(10)).toEqual([])
    pins.finished(all[0] as Pin)
    expect(pins.take(10)).toEqual([all[1]])
    pins.finished(all[1] as Pin)
    expect(pins.take(10)).toEqual([all[3]])
  })

  it('come again before the others of their path', () => {
    const pins = new Pins()
    const [first, second] = [pin('f'), pin('f')]
    pins.add(first)
    pins.add(second)
    pins.take(1)
    pins.again(first)
    expect(pins.take(10)).toEqual([first])
  })

  it('concern their path and every directory above it, until they are done and released', () => {
    const released: string[] = []
    const pins = new Pins()
    const one = pin('a/b/f', released)
    pins.add(one)
    for (const name of ['a/b/f', 'a/b', 'a', '']) expect(pins.concerns({ volume: VOLUME, path: path(name) })).toBe(true)
    for (const name of ['a/b/g', 'a/bc', 'a/b/f/x']) expect(pins.concerns({ volume: VOLUME, path: path(name) })).toBe(false)
    pins.take(1)
    expect(pins.concerns({ volume: VOLUME, path: path('a') })).toBe(true)
    pins.finished(one)
    expect(pins.concerns({ volume: VOLUME, path: path('a') })).toBe(false)
    expect(released).toEqual(['a/b/f'])
  })

  it('have looks at their path wait for them, behind the last of them', () => {
    const pins = new Pins()
    const [first, last, other] = [pin('f'), pin('f'), pin('g')]
    for (const one of [first, last, other]) pins.add(one)
    pins.take(1)
    expect(pins.putBehind(look('f'))).toBe(true)
    expect(pins.putBehind(look('h'))).toBe(false)
    expect([first, last, other].map((one) => pins.isFollowed(one))).toEqual([false, true, false])
    pins.finished(first)
    expect(pins.takeFreed()).toEqual([])
    pins.take(1)
    pins.again(last)
    pins.take(1)
    pins.finished(last)
    expect(pins.takeFreed()).toEqual([look('f')])
    expect(pins.takeFreed()).toEqual([])
  })

  it('keep the looks that wait for them when their directory has another name, and free them when they are abandoned', () => {
    const pins = new Pins()
    const one = pin('a/f')
    pins.add(one)
    pins.putBehind(look('a/f'))
    pins.renamed(VOLUME, path('a'), path('b'))
    // What waits is a look at another path.
    expect(pins.isFollowed(one)).toBe(false)
    pins.putBehind(look('b/f'))
    expect(pins.isFollowed(one)).toBe(true)
    pins.abandon(VOLUME)
    expect(pins.takeFreed()).toEqual([look('a/f'), look('b/f')])
  })

  it('move with the directories above them', () => {
    const pins = new Pins()
    const one = pin('a/b/f')
    pins.add(one)
    pins.renamed(VOLUME, path('a'), path('x/y'))
    expect(one.path).toBe('x/y/b/f')
  })

  it('are settled when those that were there are done, though others came', async () => {
    const pins = new Pins()
    const [old, young] = [pin('f'), pin('g')]
    pins.add(old)
    let isSettled = false
    const settled = (async () => {
      await pins.settled(VOLUME, new AbortController().signal)
      isSettled = true
    })()
    pins.add(young)
    expect(pins.take(10)).toEqual([old, young])
    pins.finished(young)
    await Promise.resolve()
    expect(isSettled).toBe(false)
    pins.finished(old)
    await settled
  })

  it('are let go when their volume is', () => {
    const released: string[] = []
    const pins = new Pins()
    pins.add(pin('f', released))
    pins.abandon(VOLUME)
    expect(released).toEqual(['f'])
    expect(pins.size).toBe(0)
  })
})
