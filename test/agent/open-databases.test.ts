import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { OpenDatabases } from '../../agent/open-databases.ts'
import { type Pin, Pins } from '../../agent/pins.ts'
import { RottenFiles } from '../../agent/rotten-files.ts'
import { Settle } from '../../agent/settle.ts'
import type { Settled } from '../../agent/settle-entry.ts'
import { Volume } from '../../agent/volume.ts'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import type { Fence, Watcher } from '../../agent/watch/watcher.ts'
import { silentLog } from '../../shared/log.ts'
import { path, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const INDEX = { volume: VOLUME, path: path('index') }
const LOG = { volume: VOLUME, path: path('index-wal') }
const IMAGE = { volume: VOLUME, path: path('AB/image') }
const CAPTURED: Settled = { kind: 'captured-open', durationMs: 1 }

/** A volume with an open database that was captured once. */
function opened() {
  const [settle, pins] = [new Settle(() => {}), new Pins()]
  const rules = new IgnoreRules({ paths: [], patterns: [] })
  const volume = new Volume(VOLUME, '/nowhere', rules, new RottenFiles(`${scratchDirectory()}/rotten.json`))
  const told = Promise.withResolvers<void>()
  const nothing: Fence = { isBehind: false, closedBeforeNs: 0n }
  const answer = { fence: nothing }
  const fence = (): Promise<Fence> => told.promise.then(() => setTimeout(1, answer.fence))
  volume.watcher = { fence } as unknown as Watcher
  const databases = new OpenDatabases({ settle, pins, volumes: new Map([[VOLUME, volume]]), log: silentLog })
  databases.begin(INDEX)
  databases.end(INDEX, true)
  /** What a wait has come to, once all that can go on has gone on. */
  const has = async (wait: Promise<unknown>): Promise<boolean> => {
    let isOver = false
    const over = async (): Promise<void> => {
      await wait
      isOver = true
    }
    void over()
    await setTimeout(60)
    return isOver
  }
  return { settle, pins, databases, told: told.resolve, answer, nothing, has }
}

function pin(name: string): Pin {
  return { volume: VOLUME, path: path(name), fd: 0, writer: undefined, attempts: 0, busy: 0, release: () => {} }
}

describe('a database in WAL mode and the files beside it', () => {
  it('has one look at both its files at a time', () => {
    const { databases } = opened()
    expect([databases.begin(INDEX), databases.begin(INDEX)]).toEqual([true, false])
    databases.end(INDEX, true)
    expect(databases.begin(INDEX)).toBe(true)
  })

  it('is recorded after what was closed before, and not after what is closed later', async () => {
    const { databases, pins, told, has } = opened()
    const [first, later] = [pin('AB/image'), pin('AB/later')]
    const wait = databases.filesRecorded()
    // What the kernel still holds is told before the fence.
    pins.add(first)
    told()
    expect(await has(wait)).toBe(false)
    pins.add(later)
    for (const one of pins.take(2)) if (one === first) pins.finished(one)
    expect(await has(wait)).toBe(true)
  })

  it('is recorded after what was told of a volume that nobody follows yet', async () => {
    const { databases, pins, told, answer, nothing, has } = opened()
    answer.fence = { isBehind: true, closedBeforeNs: 0n, isUnheard: true }
    told()
    const wait = databases.filesRecorded()
    expect(await has(wait)).toBe(false)
    const image = pin('AB/image')
    pins.add(image)
    answer.fence = nothing
    expect(await has(wait)).toBe(false)
    for (const one of pins.take(1)) pins.finished(one)
    expect(await has(wait)).toBe(true)
  })

  it('waits for nothing of a volume that is not watched any more', async () => {
    const { databases, told, answer, has } = opened()
    answer.fence = { isBehind: true, closedBeforeNs: 0n }
    told()
    expect(await has(databases.filesRecorded())).toBe(true)
  })

  it('is recorded after what was closed and is looked at by its path', async () => {
    const { databases, settle, told, has } = opened()
    told()
    settle.changed(IMAGE, 0, { isSure: true })
    databases.noteClosed(IMAGE)
    const wait = databases.filesRecorded()
    expect(await has(wait)).toBe(false)
    settle.take(1, 1, 'all')
    settle.finished(IMAGE, { kind: 'captured' }, 2).forEach((ticket) => ticket.answered(true))
    expect(await has(wait)).toBe(true)
  })

  it('is waited for by a removal only where it was written and is not captured since', () => {
    const { databases, settle } = opened()
    expect(databases.isAhead(IMAGE)).toBe(false)
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    expect(databases.isAhead(IMAGE)).toBe(true)
    for (const own of [INDEX, LOG]) expect(databases.isAhead(own)).toBe(false)
  })

  it('lets a removal go with the look that began after it was written, not with the one before', async () => {
    const { databases, settle, has } = opened()
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    const [look] = settle.take(5000, 1, 'all')
    expect(look?.path).toBe(LOG.path)
    // The commit that removed the image may be behind what this look reads.
    settle.changed(LOG, 5001, { isOpen: true, isSure: true })
    const wait = databases.captured(IMAGE)
    settle.finished(LOG, CAPTURED, 5002).forEach((ticket) => ticket.answered(true))
    expect(await has(wait)).toBe(false)
    expect(settle.take(9000, 1, 'all')).toHaveLength(1)
    settle.finished(LOG, CAPTURED, 9001).forEach((ticket) => ticket.answered(true))
    expect(await has(wait)).toBe(true)
  })

  it('lets a removal go with the look under way where nothing was written since it began', async () => {
    const { databases, settle, has } = opened()
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    settle.take(5000, 1, 'all')
    const wait = databases.captured(IMAGE)
    expect(await has(wait)).toBe(false)
    settle.finished(LOG, CAPTURED, 5002).forEach((ticket) => ticket.answered(true))
    expect(await has(wait)).toBe(true)
  })

  it('is waited for also while the look under way is one that only makes sure', async () => {
    const { databases, settle, has } = opened()
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    settle.take(5000, 1, 'all')
    settle.finished(LOG, CAPTURED, 5001)
    const [again] = settle.take(9000, 1, 'all')
    expect(again?.path).toBe(LOG.path)
    settle.changed(LOG, 9001, { isOpen: true, isSure: true })
    expect(databases.isAhead(IMAGE)).toBe(true)
    const wait = databases.captured(IMAGE)
    settle.finished(LOG, CAPTURED, 9002).forEach((ticket) => ticket.answered(true))
    expect(await has(wait)).toBe(false)
  })

  it('waits for no file that is gone: its removal waits for the database', async () => {
    const { databases, settle, told, has } = opened()
    told()
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    settle.changed(IMAGE, 0, { isSure: true })
    databases.noteClosed(IMAGE)
    const wait = databases.filesRecorded()
    expect(await has(wait)).toBe(false)
    expect(databases.isAhead(IMAGE)).toBe(true)
    const removal = databases.captured(IMAGE)
    expect(await has(wait)).toBe(true)
    expect(await has(removal)).toBe(false)
    settle.take(9000, 2, 'all')
    settle.finished(LOG, CAPTURED, 9001).forEach((ticket) => ticket.answered(true))
    expect(await has(removal)).toBe(true)
  })

  it('is waited for by no removal of a place that must be looked at again before others can be recorded', async () => {
    const { databases, settle, has } = opened()
    const directory = { volume: VOLUME, path: path('AB') }
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    settle.changed(directory, 0, { isSure: true })
    settle.take(1, 1, 'events')
    const removal = databases.captured(directory)
    expect(await has(removal)).toBe(false)
    // It is there again, and a file in it, which the database will be recorded after, cannot be recorded before it.
    settle.found(directory, 'event', { answered: () => {} }, 2, { isUrgent: true })
    databases.reconsider()
    expect(await has(removal)).toBe(true)
    expect(await removal).toBe(false)
    settle.finished(directory, { kind: 'busy' }, 3)
    // Gone once more: nobody needs another look.
    expect(settle.take(100, 1, 'urgent')).toHaveLength(1)
    const again = databases.captured(directory)
    expect(await has(again)).toBe(false)
    settle.take(9000, 1, 'all')
    settle.finished(LOG, CAPTURED, 9001).forEach((ticket) => ticket.answered(true))
    expect(await again).toBe(true)
  })

  it('is waited for by nobody when it is a database no more', () => {
    const { databases, settle } = opened()
    settle.changed(LOG, 0, { isOpen: true, isSure: true })
    databases.begin(INDEX)
    databases.end(INDEX, false)
    expect(databases.isAhead(IMAGE)).toBe(false)
  })
})
