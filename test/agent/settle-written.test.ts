/** Files that are written and stay open: when settle says that they are due, and before what. */
import { describe, expect, it } from 'vitest'
import { Settle } from '../../agent/settle.ts'
import { label, relativePath } from '../../shared/path.ts'

const VOLUME = label('images', 'volume')
const place = (path: string) => ({ volume: VOLUME, path: relativePath(path) })
const noScan = (): void => {
  throw new Error('nothing was to be left to a scan')
}

describe('a file that is being written', () => {
  it('is left alone until there is quiet, and looked at once when it is closed', () => {
    const settle = new Settle(noScan)
    settle.changed(place('a'), 0, { isOpen: true })
    expect(settle.take(249, 1, 'all')).toEqual([])
    settle.changed(place('a'), 200, { isOpen: true })
    expect(settle.take(449, 1, 'all')).toEqual([])
    settle.changed(place('a'), 440)
    expect(settle.take(440, 1, 'all')).toHaveLength(1)
  })

  it('is captured within a second although it is written without a pause', () => {
    const settle = new Settle(noScan)
    for (let atMs = 0; atMs <= 950; atMs += 50) settle.changed(place('a'), atMs, { isOpen: true })
    expect(settle.take(999, 1, 'all')).toEqual([])
    expect(settle.take(1000, 1, 'all')).toHaveLength(1)
  })

  it('comes before what came to be due earlier', () => {
    const settle = new Settle(noScan)
    settle.changed(place('open'), 0, { isOpen: true })
    settle.changed(place('closed'), 1)
    expect(settle.take(250, 1, 'all')).toMatchObject([{ path: 'open' }])
    settle.finished(place('open'), { kind: 'busy', isWritten: true }, 250)
    settle.changed(place('another'), 251)
    expect(settle.take(255, 1, 'all')).toMatchObject([{ path: 'open' }])
  })

  it('comes before all that came before it, also when it is new', () => {
    const settle = new Settle(noScan)
    settle.changed(place('earlier'), 0)
    settle.changed(place('new'), 1)
    settle.changed(place('new'), 250, { isOpen: true })
    expect(settle.take(250, 1, 'written')).toEqual([])
    settle.changed(place('new'), 251, { isOpen: true })
    expect(settle.nextMs('pressing')).toBe(501)
    expect(settle.take(501, 2, 'written')).toMatchObject([{ path: 'new' }])
    expect(settle.take(501, 2, 'all')).toMatchObject([{ path: 'earlier' }])
  })
})
