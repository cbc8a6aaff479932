import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { CopiedSite } from '../support/copied-site.ts'
import type { Installation } from '../support/installation.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SECONDS = 60
const KILLS = 12
/** So that packs are sealed while the collector is killed. */
const FILE_BYTES = 4_000_000

let site: CopiedSite

/** A collector and an agent that run, with a file. */
async function running(): Promise<Installation> {
  site = await CopiedSite.make()
  await site.startCollector()
  await site.protect(1, 100_000)
  return site.installation
}

function askFor({ data }: Installation, ackCopies: number): void {
  const file = join(data, 'collector.toml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('ackCopies = 1', `ackCopies = ${ackCopies}`))
}

describe('a copy in a directory', () => {
  it('that is added to a running collector catches up, goes away, comes back, and is a repository all the time', async () => {
    const installation = await running()
    const { source } = site
    const copy = join(installation.directory, 'copy')
    site.addCopy('usb', `fs:${copy}`)
    await site.untilState('current')
    site.expectRestored(copy)

    renameSync(copy, `${copy}.away`)
    mkdirSync(copy)
    await site.untilState('failing')
    writeFileSync(join(source, 'second.dcm'), new Random(2).bytes(200_000))
    await installation.wait('pacs1')
    installation.json('keys', 'add', 'recovery', '--data', installation.data)
    expect(installation.run('status', '--data', installation.data).stdout).toContain('mounted')
    expect(existsSync(join(copy, 'packs'))).toBe(false)
    renameSync(`${copy}.away`, copy)
    await site.untilState('current')
    site.expectRestored(copy)
    const slots = (repository: string): unknown =>
      (installation.json('keys', 'list', '--repository', repository) as { slots: unknown[] }).slots.length
    await until('the new key slot is there', SECONDS, () => (slots(copy) === 3 ? true : undefined))

    installation.run('copy', 'remove', 'usb', '--data', installation.data)
    expect(site.status.copies).toEqual([])
    site.expectRestored(copy)
    // Its own writer may go on with it, also while no collector runs.
    await installation.kill('collector', 'SIGTERM')
    site.addCopy('usb', `fs:${copy}`)
    expect(installation.run('copy', 'list', '--data', installation.data).stdout).toContain(`fs:${copy}`)
    writeFileSync(join(source, 'third.dcm'), 'third')
    await site.startCollector()
    await installation.wait('pacs1')
    await site.untilState('current')
    site.expectRestored(copy)
  })

  it(`is whole whenever the collector is killed while it copies (PACSIMILE_SEED=${SEED})`, async () => {
    const installation = await running()
    const { source } = site
    const random = new Random(SEED)
    const copy = join(installation.directory, 'copy')
    site.addCopy('usb', `fs:${copy}`)
    const options = ['--repository', copy, ...site.keyOptions]
    for (let kill = 0; kill < KILLS; kill++) {
      for (let i = 0; i < 3; i++) writeFileSync(join(source, `${kill}-${i}.dcm`), random.bytes(FILE_BYTES))
      await setTimeout(random.below(900))
      await installation.kill('collector')
      expect(installation.json('check', ...options), `after kill ${kill}`).toMatchObject({ whole: true, damage: [], affected: [] })
      await site.startCollector()
    }
    await installation.wait('pacs1')
    await site.untilState('current')
    site.expectRestored(copy)
    expect(existsSync(join(copy, 'packs/02'))).toBe(true)
  })
})

describe('with ackCopies = 2', () => {
  it('the collector does not start without a copy', async () => {
    site = await CopiedSite.make()
    const { installation } = site
    askFor(installation, 2)
    const { status, stderr } = installation.try('collector', 'run', '--data', installation.data)
    expect(status).toBe(9)
    expect(stderr).toContain('ackCopies')
  })

  it('nothing is acknowledged while the copy is gone, nothing is lost, and all is when it is back', async () => {
    site = await CopiedSite.make()
    const { installation, source } = site
    const copy = join(installation.directory, 'copy')
    site.addCopy('usb', `fs:${copy}`)
    askFor(installation, 2)
    await site.startCollector()
    await site.protect(1, 100_000)
    const agent = (): { headSeq: number; ackedSeq: number } =>
      installation.json('agent', 'status', '--state', installation.stateOf('pacs1')) as { headSeq: number; ackedSeq: number }
    await until('all is acknowledged', SECONDS, () => (agent().ackedSeq === agent().headSeq ? true : undefined))
    const refused = installation.try('copy', 'remove', 'usb', '--data', installation.data)
    expect(refused.status).toBe(2)

    renameSync(copy, `${copy}.away`)
    await site.untilState('failing')
    const before = agent().ackedSeq
    writeFileSync(join(source, 'second.dcm'), new Random(2).bytes(200_000))
    // Committed and in the replica, and not acknowledged.
    await installation.wait('pacs1')
    expect(agent()).toMatchObject({ ackedSeq: before })
    expect(agent().headSeq).toBeGreaterThan(before)
    // Nor by a welcome, whoever starts anew.
    await installation.kill('collector')
    await site.startCollector()
    await installation.wait('pacs1')
    await installation.kill('pacs1')
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    // An agent that was killed may have forgotten its last acks, and is given none.
    expect(agent().ackedSeq).toBeLessThanOrEqual(before)

    renameSync(`${copy}.away`, copy)
    await until('all is acknowledged', SECONDS, () => (agent().ackedSeq === agent().headSeq ? true : undefined))
    await site.untilState('current')
    site.expectRestored(copy)
  })
})
