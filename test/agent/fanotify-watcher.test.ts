import { describe, expect, it } from 'vitest'
import { FanotifyWatcher } from '../../agent/watch/fanotify-watcher.ts'
import type { Fence, WatchEvent } from '../../agent/watch/watcher.ts'
import { path } from '../support/agent-parts.ts'

const UP_TO_DATE: Fence = { isBehind: false, closedBeforeNs: 5n }
const DIRTY: WatchEvent = { kind: 'dirty', path: path('a') }

function watched(): { watcher: FanotifyWatcher; settled: number[] } {
  const settled: number[] = []
  const watcher = new FanotifyWatcher({
    volume: 'images',
    isContinuous: true,
    proof: () => ({ provenMs: undefined, silentMs: 0 }),
    fence: () => Promise.resolve(UP_TO_DATE),
    head: () => 7,
    onVerified: () => undefined,
    onSettled: (mark) => settled.push(mark),
    onClose: () => undefined,
  })
  return { watcher, settled }
}

describe('what fanotify tells of a volume', () => {
  it('that nobody follows yet is said to wait, and is not settled', async () => {
    const { watcher, settled } = watched()
    expect(await watcher.fence()).toEqual(UP_TO_DATE)
    watcher.take([DIRTY])
    expect(await watcher.fence()).toEqual({ isBehind: true, closedBeforeNs: 0n, isUnheard: true })
    const mark = watcher.mark()
    watcher.settled(mark)
    const events = watcher.events()[Symbol.asyncIterator]()
    expect(await events.next()).toMatchObject({ value: [DIRTY] })
    // By now somebody follows, and has not dealt with it.
    watcher.settled(mark)
    expect(settled).toEqual([])
    await watcher.close()
    expect(await watcher.fence()).toEqual(UP_TO_DATE)
  })

  it('is with whoever follows when a fence is answered', async () => {
    const { watcher, settled } = watched()
    watcher.take([DIRTY])
    const told: WatchEvent[] = []
    const following = (async () => {
      for await (const events of watcher.events()) told.push(...events)
    })()
    expect(await watcher.fence()).toEqual(UP_TO_DATE)
    expect(told).toEqual([DIRTY])
    watcher.take([DIRTY, DIRTY])
    expect(await watcher.fence()).toEqual(UP_TO_DATE)
    expect(told).toHaveLength(3)
    watcher.settled(watcher.mark())
    expect(settled).toEqual([7])
    await watcher.close()
    await following
  })
})
