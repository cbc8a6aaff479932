/** Deep scans: what is read although nothing says that it changed, and what comes of it. */
import { lstatSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Capture } from '../../agent/capture.ts'
import type { ExamineJob, Outcome } from '../../agent/capture-job.ts'
import { fileStat, type Identity } from '../../agent/file-stat.ts'
import { Settle } from '../../agent/settle.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { digestOf } from '../../shared/digest.ts'
import { callLocal } from '../../shared/local-api.ts'
import { silentLog } from '../../shared/log.ts'
import { byteString } from '../../shared/path.ts'
import { path, VOLUME } from '../support/agent-parts.ts'
import { LoneAgent } from '../support/lone-agent.ts'
import { scratchDirectory } from '../support/scratch.ts'

const PLACE = { volume: VOLUME, path: path('f') }
const TICKET = { answered: (): void => {} }

describe('a look at a file whose times say that it did not change', () => {
  async function look(job: Partial<ExamineJob>, doubt: Identity['doubt'] = 'none'): Promise<Outcome> {
    const directory = scratchDirectory()
    const file = join(directory, 'f')
    writeFileSync(file, 'content')
    const { dev, ino } = lstatSync(directory, { bigint: true })
    const capture = new Capture(silentLog, () => {})
    onTestFinished(() => capture.close())
    const root = { directory: byteString(directory), device: dev, inode: ino }
    const known = { ...fileStat(lstatSync(file, { bigint: true })), doubt }
    const { promise, resolve } = Promise.withResolvers<Outcome>()
    const examined = { kind: 'examine', path: path('f'), known, storedDigests: digestOf(Buffer.from('content')), asIs: false } as const
    const client = { taken: (): undefined => undefined, ended: resolve }
    capture.dispatch(root, DEFAULT_CHUNK_SIZES, [
      [{ ...examined, isDeep: false, wasStable: true, pin: undefined, shipBytesMax: 1000, ...job }, client],
    ])
    return promise
  }

  it('reads it when it is deep, and finds it the same', async () => {
    expect(await look({ isDeep: true })).toEqual({ kind: 'same' })
  })

  it('calls it decayed when it is deep and the content is another', async () => {
    expect(await look({ isDeep: true, storedDigests: digestOf(Buffer.from('CONTENT')) })).toEqual({ kind: 'rotten' })
  })

  it.each(['unstable', 'none'] as const)('captures it when what is known of it was not read under a lease (%s)', async (doubt) => {
    const outcome = await look({ isDeep: true, wasStable: false, storedDigests: digestOf(Buffer.from('CONTENT')) }, doubt)
    expect(outcome).toMatchObject({ kind: 'version', version: { digest: digestOf(Buffer.from('content')) } })
  })

  it('believes the times otherwise', async () => {
    expect(await look({ storedDigests: digestOf(Buffer.from('CONTENT')) })).toEqual({ kind: 'same' })
  })

  it('captures what was lost, deep or not', async () => {
    for (const isDeep of [true, false]) expect(await look({ isDeep }, 'lost')).toMatchObject({ kind: 'version' })
  })
})

describe('a deep wish', () => {
  it('lasts until a look has ended, also when the file was busy', () => {
    const settle = new Settle(() => {})
    settle.found(PLACE, 'scan', TICKET, 0, { isDeep: true })
    expect(settle.take(0, 1, 'all')).toMatchObject([{ isDeep: true }])
    settle.finished(PLACE, { kind: 'busy' }, 0)
    expect(settle.take(1000, 1, 'all')).toMatchObject([{ isDeep: true }])
    settle.finished(PLACE, { kind: 'done' }, 1000)
    settle.changed(PLACE, 2000)
    expect(settle.take(2000, 1, 'all')).toMatchObject([{ isDeep: false }])
  })

  it('that comes during a look leads to another one', () => {
    const settle = new Settle(() => {})
    settle.changed(PLACE, 0)
    expect(settle.take(0, 1, 'all')).toMatchObject([{ isDeep: false }])
    settle.found(PLACE, 'scan', TICKET, 1, { isDeep: true })
    settle.finished(PLACE, { kind: 'done' }, 2)
    expect(settle.take(2, 1, 'all')).toMatchObject([{ isDeep: true }])
  })
})

describe('an agent that is asked for a scan', () => {
  it('answers when what was found is recorded', async () => {
    const agent = new LoneAgent()
    agent.write('d/f', 'one')
    await agent.startAndWatch()
    agent.write('d/new', 'untold')
    const ask = (body: unknown): Promise<unknown> =>
      callLocal(join(agent.stateDir, 'agent.sock'), 'scan', body, { unreachable: 'agent-unreachable' })
    const before = agent.status?.headSeq ?? 0
    expect(await ask({ deep: false })).toMatchObject({
      volumes: [{ name: 'images', method: 'walk', entries: 4, differences: 2, unannounced: 2 }],
    })
    expect(agent.status?.headSeq).toBeGreaterThanOrEqual(before + 2)
    expect(await ask({ deep: true })).toMatchObject({
      volumes: [{ name: 'images', method: 'walk', reason: 'a deep scan walks', entries: 4, differences: 0, unannounced: 0 }],
    })
  })

  it('says so when a volume is paused', async () => {
    const agent = new LoneAgent()
    rmSync(agent.volume, { recursive: true })
    agent.start()
    await agent.is('paused')
    for (const deep of [false, true]) {
      const asked = callLocal(join(agent.stateDir, 'agent.sock'), 'scan', { deep }, { unreachable: 'agent-unreachable' })
      await expect(asked).rejects.toMatchObject({ code: 'incomplete' })
    }
  })
})
