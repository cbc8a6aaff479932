import { describe, expect, it } from 'vitest'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import type { Finding } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { directoryVersion, fileVersion, path, VOLUME } from '../support/agent-parts.ts'

const RETRIES_MANY = 1000

function gone(name: string, retries: number, topmost = name): Finding {
  return {
    volume: VOLUME,
    path: path(name),
    outcome: { kind: 'gone', topmost: path(topmost) },
    knownSeq: undefined,
    knownInode: undefined,
    begun: { applied: 0, removals: 0 },
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

describe('a look that finds something where a directory was that has another name', () => {
  const version = (name: string, kind: 'file' | 'directory', retries = 0): Finding => ({
    ...gone(name, retries),
    outcome: { kind: 'version', version: kind === 'file' ? fileVersion('x') : directoryVersion(), durationMs: 0 },
  })

  it('waits for the rename, and has both names scanned when it has waited long enough', () => {
    const renames = new Renames()
    const order = new Order({ volumes: new Map(), pins: new Pins(), renames })
    const rename = renames.add(VOLUME, path('a'), path('b'))
    for (const held of [version('a', 'file'), version('a/x', 'file'), version('a/x', 'directory')]) expect(order.isHeld(held)).toBe(true)
    for (const free of [version('a', 'directory'), version('ab', 'file'), version('b', 'directory')]) expect(order.isHeld(free)).toBe(false)
    expect(rename).toMatchObject({ isDoubted: false, isReused: false })
    expect(order.isHeld(version('a/x', 'file', RETRIES_MANY))).toBe(false)
    expect(rename).toMatchObject({ isDoubted: true, isReused: true })
  })

  it('does not wait for the rename that brought it there', () => {
    const renames = new Renames()
    const order = new Order({ volumes: new Map(), pins: new Pins(), renames })
    renames.add(VOLUME, path('a'), path('a/b'))
    expect(order.isHeld(version('a/b', 'directory'))).toBe(false)
  })
})
