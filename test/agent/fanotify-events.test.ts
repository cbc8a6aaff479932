import { describe, expect, it } from 'vitest'
import { EVENT } from '../../agent/watch/fanotify-calls.ts'
import { fanotifyEvents } from '../../agent/watch/fanotify-events.ts'
import { eventBytes, handleOf } from '../support/kernel-events.ts'

const DIRECTORY = handleOf('directory')
const OTHER = handleOf('another one')
const FILE = handleOf('f')

describe('the events of a read', () => {
  it('are told with directory, name and target, whatever bytes the name has', () => {
    const bytes = Buffer.concat([
      eventBytes({
        mask: EVENT.create,
        info: [
          { type: 2, handle: DIRECTORY, name: 'caf\xe9\n' },
          { type: 1, handle: FILE },
        ],
      }),
      eventBytes({
        mask: EVENT.rename | EVENT.onDirectory,
        info: [
          { type: 10, handle: DIRECTORY, name: 'a' },
          { type: 12, handle: OTHER, name: 'b' },
        ],
      }),
    ])
    expect([...fanotifyEvents(bytes)]).toEqual([
      {
        mask: EVENT.create,
        fd: -1,
        pid: 4711,
        entry: { directory: DIRECTORY, name: 'caf\xe9\n' },
        from: undefined,
        target: FILE,
        error: 0,
      },
      {
        mask: (EVENT.rename | EVENT.onDirectory) >>> 0,
        fd: -1,
        pid: 4711,
        entry: { directory: OTHER, name: 'b' },
        from: { directory: DIRECTORY, name: 'a' },
        target: undefined,
        error: 0,
      },
    ])
  })

  it('are told without a name where the kernel gives none', () => {
    const [overflow] = fanotifyEvents(eventBytes({ mask: EVENT.overflow }))
    expect(overflow).toMatchObject({ mask: EVENT.overflow, entry: undefined, target: undefined })
    const [nameless] = fanotifyEvents(eventBytes({ mask: EVENT.attributes, info: [{ type: 1, handle: FILE }] }))
    expect(nameless).toMatchObject({ entry: undefined, target: FILE })
  })

  it('pass over a kind of information that is not known', () => {
    const [event] = fanotifyEvents(
      eventBytes({
        mask: EVENT.delete,
        info: [
          { type: 99, handle: 'what' },
          { type: 2, handle: DIRECTORY, name: 'n' },
        ],
      }),
    )
    expect(event?.entry).toEqual({ directory: DIRECTORY, name: 'n' })
  })

  it.each([
    ['a layout of another version', (bytes: Buffer) => void (bytes[4] = 4)],
    ['an event that is longer than what was read', (bytes: Buffer) => void bytes.writeUInt32LE(1000, 0)],
    ['an event that is shorter than its head', (bytes: Buffer) => void bytes.writeUInt32LE(8, 0)],
    ['an info record that is longer than its event', (bytes: Buffer) => void bytes.writeUInt16LE(1000, 26)],
    ['a handle that is longer than its record', (bytes: Buffer) => void bytes.writeUInt32LE(1000, 36)],
  ])('refuse %s', (_, damage) => {
    const bytes = eventBytes({ mask: EVENT.create, info: [{ type: 2, handle: DIRECTORY, name: 'n' }] })
    expect([...fanotifyEvents(bytes)]).toHaveLength(1)
    damage(bytes)
    expect(() => [...fanotifyEvents(bytes)]).toThrow(RangeError)
  })
})
