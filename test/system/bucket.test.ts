import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CopyReport } from '../../collector/copier.ts'
import { S3Copy } from '../../collector/repository/copy-s3.ts'
import { CuttingProxy } from '../support/cutting-proxy.ts'
import { fetchCopy } from '../support/fetched-copy.ts'
import { freePort } from '../support/free-port.ts'
import { Installation } from '../support/installation.ts'
import { hasObjectStore, ObjectStore } from '../support/object-store.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const UP_MS_MAX = 120_000
const SECONDS = 90
const FILE_BYTES = 4_000_000
const KILLS = 6
const never = new AbortController().signal

describe.skipIf(!hasObjectStore)(`a copy in a bucket (PACSIMILE_SEED=${SEED})`, () => {
  let store: ObjectStore
  let installation: Installation
  let source: string
  let bucket: string

  beforeAll(async () => {
    store = await ObjectStore.start()
  }, UP_MS_MAX)
  afterAll(() => store.stop(), UP_MS_MAX)

  async function running(port: number): Promise<void> {
    installation = await Installation.make()
    source = join(installation.directory, 'source')
    bucket = await store.bucket()
    await startCollector()
    const options = ['--endpoint', `http://127.0.0.1:${port}`, '--credentials-file', store.credentialsFile, '--data', installation.data]
    installation.run('copy', 'add', 'vault', `s3:${bucket}/site`, ...options)
    installation.enroll('pacs1', source)
    writeFileSync(join(source, 'first.dcm'), new Random(1).bytes(100_000))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
  }

  async function startCollector(): Promise<void> {
    installation.startCollector()
    await installation.up()
  }

  async function copyStatus(data = installation.data): Promise<CopyReport | undefined> {
    return (await installation.statusIfUp(data))?.copies[0]
  }

  async function untilCurrent(): Promise<void> {
    await until('the copy is current', SECONDS, async () => {
      const found = await copyStatus()
      return found?.state === 'current' && found.behindBytes === 0 ? true : undefined
    })
  }

  async function fetched(): Promise<string> {
    const place = { bucket, prefix: 'site', endpoint: store.endpoint, credentialsFile: store.credentialsFile }
    await using copy = await S3Copy.open(place, never)
    return await fetchCopy(copy)
  }

  function check(repository: string): unknown {
    const keyFile = join(installation.data, 'keys/repository.key')
    return installation.json('check', '--repository', repository, '--key-file', keyFile)
  }

  async function expectRestored(): Promise<void> {
    const repository = await fetched()
    expect(check(repository)).toMatchObject({ whole: true, damage: [], affected: [] })
    const to = join(installation.directory, `restored-${Math.random()}`)
    const options = ['--repository', repository, '--key-file', join(installation.data, 'keys/repository.key')]
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, ...options)
    expect(differences(walkTree(source), walkTree(to))).toEqual([])
  }

  it('is cut off in the middle of an upload, again and again, and has everything in the end', async () => {
    const proxy = await CuttingProxy.to(store.port)
    await running(proxy.port)
    await untilCurrent()
    const random = new Random(SEED)
    for (let cut = 0; cut < 4; cut++) {
      proxy.cutAfter(100_000 + random.below(6_000_000))
      for (let i = 0; i < 6; i++) writeFileSync(join(source, `${cut}-${i}.dcm`), random.bytes(FILE_BYTES))
      await until(`cut ${cut}`, SECONDS, () => (proxy.cuts > cut ? true : undefined))
      await until('it is failing', SECONDS, async () => ((await copyStatus())?.state === 'failing' ? true : undefined))
      // The archive goes on.
      await installation.wait('pacs1')
      expect(check(await fetched()), `after cut ${cut}`).toMatchObject({ whole: true, damage: [], affected: [] })
      proxy.restore()
    }
    await untilCurrent()
    await expectRestored()
    const parts = (await store.keys(bucket)).filter((key) => key.startsWith('site/packs/01/') && key.includes('.tail-'))
    expect(parts, 'parts of a finished pack').toEqual([])
  })

  it('is written by one of two collectors of which the one is a clone of the other', async () => {
    await running(store.port)
    await untilCurrent()
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    const clone = join(installation.directory, 'clone')
    cpSync(installation.data, clone, { recursive: true })
    const config = join(clone, 'collector.toml')
    writeFileSync(config, readFileSync(config, 'utf8').replace(`:${installation.port}`, `:${await freePort()}`))
    await startCollector()
    installation.startCollector(clone, 'clone')
    await installation.up(clone)
    const statesOf = async (...data: string[]): Promise<(string | undefined)[]> =>
      (await Promise.all(data.map(copyStatus))).map((status) => status?.state)
    const both = [installation.data, clone]
    await until('one is shut out', SECONDS, async () => ((await statesOf(...both)).includes('forked') ? true : undefined))
    expect((await statesOf(...both)).filter((state) => state === 'forked')).toHaveLength(1)
    // A person decides, and ends the one that should not be.
    await installation.kill('clone', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    await startCollector()
    installation.startAgent('pacs1')
    writeFileSync(join(source, 'second.dcm'), new Random(2).bytes(FILE_BYTES))
    await installation.wait('pacs1')
    await untilCurrent()
    await expectRestored()
    // The other does not find what it left, and is shut out for good.
    installation.startCollector(clone, 'clone')
    await until('the clone is shut out', SECONDS, async () => ((await statesOf(clone)).includes('forked') ? true : undefined))
  })

  it('is whole whenever the collector is killed while it copies', async () => {
    await running(store.port)
    const random = new Random(SEED)
    for (let kill = 0; kill < KILLS; kill++) {
      for (let i = 0; i < 4; i++) writeFileSync(join(source, `${kill}-${i}.dcm`), random.bytes(FILE_BYTES))
      await setTimeout(random.below(3000))
      await installation.kill('collector')
      expect(check(await fetched()), `after kill ${kill}`).toMatchObject({ whole: true, damage: [], affected: [] })
      await startCollector()
    }
    await installation.wait('pacs1')
    await untilCurrent()
    await expectRestored()
  })
})
