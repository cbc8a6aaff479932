import { describe, expect, it, onTestFinished } from 'vitest'
import type { Held } from '../../agent/held.ts'
import { JournalLag } from '../../agent/journal-lag.ts'
import { type Move, Moves } from '../../agent/moves.ts'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import type { Place } from '../../agent/place.ts'
import { type Finding, Recorder } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { Settle } from '../../agent/settle.ts'
import { State } from '../../agent/state.ts'
import type { Version } from '../../shared/version.ts'
import { directoryVersion, fileVersion, openJournal, path, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

function found(name: string, version: Version): Finding {
  return finding(name, { kind: 'version', version, durationMs: 0 })
}

function finding(name: string, outcome: Finding['outcome']): Finding {
  return {
    volume: VOLUME,
    path: path(name),
    outcome,
    knownSeq: undefined,
    knownInode: undefined,
    begun: { applied: 0, removals: 0 },
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
  readonly renames: Renames
  readonly state: State
  readonly asked: string[]
  readonly moved: Move[]
}

async function opened(): Promise<Opened> {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await State.open(`${directory}/state`, 1, { oldest: 1, head: { seq: 0 } })
  onTestFinished(() => state.close())
  const asked: string[] = []
  const moved: Move[] = []
  const [pins, renames, settle, volumes] = [new Pins(), new Renames(), new Settle(() => {}), new Map()]
  const recorder = new Recorder({
    journal,
    state,
    held: { need: () => {} } as unknown as Held,
    order: new Order({ volumes, pins, renames }),
    moves: new Moves({ journal, state, volumes, settle, pins, renames, onMoved: (move) => void moved.push(move) }),
    lag: new JournalLag(),
    lookAt: (place: Place) => void asked.push(place.path),
  })
  onTestFinished(() => recorder.close())
  await recorder.record(found('', directoryVersion({ inode: 1n })))
  return { recorder, renames, state, asked, moved }
}

/** The paths that are recorded. */
async function recorded(state: State): Promise<string[]> {
  return (await state.page(VOLUME, path(''), undefined, 100)).map((item) => item.path)
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

describe('a look that found nothing, not even the directory', () => {
  it('ends what was recorded before it began', async () => {
    const { recorder, state } = await opened()
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    await recorder.record(found('d/f', fileVersion('x', { inode: 3n })))
    const begun = { applied: state.applied, removals: state.removals }
    const answer = await recorder.record({ ...finding('d/f', { kind: 'gone', topmost: path('d') }), begun })
    expect(answer.kind).toBe('recorded')
    expect(await recorded(state)).toEqual([''])
  })

  it('is repeated where something was recorded in the directory meanwhile, in this commit or one before', async () => {
    const { recorder, state } = await opened()
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    const begun = { applied: state.applied, removals: state.removals }
    const gone = { ...finding('d', { kind: 'gone', topmost: path('d') }), begun }
    // Made again and filled: of the directory itself nobody has told yet.
    const [first, with1st] = await Promise.all([recorder.record(found('d/f', fileVersion('x', { inode: 3n }))), recorder.record(gone)])
    const second = await recorder.record(gone)
    expect([first, with1st, second].map(({ kind }) => kind)).toEqual(['recorded', 'outdated', 'outdated'])
    expect(await recorded(state)).toEqual(['', 'd', 'd/f'])
    // A look that began behind it may end it.
    const later = await recorder.record({ ...gone, begun: { applied: state.applied, removals: state.removals } })
    expect(later.kind).toBe('recorded')
    expect(await recorded(state)).toEqual([''])
  })

  it('is repeated where the directory was recorded meanwhile: it is another one, and the look may be the older', async () => {
    const { recorder, state } = await opened()
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    await recorder.record(found('d/f', fileVersion('x', { inode: 3n })))
    const begun = { applied: state.applied, removals: state.removals }
    await recorder.record(found('d', directoryVersion({ inode: 4n })))
    await recorder.record(found('d/g', fileVersion('y', { inode: 5n })))
    const answer = await recorder.record({ ...finding('d/f', { kind: 'gone', topmost: path('d') }), begun })
    expect(answer.kind).toBe('outdated')
    expect(await recorded(state)).toContain('d/g')
  })
})

describe('what is seen below the old name of a directory whose rename is not recorded yet', () => {
  it('is seen in another directory, and waits for the rename', async () => {
    const { recorder, renames, state } = await opened()
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    await recorder.record(found('d/f', fileVersion('x', { inode: 3n })))
    const rename = renames.add(VOLUME, path('d'), path('e'))
    expect((await recorder.record(found('d/g', fileVersion('y', { inode: 5n })))).kind).toBe('outdated')
    expect((await recorder.record(found('e', directoryVersion({ inode: 2n })))).kind).not.toBe('outdated')
    expect(rename.isRecorded).toBe(true)
    renames.remove(rename)
    await recorder.record(found('d', directoryVersion({ inode: 4n })))
    expect((await recorder.record(found('d/g', fileVersion('y', { inode: 5n })))).kind).toBe('recorded')
    expect(await recorded(state)).toEqual(['', 'd', 'd/g', 'e', 'e/f'])
  })
})

describe('the record of a rename', () => {
  it('tells where it ends what was recorded at the new name, of which some may be in the directory that came', async () => {
    const { recorder, renames, state, moved } = await opened()
    await recorder.record(found('d', directoryVersion({ inode: 2n })))
    await recorder.record(found('c', directoryVersion({ inode: 3n })))
    renames.add(VOLUME, path('d'), path('e'))
    renames.add(VOLUME, path('c'), path('f'))
    // Closed in the renamed directory, and its last attempt: that was inferred.
    const pinned = { ...found('e/new', fileVersion('x', { inode: 4n })), hasWaited: true, pin: { isLast: true } }
    expect((await recorder.record(pinned)).kind).toBe('recorded')
    expect(await recorded(state)).toEqual(['', 'c', 'd', 'e', 'e/new'])
    await recorder.record(found('e', directoryVersion({ inode: 2n })))
    await recorder.record(found('f', directoryVersion({ inode: 3n })))
    expect(moved.map(({ from, to, isOver }) => ({ from, to, isOver }))).toEqual([
      { from: 'd', to: 'e', isOver: true },
      { from: 'c', to: 'f', isOver: false },
    ])
    expect(await recorded(state)).toEqual(['', 'e', 'f'])
  })
})
