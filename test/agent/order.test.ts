import { describe, expect, it } from 'vitest'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import type { Finding } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { path, VOLUME } from '../support/agent-parts.ts'

const RETRIES_MANY = 1000

function gone(name: string, retries: number, topmost = name): Finding {
  return {
    volume: VOLUME,
    path: path(name),
    outcome: { kind: 'gone', topmost: path(topmost) },
    knownSeq: undefined,
    knownInode: undefined,
    removals: 0,
    pinned: new Set(),
    hasWaited: false,
    retries,
    writer: undefined,
    origin: 'event',
  }
}

describe('a look that finds nothing where a directory was that has another name', () => {
  it('waits for the rename, and leaves it to be doubted when it has waited long enough', () => {
    const renames = new Renames()
    const order = new Order({ volumes: new Map(), pins: new Pins(), renames })
    const rename = renames.add(VOLUME, path('a'), path('b'))
    expect(order.isHeld(gone('a/x/link', 0, 'a'))).toBe(true)
    expect(rename.isDoubted).toBe(false)
    expect(order.isHeld(gone('a/x/link', RETRIES_MANY, 'a'))).toBe(false)
    expect(rename.isDoubted).toBe(true)
  })

  it('does not wait for a rename elsewhere, nor doubts it', () => {
    const renames = new Renames()
    const order = new Order({ volumes: new Map(), pins: new Pins(), renames })
    const rename = renames.add(VOLUME, path('a'), path('b'))
    expect(order.isHeld(gone('c/link', 0))).toBe(false)
    expect(order.isHeld(gone('c/link', RETRIES_MANY))).toBe(false)
    expect(rename.isDoubted).toBe(false)
  })
})
