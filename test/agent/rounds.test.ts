import { describe, expect, it, onTestFinished } from 'vitest'
import { Coverage } from '../../agent/coverage.ts'
import type { Held } from '../../agent/held.ts'
import { JournalLag } from '../../agent/journal-lag.ts'
import type { Moves } from '../../agent/moves.ts'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import { Recorder } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { RottenFiles } from '../../agent/rotten-files.ts'
import { Rounds } from '../../agent/rounds.ts'
import type { Scanned, Scanner } from '../../agent/scanner.ts'
import { State } from '../../agent/state.ts'
import { Volume } from '../../agent/volume.ts'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import type { Watcher } from '../../agent/watch/watcher.ts'
import { HybridClock, systemClock } from '../../shared/clock.ts'
import { silentLog } from '../../shared/log.ts'
import { FIRST, openJournal, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const SCANNED: Scanned = {
  differences: 0,
  unannounced: 0,
  closed: new Map(),
  foreign: [],
  newDirectories: [],
  walkMs: 0,
  method: 'walk',
  methodReason: '',
  entries: 1,
}
const NEVER_MS = 1e9

/** The full scans of a completely watched volume, each of which ends when it is told to; and its coverage. */
async function opened() {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await State.open(`${directory}/state`, 1, { oldest: 1, head: { seq: 0 } })
  onTestFinished(() => state.close())
  const recorder = new Recorder({
    journal,
    state,
    held: {} as Held,
    order: new Order({ volumes: new Map(), pins: new Pins(), renames: new Renames() }),
    moves: { record: () => Promise.resolve() } as unknown as Moves,
    lag: new JournalLag(),
    lookAt: () => {},
  })
  const volume = new Volume(VOLUME, '/nowhere', new IgnoreRules({ paths: [], patterns: [] }), new RottenFiles(`${directory}/rotten.json`))
  volume.begin({ directory: '/nowhere', device: 1n, inode: 1n }, () => {})
  const said: string[] = []
  const watcher = {
    mode: 'complete',
    reason: '',
    isContinuous: false,
    fence: () => Promise.resolve({ isBehind: false, closedBeforeNs: 0n }),
    mark: () => 1,
    settled: () => void said.push('settled'),
    doubted: () => void said.push('doubted'),
    verified: () => void said.push('verified'),
  } as unknown as Watcher
  volume.watcher = watcher
  const scans: (() => void)[] = []
  const scanner = {
    scan: () => new Promise<Scanned>((resolve) => scans.push(() => resolve(SCANNED))),
  } as unknown as Scanner
  const clock = new HybridClock(systemClock)
  const rounds: Rounds = new Rounds({
    volume,
    everyMs: { 'best-effort': NEVER_MS, 'complete': NEVER_MS },
    scanner,
    recorder,
    state,
    clock,
    onVerified: () => coverage.verify(),
    log: silentLog,
  })
  const settling = Promise.withResolvers<void>()
  const coverage = new Coverage({
    volume,
    state,
    recorder,
    settled: () => settling.promise,
    lookAgain: () => {},
    isOwing: () => rounds.isOwing,
    proveByScan: () => rounds.prove(),
    now: () => clock.tick(),
  })
  await recorder.note([FIRST, { kind: 'volume', volume: VOLUME, root: '/nowhere', mode: 'complete' }])
  const stop = new AbortController()
  const running = Promise.all([rounds.run(watcher, stop.signal), coverage.run(watcher, stop.signal)])
  onTestFinished(async () => {
    stop.abort()
    settling.resolve()
    endScan()
    await running
    await Promise.all([rounds.close(), recorder.close()])
  })
  /** The one under way. */
  const endScan = (): void => scans.at(-1)?.()
  const begun = async (count: number): Promise<void> => {
    await expect.poll(() => scans.length).toBe(count)
  }
  await begun(1)
  return { rounds, coverage, journal, clock, said, endScan, begun, settle: settling.resolve }
}

describe('full scans', () => {
  it('close a gap only with one that began after it was opened, and until then nothing is proven', async () => {
    const { rounds, journal, clock, said, endScan, begun } = await opened()
    rounds.owe({ from: clock.tick(), cause: 'the queue overflowed' })
    rounds.want()
    said.length = 0
    endScan()
    await begun(2)
    const kinds = async () => (await journal.read(1, 1 << 20, 100)).map(({ record }) => record.kind)
    expect(await kinds()).not.toContain('gap')
    // What it passed before the queue overflowed is not swept away for what was lost then.
    expect(await kinds()).not.toContain('sweep')
    expect(rounds.isOwing).toBe(true)
    expect(said).toEqual([])
    endScan()
    await expect.poll(() => rounds.isOwing).toBe(false)
    expect(await kinds()).toEqual(['epoch', 'volume', 'sweep', 'gap'])
    expect(said).toContain('verified')
  })

  it('that are wanted are owed until one has ended that began after the wish', async () => {
    const { rounds, said, endScan, begun } = await opened()
    endScan()
    await expect.poll(() => rounds.isOwing).toBe(false)
    said.length = 0
    rounds.want()
    expect(said).toEqual(['doubted'])
    await begun(2)
    expect(rounds.isOwing).toBe(true)
    endScan()
    await expect.poll(() => rounds.isOwing).toBe(false)
    expect(said).toContain('verified')
  })

  it('answer whoever asked before for a proof by events, where something happened since that events do not tell', async () => {
    const { rounds, coverage, said, endScan, begun, settle } = await opened()
    endScan()
    await expect.poll(() => rounds.isOwing).toBe(false)
    let isProven = false
    const prove = async (): Promise<void> => {
      await coverage.prove()
      isProven = true
    }
    const proving = prove()
    rounds.want()
    await begun(2)
    settle()
    await expect.poll(() => said).toContain('settled')
    endScan()
    // The one under way had begun before the proof was left to a scan.
    await begun(3)
    expect(isProven).toBe(false)
    endScan()
    await proving
  })
})
