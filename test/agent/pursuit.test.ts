import { closeSync, openSync, writeFileSync } from 'node:fs'
import { expect, it, onTestFinished } from 'vitest'
import type { Capture } from '../../agent/capture.ts'
import type { CaptureClient } from '../../agent/capture-thread.ts'
import type { Held } from '../../agent/held.ts'
import { JournalLag } from '../../agent/journal-lag.ts'
import type { Moves } from '../../agent/moves.ts'
import { Order } from '../../agent/order.ts'
import { Pins } from '../../agent/pins.ts'
import { Pursuit } from '../../agent/pursuit.ts'
import { Recorder } from '../../agent/recorder.ts'
import { Renames } from '../../agent/renames.ts'
import { RottenFiles } from '../../agent/rotten-files.ts'
import { Settle } from '../../agent/settle.ts'
import { State } from '../../agent/state.ts'
import { Volume } from '../../agent/volume.ts'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import type { ChunkSizes } from '../../shared/chunker.ts'
import { silentLog } from '../../shared/log.ts'
import { directoryVersion, FIRST, fileVersion, openJournal, path, put, VOLUME } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const fails = (error: unknown): void => {
  throw error
}

/** A pursuit whose captures end as the test says, and whose state says late which names a file has. */
async function opened(room = 1) {
  const directory = scratchDirectory()
  const journal = await openJournal(directory)
  const state = await State.open(`${directory}/state`, 1, { oldest: 1, head: { seq: 0 } })
  onTestFinished(() => state.close())
  const linked = fileVersion('x', { inode: 7n, links: 2 })
  const records = await journal.append([FIRST, put('', directoryVersion()), put('f', linked), put('g', linked)])
  await state.apply(records.map(({ record }) => record))
  const volume = new Volume(VOLUME, '/nowhere', new IgnoreRules({ paths: [], patterns: [] }), new RottenFiles(`${directory}/rotten.json`))
  volume.begin({ directory: '/nowhere', device: 1n, inode: 1n }, () => {})
  const volumes = new Map([[VOLUME, volume]])
  const [settle, pins, renames] = [new Settle(() => {}), new Pins(), new Renames()]
  const held = { need: () => {}, unpin: () => {}, shipBytesMax: () => 0, hasRoomForScan: true } as unknown as Held
  const order = new Order({ volumes: new Map(), pins, renames })
  const moves = { record: () => Promise.resolve() } as unknown as Moves
  const recorder = new Recorder({ journal, state, held, order, moves, lag: new JournalLag(), lookAt: () => {} })
  onTestFinished(() => recorder.close())
  const clients: CaptureClient[] = []
  const paths: string[] = []
  const capture = {
    room,
    dispatch: (_root: unknown, _sizes: unknown, requests: readonly (readonly [{ path: string }, CaptureClient])[]) => {
      clients.push(...requests.map(([, client]) => client))
      paths.push(...requests.map(([{ path: at }]) => at))
    },
  } as unknown as Capture
  const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const slow = {
    applied: records.length,
    removals: 0,
    atMany: state.atMany.bind(state),
    namesOf: async (...which: Parameters<State['namesOf']>) => {
      asked.resolve()
      await answer.promise
      return state.namesOf(...which)
    },
  } as unknown as State
  const ignored = { log: silentLog, onReplaced: () => {}, onRotten: () => {}, onFailure: fails }
  const parts = { settle, pins, capture, recorder, state: slow, renames, held, volumes, chunkSizes: () => ({}) as ChunkSizes }
  const pursuit = new Pursuit({ ...parts, ...ignored })
  const stop = new AbortController()
  const running = pursuit.run(stop.signal)
  onTestFinished(async () => {
    stop.abort()
    await running
  })
  /** The look that was begun as the `count`th. */
  const look = async (count: number): Promise<CaptureClient | undefined> => {
    await expect.poll(() => clients.length).toBeGreaterThanOrEqual(count)
    return clients[count - 1]
  }
  return { settle, pins, pursuit, look, paths, asked: asked.promise, answer: answer.resolve }
}

it('a look that changes what other names of a file say has ended when these are to be looked at', async () => {
  const { settle, pursuit, look, asked, answer } = await opened()
  const other: boolean[] = []
  const answered = (): void => void other.push(settle.isPending({ volume: VOLUME, path: path('g') }))
  settle.found({ volume: VOLUME, path: path('f') }, 'event', { answered }, performance.now())
  pursuit.wake()
  const client = await look(1)
  client?.ended({ kind: 'version', version: fileVersion('y', { inode: 7n, links: 2, ctimeNs: 9n }), durationMs: 0 })
  await asked
  answer()
  await expect.poll(() => other).toEqual([true])
})

it('what waits is settled when it has been looked at where a directory above it has brought it', async () => {
  const { settle, pursuit, look } = await opened()
  settle.changed({ volume: VOLUME, path: path('d/h') }, performance.now())
  let isSettled = false
  const wait = async (): Promise<void> => {
    await pursuit.settled(VOLUME, new AbortController().signal)
    isSettled = true
  }
  const settled = wait()
  const old = await look(1)
  settle.renamed(VOLUME, path('d'), path('e'), performance.now())
  old?.ended({ kind: 'gone', topmost: path('d') })
  const others = [await look(2), await look(3)]
  expect(isSettled).toBe(false)
  for (const other of others) other?.ended({ kind: 'gone', topmost: path('d') })
  await settled
})

it('beside many versions only a few looks are under way, and those for which others wait', async () => {
  const { settle, pins, pursuit, paths } = await opened(1000)
  for (let i = 0; i < 100; i++)
    pins.add({ volume: VOLUME, path: path(`v${i}`), fd: 0, writer: undefined, attempts: 0, busy: 0, release: () => {} })
  for (let i = 0; i < 50; i++) settle.changed({ volume: VOLUME, path: path(`f${i}`) }, performance.now())
  const looks = (): string[] => paths.filter((at) => /^[fg]/.test(at))
  pursuit.wake()
  await expect.poll(() => paths.length).toBeGreaterThan(100)
  for (let count = 1; count <= 3; count++) {
    settle.found({ volume: VOLUME, path: path(`g${count}`) }, 'event', { answered: () => {} }, performance.now(), { isUrgent: true })
    pursuit.wake()
    await expect.poll(looks).toContain(`g${count}`)
  }
  expect(looks().filter((at) => at.startsWith('f'))).toHaveLength(32)
})

it('a closed version that seems to be written is tried again beyond 30 ms, and its path is looked at only when it is given up', async () => {
  const { pins, pursuit, look, paths } = await opened()
  const directory = scratchDirectory()
  writeFileSync(`${directory}/v`, 'x')
  const fd = openSync(`${directory}/v`, 'r')
  onTestFinished(() => closeSync(fd))
  let isReleased = false
  const release = (): void => {
    isReleased = true
  }
  pins.add({ volume: VOLUME, path: path('v'), fd, writer: undefined, attempts: 0, busy: 0, release })
  const beganMs = performance.now()
  for (let attempt = 1; attempt <= 8; attempt++) {
    pursuit.wake()
    const client = await look(attempt)
    expect(isReleased).toBe(false)
    client?.ended({ kind: 'busy' })
  }
  await expect.poll(() => isReleased).toBe(true)
  expect(performance.now() - beganMs).toBeGreaterThan(250)
  expect(paths).toEqual(Array(paths.length).fill('v'))
  const instead = await look(9)
  instead?.ended({ kind: 'gone', topmost: path('v') })
})
