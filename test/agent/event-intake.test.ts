import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Coverage } from '../../agent/coverage.ts'
import { EventIntake } from '../../agent/event-intake.ts'
import { Pins } from '../../agent/pins.ts'
import type { Pursuit } from '../../agent/pursuit.ts'
import { Renames } from '../../agent/renames.ts'
import { Rescans } from '../../agent/rescans.ts'
import { RottenFiles } from '../../agent/rotten-files.ts'
import type { Rounds } from '../../agent/rounds.ts'
import { Settle } from '../../agent/settle.ts'
import { State } from '../../agent/state.ts'
import { Suspects } from '../../agent/suspects.ts'
import { Volume } from '../../agent/volume.ts'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import type { Change } from '../../shared/record.ts'
import { directoryVersion, fileVersion, openJournal, path, put, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

async function opened() {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await State.open(`${directory}/state`, 1, { oldest: 1, head: { seq: 0 } })
  onTestFinished(() => state.close())
  const settle = new Settle(() => {})
  const rescans = new Rescans()
  const intake = new EventIntake({
    volume: new Volume(VOLUME, '/nowhere', new IgnoreRules({ paths: [], patterns: [] }), new RottenFiles(`${directory}/rotten.json`)),
    settle,
    suspects: new Suspects(),
    pursuit: { wake: () => {} } as unknown as Pursuit,
    state,
    pins: new Pins(),
    renames: new Renames(),
    rescans,
    rounds: {} as Rounds,
    coverage: {} as Coverage,
    owe: () => {},
    provenUntil: () => undefined,
  })
  const record = async (...changes: Change[]): Promise<void> => {
    await state.apply((await journal.append(changes)).map(({ record: one }) => one))
  }
  const looks = (): string[] => settle.take(performance.now() + 1000, 10, 'all').map(({ path: at }) => at)
  const end = (name: string): void => {
    const ended = settle.finished({ volume: VOLUME, path: path(name) }, { kind: 'done' }, performance.now())
    for (const ticket of ended) ticket.answered(false)
  }
  return { intake, rescans, record, looks, end, state }
}

describe('what a watcher tells', () => {
  it('of a directory that was deleted has another one of its name scanned', async () => {
    const { intake, rescans, record, looks, end } = await opened()
    await record(put('', directoryVersion()), put('d', directoryVersion({ inode: 2n })))
    intake.take({ kind: 'dirty', path: path('d'), isEntry: true, isDirectoryGone: true })
    expect(looks()).toContain('d')
    end('d')
    await expect.poll(() => rescans.take()?.path).toBe('d')
  })

  it('of a directory that was deleted is followed where a directory above it is renamed meanwhile', async () => {
    const { intake, rescans, record, looks, end } = await opened()
    await record(put('', directoryVersion()), put('a', directoryVersion({ inode: 2n })), put('a/d', directoryVersion({ inode: 3n })))
    intake.take({ kind: 'dirty', path: path('a/d'), isEntry: true, isDirectoryGone: true })
    expect(looks()).toContain('a/d')
    await record({ kind: 'rename', volume: VOLUME, path: path('a'), to: path('b') })
    rescans.renamed(path('a'), path('b'))
    end('a/d')
    await expect.poll(looks).toContain('b/d')
    end('b/d')
    await expect.poll(() => rescans.take()?.path).toBe('b/d')
  })

  it('of a file without its name has been handed on when its names are looked up', async () => {
    const { intake, record, looks } = await opened()
    await record(put('', directoryVersion()), put('f', fileVersion('x', { inode: 7n })), put('g', fileVersion('x', { inode: 7n })))
    intake.take({ kind: 'inodes', inodes: BigUint64Array.of(7n) })
    expect(looks()).toEqual([])
    await intake.lookedUp(new AbortController().signal)
    expect(looks().toSorted()).toEqual(['f', 'g'])
  })

  it('of files without their names while others are looked up is looked up at once, each file once', async () => {
    const { intake, record, looks, state } = await opened()
    await record(put('', directoryVersion()), put('f', fileVersion('x', { inode: 7n })), put('g', fileVersion('y', { inode: 8n })))
    const asked = vi.spyOn(state, 'namesOf')
    for (let i = 0; i < 3; i++) intake.take({ kind: 'inodes', inodes: BigUint64Array.of(5n, 6n, 7n, 8n) })
    await intake.lookedUp(new AbortController().signal)
    expect(looks().toSorted()).toEqual(['f', 'g'])
    expect(asked.mock.calls.map(([, inodes]) => inodes)).toEqual([
      [5n, 6n, 7n, 8n],
      [5n, 6n, 7n, 8n],
    ])
  })

  it('of files without their names has been handed on also while it goes on without an end', async () => {
    const { intake, state } = await opened()
    const namesOf = state.namesOf.bind(state)
    let next = 1n
    let isOver = false
    vi.spyOn(state, 'namesOf').mockImplementation((...asked) => {
      if (!isOver) intake.take({ kind: 'inodes', inodes: BigUint64Array.of(next++) })
      return namesOf(...asked)
    })
    intake.take({ kind: 'inodes', inodes: BigUint64Array.of(next++) })
    await intake.lookedUp(new AbortController().signal)
    isOver = true
    await intake.lookedUp(new AbortController().signal)
    expect(next).toBeLessThan(10n)
  })
})
