import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { CollectorStatus } from '../../collector/status.ts'
import { Installation } from '../support/installation.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SECONDS = 60
const KILLS = 12
/** So that packs are sealed while the collector is killed. */
const FILE_BYTES = 4_000_000

let installation: Installation
let source: string

const statusOf = (): CollectorStatus => installation.json('status', '--data', installation.data) as CollectorStatus

async function startCollector(): Promise<void> {
  installation.startCollector()
  await installation.until('status', '--data', installation.data)
}

/** A collector and an agent that run, with a few files. */
async function running(): Promise<void> {
  installation = await Installation.make()
  source = join(installation.directory, 'source')
  await startCollector()
  installation.enroll('pacs1', source)
  writeFileSync(join(source, 'first.dcm'), new Random(1).bytes(100_000))
  installation.startAgent('pacs1')
  await installation.wait('pacs1')
}

function askFor(ackCopies: number): void {
  const file = join(installation.data, 'collector.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('ackCopies = 1', `ackCopies = ${ackCopies}`))
}

async function untilState(state: string): Promise<void> {
  let last: unknown
  try {
    await until(`the copy is ${state}`, SECONDS, () => {
      const { status, stdout } = installation.try('status', '--data', installation.data, '--json')
      if (status !== 0) return undefined
      last = (JSON.parse(stdout) as CollectorStatus).copies[0]
      return (last as { state: string }).state === state && (state !== 'current' || (last as { behindBytes: number }).behindBytes === 0)
        ? true
        : undefined
    })
  } catch (error) {
    throw new Error(`${String(error)}: ${JSON.stringify(last)}\n${installation.log('collector').slice(-2000)}`, { cause: error })
  }
}

/** The copy alone gives back what the source is. */
function expectRestored(copy: string): void {
  const options = ['--repository', copy, '--key-file', join(installation.data, 'keys/repository.key')]
  expect(installation.json('check', ...options)).toMatchObject({ whole: true, damage: [], affected: [] })
  const to = join(installation.directory, `restored-${Math.random()}`)
  installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, ...options)
  expect(differences(walkTree(source), walkTree(to))).toEqual([])
}

describe('a copy in a directory', () => {
  it('that is added to a running collector catches up, goes away, comes back, and is a repository all the time', async () => {
    await running()
    const copy = join(installation.directory, 'copy')
    installation.run('copy', 'add', 'usb', `fs:${copy}`, '--data', installation.data)
    await untilState('current')
    expectRestored(copy)

    renameSync(copy, `${copy}.away`)
    mkdirSync(copy)
    await untilState('failing')
    writeFileSync(join(source, 'second.dcm'), new Random(2).bytes(200_000))
    await installation.wait('pacs1')
    installation.json('keys', 'add', 'recovery', '--data', installation.data)
    expect(installation.run('status', '--data', installation.data).stdout).toContain('mounted')
    expect(existsSync(join(copy, 'packs'))).toBe(false)
    renameSync(`${copy}.away`, copy)
    await untilState('current')
    expectRestored(copy)
    const slots = (repository: string): unknown =>
      (installation.json('keys', 'list', '--repository', repository) as { slots: unknown[] }).slots.length
    await until('the new key slot is there', SECONDS, () => (slots(copy) === 3 ? true : undefined))

    installation.run('copy', 'remove', 'usb', '--data', installation.data)
    expect(statusOf().copies).toEqual([])
    expectRestored(copy)
    // Its own writer may go on with it, also while no collector runs.
    await installation.kill('collector', 'SIGTERM')
    installation.run('copy', 'add', 'usb', `fs:${copy}`, '--data', installation.data)
    expect(installation.run('copy', 'list', '--data', installation.data).stdout).toContain(`fs:${copy}`)
    writeFileSync(join(source, 'third.dcm'), 'third')
    await startCollector()
    await installation.wait('pacs1')
    await untilState('current')
    expectRestored(copy)
  })

  it(`is whole whenever the collector is killed while it copies (PACSIMILE_SEED=${SEED})`, async () => {
    await running()
    const random = new Random(SEED)
    const copy = join(installation.directory, 'copy')
    installation.run('copy', 'add', 'usb', `fs:${copy}`, '--data', installation.data)
    const options = ['--repository', copy, '--key-file', join(installation.data, 'keys/repository.key')]
    for (let kill = 0; kill < KILLS; kill++) {
      for (let i = 0; i < 3; i++) writeFileSync(join(source, `${kill}-${i}.dcm`), random.bytes(FILE_BYTES))
      await setTimeout(random.below(900))
      await installation.kill('collector')
      expect(installation.json('check', ...options), `after kill ${kill}`).toMatchObject({ whole: true, damage: [], affected: [] })
      await startCollector()
    }
    await installation.wait('pacs1')
    await untilState('current')
    expectRestored(copy)
    expect(existsSync(join(copy, 'packs/02'))).toBe(true)
  })
})

describe('with ackCopies = 2', () => {
  it('the collector does not start without a copy', async () => {
    installation = await Installation.make()
    askFor(2)
    const { status, stderr } = installation.try('collector', 'run', '--data', installation.data)
    expect(status).toBe(9)
    expect(stderr).toContain('ackCopies')
  })

  it('nothing is acknowledged while the copy is gone, nothing is lost, and all is when it is back', async () => {
    installation = await Installation.make()
    const copy = join(installation.directory, 'copy')
    installation.run('copy', 'add', 'usb', `fs:${copy}`, '--data', installation.data)
    askFor(2)
    source = join(installation.directory, 'source')
    await startCollector()
    installation.enroll('pacs1', source)
    writeFileSync(join(source, 'first.dcm'), new Random(1).bytes(100_000))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    const agent = (): { headSeq: number; ackedSeq: number } =>
      installation.json('agent', 'status', '--state', installation.stateOf('pacs1')) as { headSeq: number; ackedSeq: number }
    await until('all is acknowledged', SECONDS, () => (agent().ackedSeq === agent().headSeq ? true : undefined))
    const refused = installation.try('copy', 'remove', 'usb', '--data', installation.data)
    expect(refused.status).toBe(2)

    renameSync(copy, `${copy}.away`)
    await untilState('failing')
    const before = agent().ackedSeq
    writeFileSync(join(source, 'second.dcm'), new Random(2).bytes(200_000))
    // Committed and in the replica, and not acknowledged.
    await installation.wait('pacs1')
    expect(agent()).toMatchObject({ ackedSeq: before })
    expect(agent().headSeq).toBeGreaterThan(before)
    // Nor by a welcome, whoever starts anew.
    await installation.kill('collector')
    await startCollector()
    await installation.wait('pacs1')
    await installation.kill('pacs1')
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    // An agent that was killed may have forgotten its last acks, and is given none.
    expect(agent().ackedSeq).toBeLessThanOrEqual(before)

    renameSync(`${copy}.away`, copy)
    await until('all is acknowledged', SECONDS, () => (agent().ackedSeq === agent().headSeq ? true : undefined))
    await untilState('current')
    expectRestored(copy)
  })
})
