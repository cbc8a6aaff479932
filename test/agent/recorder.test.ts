import { describe, expect, it, onTestFinished } from 'vitest'
import type { Held } from '../../agent/held.ts'
import { JournalLag } from '../../agent/journal-lag.ts'
import type { Moves } from '../../agent/moves.ts'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import type { Place } from '../../agent/place.ts'
import { type Finding, Recorder } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { State } from '../../agent/state.ts'
import type { Version } from '../../shared/version.ts'
import { directoryVersion, fileVersion, openJournal, path, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

function found(name: string, version: Version): Finding {
  return {
    volume: VOLUME,
    path: path(name),
    outcome: { kind: 'version', version, durationMs: 0 },
    knownSeq: undefined,
    knownInode: undefined,
    removals: 0,
    pinned: new Set(),
    hasWaited: false,
    retries: 0,
    writer: undefined,
    origin: 'event',
  }
}

/** A recorder, and the looks that it asks for. */
interface Opened {
  readonly recorder: Recorder
  readonly asked: string[]
}

async function opened(): Promise<Opened> {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await State.open(`${directory}/state`, 1, 1)
  onTestFinished(() => state.close())
  const asked: string[] = []
  const recorder = new Recorder({
    journal,
    state,
    held: { need: () => {} } as unknown as Held,
    order: new Order({ volumes: new Map(), pins: new Pins(), renames: new Renames() }),
    moves: { record: () => Promise.resolve() } as unknown as Moves,
    lag: new JournalLag(),
    lookAt: (place: Place) => void asked.push(place.path),
  })
  onTestFinished(() => recorder.close())
  await recorder.record(found('', directoryVersion({ inode: 1n })))
  return { recorder, asked }
}

describe('a file whose directory is not recorded yet', () => {
  it('waits for a look at the directory', async () => {
    const { recorder, asked } = await opened()
    const recording = recorder.record(found('d/f', fileVersion('x', { inode: 3n })))
    await expect.poll(() => asked).toEqual(['d'])
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    recorder.looked({ volume: VOLUME, path: path('d') })
    expect((await recording).kind).toBe('recorded')
    expect(asked).toEqual(['d'])
  })

  it('is looked at again where it was given another name meanwhile, which was recorded before it', async () => {
    const { recorder, asked } = await opened()
    const recording = recorder.record(found('d/f', fileVersion('x', { inode: 3n })))
    await expect.poll(() => asked).toEqual(['d'])
    // Nothing can tell of the one name by the other: it is not recorded.
    await recorder.record(found('g', fileVersion('x', { inode: 3n, links: 2, ctimeNs: 5n })))
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    recorder.looked({ volume: VOLUME, path: path('d') })
    expect((await recording).kind).toBe('recorded')
    expect(asked).toEqual(['d', 'd/f'])
  })
})
