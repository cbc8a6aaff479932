import { describe, expect, it } from 'vitest'
import { Settle } from '../../agent/settle.ts'
import type { Settled, Ticket } from '../../agent/settle-entry.ts'
import { label, relativePath } from '../../shared/path.ts'

const VOLUME = label('images', 'volume')
const place = (path: string) => ({ volume: VOLUME, path: relativePath(path) })
const PATHS_MAX = 100
const noScan = (): void => {
  throw new Error('nothing was to be left to a scan')
}

/** Something that happens at a time, or a look that is expected then. */
type Step =
  | readonly [atMs: number, event: 'changed' | 'children' | 'found' | 'rescan', path: string]
  | readonly [atMs: number, look: 'look' | 'look as is', path: string]
  | readonly [atMs: number, look: 'nothing']
  | readonly [atMs: number, ended: Settled, path: string]

function play(steps: readonly Step[]): void {
  const settle = new Settle(noScan)
  for (const [atMs, what, path = ''] of steps) {
    if (typeof what === 'object') {
      settle.finished(place(path), what, atMs)
      continue
    }
    switch (what) {
      case 'changed':
        settle.changed(place(path), atMs)
        break
      case 'children':
        settle.childrenChanged(place(path), atMs)
        break
      case 'found':
        settle.found(place(path), 'scan', { answered() {} }, atMs)
        break
      case 'rescan':
        settle.found(place(path), 'event', { answered() {} }, atMs)
        break
      case 'nothing':
        expect(settle.take(atMs, 1, 'all'), `at ${atMs}`).toEqual([])
        break
      case 'look':
      case 'look as is':
        expect(settle.take(atMs, 1, 'all'), `at ${atMs}`).toMatchObject([{ path, asIs: what === 'look as is' }])
    }
  }
}

const CAPTURED: Settled = { kind: 'captured' }
const BUSY: Settled = { kind: 'busy' }
const DONE: Settled = { kind: 'done' }
const OPEN: Settled = { kind: 'captured-open', durationMs: 100 }
const STILL_OPEN: Settled = { kind: 'still-open' }

const TABLE: Record<string, readonly Step[]> = {
  'looks at once at what changed': [
    [0, 'nothing'],
    [10, 'changed', 'a'],
    [10, 'look', 'a'],
    [10, 'nothing'],
  ],
  'looks once at what changed often': [
    [0, 'changed', 'a'],
    [1, 'changed', 'a'],
    [2, 'look', 'a'],
    [3, DONE, 'a'],
    [1000, 'nothing'],
  ],
  'looks again at what changed during the look': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [1, 'changed', 'a'],
    [1, 'nothing'],
    [2, DONE, 'a'],
    [2, 'look', 'a'],
  ],
  'makes sure of a capture after 150 ms, once': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [5, CAPTURED, 'a'],
    [154, 'nothing'],
    [155, 'look', 'a'],
    [156, DONE, 'a'],
    [9999, 'nothing'],
  ],
  'does not look twice at what a scan found': [
    [0, 'found', 'a'],
    [0, 'look', 'a'],
    [5, CAPTURED, 'a'],
    [9999, 'nothing'],
  ],
  'repeats a look at a busy file after 5, 10, 20 ms': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [0, BUSY, 'a'],
    [4, 'nothing'],
    [5, 'look', 'a'],
    [5, BUSY, 'a'],
    [14, 'nothing'],
    [15, 'look', 'a'],
    [15, BUSY, 'a'],
    [34, 'nothing'],
    [35, 'look', 'a'],
  ],
  'looks soon at a busy file of which an event comes': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [0, BUSY, 'a'],
    [5, 'look', 'a'],
    [5, BUSY, 'a'],
    [15, 'look', 'a'],
    [15, BUSY, 'a'],
    [16, 'changed', 'a'],
    [20, 'nothing'],
    [21, 'look', 'a'],
  ],
  'takes a busy file as it is after 250 ms of quiet': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [0, BUSY, 'a'],
    [5, 'look', 'a'],
    [5, BUSY, 'a'],
    [240, 'look', 'a'],
    [240, BUSY, 'a'],
    [249, 'nothing'],
    [250, 'look as is', 'a'],
  ],
  'takes a file that is written without a pause as it is after 1 s': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [1, 'changed', 'a'],
    [1, BUSY, 'a'],
    [900, 'changed', 'a'],
    [905, 'look', 'a'],
    [906, 'changed', 'a'],
    [906, BUSY, 'a'],
    [990, 'changed', 'a'],
    [995, 'look', 'a'],
    [995, BUSY, 'a'],
    [999, 'nothing'],
    [1000, 'look as is', 'a'],
  ],
  'captures an open file no more often than every fourth part of the time': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [0, BUSY, 'a'],
    [300, 'look as is', 'a'],
    [400, OPEN, 'a'],
    [401, 'changed', 'a'],
    [401, 'look', 'a'],
    [401, BUSY, 'a'],
    [700, 'look', 'a'],
    [700, BUSY, 'a'],
    [799, 'look', 'a'],
    [799, BUSY, 'a'],
    [800, 'look as is', 'a'],
  ],
  'hopes to find an open file closed after 1 s, 2 s, 4 s': [
    [0, 'changed', 'a'],
    [0, 'look', 'a'],
    [0, OPEN, 'a'],
    [999, 'nothing'],
    [1000, 'look', 'a'],
    [1000, STILL_OPEN, 'a'],
    [2999, 'nothing'],
    [3000, 'look', 'a'],
    [3000, STILL_OPEN, 'a'],
    [7000, 'look', 'a'],
    [7000, CAPTURED, 'a'],
  ],
  'waits with a directory for 100 ms of quiet among its children': [
    [0, 'children', 'd'],
    [60, 'children', 'd'],
    [100, 'nothing'],
    [159, 'nothing'],
    [160, 'look', 'd'],
  ],
  'waits with a directory for 500 ms at most': [
    ...[0, 90, 180, 270, 360, 450].map((atMs): Step => [atMs, 'children', 'd']),
    [499, 'nothing'],
    [500, 'look', 'd'],
  ],
  'does not wait with a directory that itself changed': [
    [0, 'changed', 'd'],
    [0, 'children', 'd'],
    [0, 'look', 'd'],
  ],
  'waits with a directory whose children changed during the look': [
    [0, 'changed', 'd'],
    [0, 'look', 'd'],
    [1, 'children', 'd'],
    [2, DONE, 'd'],
    [101, 'nothing'],
    [102, 'look', 'd'],
  ],
  'prefers events to what a scan found': [
    [0, 'found', 'old'],
    [1, 'changed', 'new'],
    [1, 'look', 'new'],
    [1, 'look', 'old'],
  ],
  'looks once at what both a scan and an event told of': [
    [0, 'found', 'a'],
    [1, 'changed', 'a'],
    [1, 'look', 'a'],
    [1, DONE, 'a'],
    [9999, 'nothing'],
  ],
}

describe('settle', () => {
  it.each(Object.entries(TABLE))('%s', (_, steps) => play(steps))

  it('withholds what scans found while there is no room for it', () => {
    const settle = new Settle(noScan)
    settle.found(place('a'), 'scan', { answered() {} }, 0)
    expect(settle.take(0, 10, 'events')).toEqual([])
    expect(settle.take(0, 10, 'all')).toHaveLength(1)
  })

  it('answers a ticket by a look that began after it was given', () => {
    const settle = new Settle(noScan)
    const ticket: Ticket = { answered() {} }
    settle.changed(place('a'), 0)
    settle.take(0, 1, 'all')
    settle.found(place('a'), 'scan', ticket, 1)
    expect(settle.finished(place('a'), DONE, 2)).toEqual([])
    settle.take(2, 1, 'all')
    expect(settle.finished(place('a'), BUSY, 2)).toEqual([])
    settle.take(7, 1, 'all')
    expect(settle.finished(place('a'), CAPTURED, 8)).toEqual([ticket])
  })

  describe('when there is no room for another path of a volume', () => {
    const full = () => {
      const scans: string[] = []
      const settle = new Settle((volume) => void scans.push(volume), PATHS_MAX)
      for (let i = 1; i < PATHS_MAX; i++) settle.changed(place(`f${i}`), 0)
      settle.changed(place('d/f'), 0)
      expect(scans).toEqual([])
      expect(settle.size).toBe(PATHS_MAX)
      return { settle, scans }
    }

    it.each<[string, (settle: Settle) => void]>([
      ['an event', (settle) => settle.changed(place('one-more'), 1)],
      ['an entry of a directory', (settle) => settle.childrenChanged(place('one-more'), 1)],
      ['the rename of a directory', (settle) => settle.renamed(VOLUME, relativePath('d'), relativePath('e'), 1)],
    ])('leaves all that wait to a scan, where %s brought it', (_, bring) => {
      const { settle, scans } = full()
      bring(settle)
      expect(scans).toEqual([VOLUME])
      expect(settle.size).toBe(0)
      bring(settle)
      expect(scans).toEqual([VOLUME])
    })

    it('keeps what is looked at and what somebody waits for, and has room for as many again', () => {
      const { settle, scans } = full()
      settle.take(0, 1, 'all')
      settle.expectAll(VOLUME, { answered() {} })
      settle.changed(place('one-more'), 1)
      expect(settle.size).toBe(PATHS_MAX)
      for (let i = 0; i < PATHS_MAX; i++) settle.changed(place(`g${i}`), 1)
      expect(scans).toEqual([VOLUME])
      settle.changed(place('one-more'), 1)
      expect(scans).toEqual([VOLUME, VOLUME])
      expect(settle.size).toBe(PATHS_MAX)
    })
  })

  it('looks no second time where the watcher loses nothing', () => {
    const settle = new Settle(noScan)
    settle.changed(place('a'), 0, { isSure: true })
    settle.take(0, 1, 'all')
    settle.finished(place('a'), CAPTURED, 1)
    expect(settle.size).toBe(0)
  })

  it('takes first what others wait for, also after it was busy', () => {
    const settle = new Settle(noScan)
    settle.changed(place('a'), 0)
    settle.found(place('d'), 'event', { answered() {} }, 1, { isUrgent: true })
    expect(settle.take(1, 1, 'all')).toMatchObject([{ path: 'd' }])
    settle.finished(place('d'), BUSY, 1)
    expect(settle.take(5, 1, 'all')).toMatchObject([{ path: 'a' }])
    settle.changed(place('b'), 2)
    expect(settle.take(6, 1, 'all')).toMatchObject([{ path: 'd' }])
  })

  it('loses no path whose turn came while it was looked at for others', () => {
    const settle = new Settle(noScan)
    settle.changed(place('d'), 0)
    settle.found(place('d'), 'event', { answered() {} }, 0, { isUrgent: true })
    settle.take(0, 1, 'all')
    // Its place in the queue comes up now, and is passed over.
    expect(settle.take(0, 1, 'all')).toEqual([])
    settle.changed(place('d'), 1)
    settle.finished(place('d'), CAPTURED, 2)
    expect(settle.take(2, 1, 'all')).toMatchObject([{ path: 'd' }])
  })

  it('lets what is held back rest until it is released', () => {
    const settle = new Settle(noScan)
    settle.changed(place('a'), 0)
    settle.take(0, 1, 'all')
    settle.finished(place('a'), { kind: 'held' }, 1)
    expect(settle.heldSize).toBe(1)
    expect(settle.take(100_000, 1, 'all')).toEqual([])
    settle.release(100_000)
    expect(settle.take(100_005, 1, 'all')).toHaveLength(1)
  })

  it('does not let rest what others wait for', () => {
    const settle = new Settle(noScan)
    settle.found(place('d'), 'event', { answered() {} }, 0, { isUrgent: true })
    settle.take(0, 1, 'all')
    settle.finished(place('d'), { kind: 'held' }, 1)
    expect(settle.take(6, 1, 'all')).toHaveLength(1)
    const resting = new Settle(noScan)
    resting.changed(place('d'), 0)
    resting.take(0, 1, 'all')
    resting.finished(place('d'), { kind: 'held' }, 1)
    resting.found(place('d'), 'event', { answered() {} }, 2, { isUrgent: true })
    expect(resting.take(2, 1, 'all')).toHaveLength(1)
  })

  it('looks below the new name for what waited below the old one', () => {
    const settle = new Settle(noScan)
    settle.changed(place('d/f'), 0)
    settle.changed(place('dx/f'), 0)
    settle.renamed(VOLUME, relativePath('d'), relativePath('e'), 1)
    const paths = settle.take(1, 10, 'all').map(({ path }) => path)
    expect(paths.toSorted()).toEqual(['d/f', 'dx/f', 'e/f'])
  })

  it('looks once more below the old name where it was looking when the directory got another one', () => {
    const settle = new Settle(noScan)
    settle.changed(place('d'), 0)
    settle.changed(place('d/f'), 0)
    settle.take(0, 10, 'all')
    // Another directory may have the old name by the time at which what was seen is recorded.
    settle.renamed(VOLUME, relativePath('d'), relativePath('e'), 1)
    settle.finished(place('d'), CAPTURED, 2)
    settle.finished(place('d/f'), CAPTURED, 2)
    const paths = settle.take(2, 10, 'all').map(({ path }) => path)
    expect(paths.toSorted()).toEqual(['d', 'd/f', 'e/f'])
  })

  it('answers for all paths of a volume that wait at one moment', () => {
    const settle = new Settle(noScan)
    let answered = 0
    settle.changed(place('a'), 0)
    settle.changed(place('b'), 0)
    settle.take(0, 1, 'all')
    const ticket: Ticket = { answered: () => void (answered += 1) }
    expect(settle.expectAll(VOLUME, ticket)).toBe(2)
    settle.changed(place('c'), 1)
    for (const one of settle.finished(place('a'), DONE, 1)) one.answered(false)
    expect(answered).toBe(1)
    settle.take(1, 1, 'all')
    for (const one of settle.finished(place('b'), DONE, 2)) one.answered(false)
    expect(answered).toBe(2)
  })
})
