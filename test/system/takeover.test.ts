import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CopyReport } from '../../collector/copier.ts'
import { Installation } from '../support/installation.ts'
import { LAUNCHER } from '../support/launcher.ts'
import { hasObjectStore, ObjectStore } from '../support/object-store.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const UP_MS_MAX = 120_000
const SECONDS = 90
const FILE_BYTES = 3_000_000
const FILES = 30

let store: ObjectStore | undefined

const PLACES = {
  'a directory': () => Promise.resolve([`fs:${join(scratchDirectory(), 'copy')}`]),
  'a bucket': async () => {
    if (store === undefined) throw new Error('no object store')
    return [`s3:${await store.bucket()}/site`, '--endpoint', store.endpoint, '--credentials-file', store.credentialsFile]
  },
}

describe.each(Object.keys(PLACES) as (keyof typeof PLACES)[])('from a copy in %s', (kind) => {
  const isPossible = kind === 'a directory' || hasObjectStore
  let installation: Installation
  let source: string
  let key: string
  let place: string[]

  beforeAll(async () => {
    if (kind === 'a bucket' && isPossible) store = await ObjectStore.start()
  }, UP_MS_MAX)
  afterAll(async () => {
    await store?.stop()
    store = undefined
  }, UP_MS_MAX)

  const copyOf = async (data: string): Promise<CopyReport | undefined> => (await installation.statusIfUp(data))?.copies[0]

  async function untilCurrent(data: string): Promise<void> {
    await until('the copy is current', SECONDS, async () => {
      const copy = await copyOf(data)
      return copy?.state === 'current' && copy.behindBytes === 0 ? true : undefined
    })
  }

  /** A collector, an agent with an archive, and a copy that has all of it. */
  async function protectedArchive(): Promise<void> {
    installation = await Installation.make()
    source = join(installation.directory, 'source')
    place = await PLACES[kind]()
    key = join(scratchDirectory(), 'repository.key')
    cpSync(join(installation.data, 'keys/repository.key'), key)
    installation.startCollector()
    await installation.up()
    installation.run('copy', 'add', 'vault', ...place, '--data', installation.data)
    installation.enroll('pacs1', source)
    const random = new Random(9)
    for (let i = 0; i < FILES; i++) writeFileSync(join(source, `${i}.dcm`), random.bytes(FILE_BYTES))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await untilCurrent(installation.data)
  }

  function initFrom(data: string, ...options: string[]): ReturnType<Installation['try']> {
    const listen = ['--listen', `127.0.0.1:${installation.port}`]
    return installation.try('collector', 'init', '--data', data, '--from', ...place, '--key-file', key, ...listen, '--json', ...options)
  }

  function expectRestored(data: string): void {
    const to = join(scratchDirectory(), 'restored')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', data, '--key-file', key)
    expect(differences(walkTree(source), walkTree(to))).toEqual([])
  }

  const epochsOf = (data: string): number =>
    installation
      .run('log', 'pacs1:images', '--data', data)
      .stdout.split('\n')
      .filter((line) => line.includes(' begins: ')).length

  it.skipIf(!isPossible)('a new collector has everything, and the agent goes on with it as if nothing had been', async () => {
    await protectedArchive()
    await installation.kill('collector')
    const data = join(installation.directory, 'second')
    const lost = join(installation.directory, 'lost')
    renameSync(installation.data, lost)
    // It was at work a moment ago, and is dead: that is for a person to say.
    expect(initFrom(data)).toMatchObject({ status: 13 })
    expect(existsSync(data)).toBe(false)
    const made = initFrom(data, '--take-over')
    expect(made.stderr).toBe('')
    expect(JSON.parse(made.stdout)).toMatchObject({ hasIdentity: true, damage: [] })
    installation.startCollector(data, 'second')
    await installation.up(data)
    writeFileSync(join(source, 'later.dcm'), new Random(4).bytes(FILE_BYTES))
    await installation.wait('pacs1', 50, data)
    expectRestored(data)
    expect(differences(walkTree(source), walkTree(join(data, 'replica/pacs1/images')))).toEqual([])
    expect(epochsOf(data)).toBe(1)
    await untilCurrent(data)
    expect(installation.json('check', '--repository', join(data, 'repository'), '--key-file', key)).toMatchObject({
      whole: true,
      damage: [],
    })
  })

  it.skipIf(!isPossible)('the old collector is shut out, whatever it has on its way, and its history stays out of the copy', async () => {
    await protectedArchive()
    const data = join(installation.directory, 'second')
    const isShutOut = async (): Promise<true | undefined> => ((await copyOf(installation.data))?.state === 'forked' ? true : undefined)
    // Under way while the copy changes hands.
    const random = new Random(5)
    const writing = (async () => {
      for (let i = 0; i < 12; i++) {
        writeFileSync(join(source, `under-way-${i}.dcm`), random.bytes(FILE_BYTES))
        await setTimeout(100)
      }
    })()
    const from = ['--from', ...place, '--key-file', key, '--take-over', '--listen', `127.0.0.1:${installation.port}`]
    const child = spawn(LAUNCHER, ['collector', 'init', '--data', data, ...from])
    const [status] = (await once(child, 'exit')) as [number]
    expect(status).toBe(0)
    await writing
    await until('the old one is shut out', SECONDS, isShutOut)
    await installation.kill('collector')
    installation.startCollector(data, 'second')
    await installation.up(data)
    await installation.wait('pacs1', 50, data)
    expectRestored(data)
    await untilCurrent(data)
    // Started again, the old one leaves it alone.
    await installation.kill('second', 'SIGTERM')
    installation.startCollector()
    await until('the old one is shut out still', SECONDS, isShutOut)
    await installation.kill('collector', 'SIGTERM')
    // Once more from the copy: it holds what the second one wrote, and nothing else.
    const third = join(installation.directory, 'third')
    expect(initFrom(third)).toMatchObject({ status: 0 })
    expect(installation.json('check', '--repository', join(third, 'repository'), '--key-file', key)).toMatchObject({
      whole: true,
      damage: [],
    })
    expectRestored(third)
  })

  it.skipIf(!isPossible)('what was fetched is kept when it is killed, and the same command goes on there', async () => {
    await protectedArchive()
    await installation.kill('collector', 'SIGTERM')
    const data = join(installation.directory, 'second')
    let begun = 0
    for (let kill = 0; kill < 3; kill++) {
      const child = spawn(LAUNCHER, ['collector', 'init', '--data', data, '--from', ...place, '--key-file', key, '--take-over'])
      const first = `${data}.partial/repository/repository.json`
      await until('it has begun', SECONDS, () => (existsSync(first) || existsSync(data) ? true : undefined))
      // Those that go on need their time to start.
      await setTimeout(kill * 250)
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      begun += Number(existsSync(`${data}.partial/repository/repository.json`))
      // It was faster. The copy is another one's now, whose directory is gone.
      if (existsSync(data)) rmSync(data, { recursive: true })
    }
    expect(begun).toBeGreaterThan(0)
    expect(initFrom(data, '--take-over')).toMatchObject({ status: 0, stderr: '' })
    // As it is when it is killed between its last steps: the configuration is there, and what says that all is not.
    const mark = (directory: string): void => writeFileSync(join(directory, 'from.json'), JSON.stringify({ url: place[0], isClosed: true }))
    renameSync(data, `${data}.partial`)
    mark(`${data}.partial`)
    expect(initFrom(data)).toMatchObject({ status: 0 })
    mark(data)
    expect(initFrom(data)).toMatchObject({ status: 0 })
    // Another one has taken it over since: that is not taken back unasked.
    const other = join(installation.directory, 'other')
    expect(initFrom(other, '--take-over')).toMatchObject({ status: 0 })
    mark(data)
    expect(initFrom(data)).toMatchObject({ status: 13, stderr: expect.stringContaining('--take-over') as string })
    expect(initFrom(data, '--take-over')).toMatchObject({ status: 0 })
    rmSync(other, { recursive: true })
    // A collector has run there since.
    mark(data)
    mkdirSync(join(data, 'catalog'))
    expect(initFrom(data)).toMatchObject({ status: 9, stderr: expect.stringContaining('a collector was initialised there') as string })
    rmSync(join(data, 'catalog'), { recursive: true })
    rmSync(join(data, 'from.json'))
    expect(readFileSync(join(data, 'collector.toml'), 'utf8')).toContain(key)
    expect(installation.json('check', '--repository', join(data, 'repository'), '--key-file', key)).toMatchObject({
      whole: true,
      damage: [],
    })
    expectRestored(data)
  })
})
