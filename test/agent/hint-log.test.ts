import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { clearSlot, HintLog } from '../../agent/watch/hint-log.ts'
import { inspectHints } from '../../agent/watch/left-hints.ts'
import { PINS_OPEN_MAX } from '../../shared/limits.ts'
import { eventBytes, handleOf } from '../support/kernel-events.ts'
import { scratchDirectory } from '../support/scratch.ts'

const DATA = 4096 + PINS_OPEN_MAX * 8192
const EVENT = eventBytes({ mask: 0x100, info: [{ type: 2, handle: handleOf('directory'), name: 'name' }] })

/** A file that is read as a group is: the events of each read in turn. */
function groupOf(...events: Buffer[]): number {
  const file = join(scratchDirectory(), 'events')
  writeFileSync(file, Buffer.concat(events))
  const fd = openSync(file, 'r')
  onTestFinished(() => closeSync(fd))
  return fd
}

function newLog(): { readonly fd: number; readonly log: HintLog } {
  const fd = HintLog.create()
  onTestFinished(() => closeSync(fd))
  const log = HintLog.open(fd)
  onTestFinished(() => log.close())
  return { fd, log }
}

/** What the next life finds. */
function nextLife(fd: number): { readonly left: ReturnType<typeof inspectHints>; readonly events: Buffer } {
  const left = inspectHints(fd)
  const log = HintLog.open(fd)
  onTestFinished(() => log.close())
  return { left, events: Buffer.concat([...log.unsettled(1 << 20)]) }
}

describe('the log of hints', () => {
  it('gives what it reads, and gives it to the next life until it is settled', () => {
    const { fd, log } = newLog()
    const group = groupOf(EVENT, EVENT, EVENT)
    expect(log.read(group, 2 * EVENT.length)).toEqual(Buffer.concat([EVENT, EVENT]))
    const mark = log.head
    expect(log.read(group, 2 * EVENT.length)).toEqual(EVENT)
    expect(log.read(group, EVENT.length)).toBeUndefined()
    log.settle(mark)
    expect(nextLife(fd).events).toEqual(EVENT)
    log.settle(log.head)
    expect(nextLife(fd).events).toHaveLength(0)
  })

  it('finds what the kernel gave to a process that died before it could say so', () => {
    const { fd, log } = newLog()
    log.read(groupOf(EVENT), EVENT.length)
    // As read(2) leaves it when its caller is killed: behind the head, which nobody moved.
    writeSync(fd, Buffer.concat([EVENT, EVENT]), 0, 2 * EVENT.length, DATA + EVENT.length)
    expect(nextLife(fd).events).toEqual(Buffer.concat([EVENT, EVENT, EVENT]))
  })

  it('begins again at its start when all is settled, and an old mark settles nothing new', () => {
    const { fd, log } = newLog()
    const group = groupOf(EVENT, EVENT, EVENT)
    log.read(group, EVENT.length)
    const old = log.head
    log.read(group, EVENT.length)
    log.settle(log.head)
    log.read(group, EVENT.length)
    log.settle(old)
    expect(nextLife(fd).events).toEqual(EVENT)
  })

  it('tells the next life which volumes were verified, and which versions were in hand', () => {
    const { fd, log } = newLog()
    const losses = [{ sinceMs: 500, cause: 'a reason' }]
    log.setVerified(
      new Map([
        ['images', []],
        ['db', losses],
      ]),
    )
    log.holdPin(0, { path: '/srv/caf\xe9', inode: 7n, ms: 1000 })
    log.holdPin(3, { path: '/srv/b', inode: 8n, ms: 2000 })
    log.holdPin(4, { path: '/srv/c', inode: 9n, ms: 3000 })
    clearSlot(fd, 3)
    log.readingPins(true)
    expect(nextLife(fd).left).toEqual({
      verified: new Map([
        ['images', []],
        ['db', losses],
      ]),
      pins: [
        { path: '/srv/caf\xe9', inode: 7n, ms: 1000 },
        { path: '/srv/c', inode: 9n, ms: 3000 },
      ],
      readingPinsSinceMs: expect.any(Number) as number,
    })
    // Told once: the next life has its own.
    expect(nextLife(fd).left).toEqual({
      verified: new Map([
        ['images', []],
        ['db', losses],
      ]),
      pins: [],
      readingPinsSinceMs: undefined,
    })
  })

  it('calls nobody verified where the names do not fit', () => {
    const { fd, log } = newLog()
    log.setVerified(new Map(Array.from({ length: 200 }, (_, i) => [`${'v'.repeat(60)}${i}`, []])))
    expect(nextLife(fd).left?.verified).toEqual(new Map())
  })

  it('is not adopted where it is something else', () => {
    const file = join(scratchDirectory(), 'other')
    writeFileSync(file, Buffer.alloc(10_000))
    const fd = openSync(file, 'r+')
    onTestFinished(() => closeSync(fd))
    expect(inspectHints(fd)).toBeUndefined()
  })
})
