/** A catalog that is lost, with agents that do not stop. */
import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { ChunkCache } from '../../collector/chunk-cache.ts'
import { Ingest } from '../../collector/ingest.ts'
import { openKeys } from '../../collector/repository/keys.ts'
import { Repository, readDescription } from '../../collector/repository/repository.ts'
import { RunningTime } from '../../collector/running-time.ts'
import { silentLog } from '../../shared/log.ts'
import { Installation } from '../support/installation.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'

const RECORDS = 12_000
const PATHS = 200
/** Of records so large there are more than are folded before anybody connects. */
const XATTR_BYTES = 500
/** A fold of half a second takes longer than an agent waits before it tries again. */
const SLOWLY = { PACSIMILE_TEST_FOLD_PAUSE: '1500' }
const RECORDS_AT_ONCE = 2000
const EXIT_NOT_YET = 7

/** As docs/json.md says of `status`. */
interface Status {
  readonly rebuilding?: { readonly records: number; readonly percent: number }
  readonly agents: readonly { readonly name: string; readonly acked: number; readonly applied: number }[]
}

/** A collector that has the long history of an agent that is away. */
async function withHistory(): Promise<Installation> {
  const installation = await Installation.make()
  const directory = join(installation.data, 'repository')
  const key = openKeys(directory, readDescription(directory).id, { kind: 'key-file', file: join(installation.data, 'keys/repository.key') })
  const catalog = await Catalog.open(join(installation.data, 'catalog'))
  const repository = Repository.openForAppending(directory, key)
  const ingest = new Ingest({ repository, catalog, cache: new ChunkCache(0), log: silentLog, age: new RunningTime(0), onCommit() {} })
  const stop = new AbortController()
  const running = ingest.run(stop.signal)
  const writer = new JournalWriter({ agent: 'old' })
  const session = { agent: writer.agent, lost: new Set<never>(), committed() {}, failed: (error: unknown) => expect(error).toBeUndefined() }
  for (let i = 0; i < RECORDS; i++) {
    const xattrs = [{ name: 'user.x', value: randomBytes(XATTR_BYTES).toString('latin1') }]
    writer.put(`directory${i % PATHS}`, directoryVersion({ xattrs }))
    if (writer.written.length < RECORDS_AT_ONCE) continue
    await ingest.submit({ session, records: writer.written.splice(0).map(({ bytes }) => bytes) })
  }
  stop.abort()
  await running
  await catalog.close()
  await repository.sealed()
  repository.close()
  return installation
}

async function write(directory: string, signal: AbortSignal): Promise<void> {
  for (let i = 0; !signal.aborted; i++) {
    writeFileSync(join(directory, `file${i % 50}`), randomBytes(2000))
    await setTimeout(20)
  }
}

describe('a catalog that is lost', () => {
  it('is made anew while agents are taken in, stopped or killed meanwhile, and the replica and restores are right afterwards', async () => {
    const installation = await withHistory()
    const source = scratchDirectory()
    const { data } = installation
    const status = (): Status | undefined => {
      const { status: exit, stdout } = installation.try('status', '--data', data, '--json')
      return exit === 0 ? (JSON.parse(stdout) as Status) : undefined
    }
    const acked = (of: Status | undefined): number => of?.agents.find(({ name }) => name === 'pacs1')?.acked ?? 0
    installation.startCollector()
    await installation.up(data)
    installation.enroll('pacs1', source)
    installation.startAgent('pacs1')
    writeFileSync(join(source, 'before'), 'written before')
    await installation.wait('pacs1')
    let last = acked(status())
    expect(last).toBeGreaterThan(0)

    const stop = new AbortController()
    const writing = write(source, stop.signal)
    onTestFinished(() => stop.abort())
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await installation.kill('collector')
      rmSync(join(data, 'catalog'), { recursive: true })
      installation.startCollector(data, 'collector', SLOWLY)
      const during = await until('an acknowledgement while the catalog is made', 60, () => {
        const now = status()
        expect(now === undefined || now.rebuilding !== undefined, 'it was not seen before the catalog was made').toBe(true)
        return now !== undefined && acked(now) > last + 5 ? now : undefined
      })
      last = acked(during)
      expect(during.rebuilding?.percent).toBeLessThan(100)
      const asked = installation.try('ls', 'pacs1:images', '--data', data, '--json')
      expect(asked.status).toBe(EXIT_NOT_YET)
      expect(asked.stderr).toContain('"rebuilding"')
      await installation.kill('collector', signal)
      // From where it was.
      installation.startCollector()
      await until('the collector', 30, status)
    }
    await until('the whole catalog', 60, () => {
      const now = status()
      return now?.rebuilding === undefined ? now : undefined
    })
    stop.abort()
    await writing
    await installation.wait('pacs1')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    const target = join(scratchDirectory(), 'restored')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', target, '--data', data)
    expect(differences(walkTree(source), walkTree(target))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    // Nothing is missing from it, of what was folded and of what was taken in meanwhile.
    expect(JSON.parse(installation.run('rebuild', '--data', data, '--json').stdout)).toMatchObject({ before: 'equal', damage: [] })
  })
})
