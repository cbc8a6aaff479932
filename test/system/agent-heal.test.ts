import { chmodSync, closeSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { HealedFile } from '../../collector/scrub.ts'
import { CopiedSite } from '../support/copied-site.ts'
import type { Outcome } from '../support/installation.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

/** More than a pack holds, so that one of them is full and has parity. */
const FILES = 80
const FILE_BYTES = 1_000_000
const SECONDS = 90
const PACK = 'packs/01/000000000001.pack'

/** A collector that keeps no replica, and an agent; the first pack is full. */
async function archive(): Promise<CopiedSite> {
  const site = await CopiedSite.make()
  const config = join(site.installation.data, 'collector.toml')
  writeFileSync(config, `replica = false\n${readFileSync(config, 'utf8').replace(/^replica = true$/m, '')}`)
  await site.startCollector()
  await site.protect(FILES, FILE_BYTES)
  await until('the pack is sealed', SECONDS, () => ((statSync(join(site.repository, PACK)).mode & 0o222) === 0 ? true : undefined))
  return site
}

/** A third of the pack: three or more blocks of every stripe, while nothing runs. */
async function destroy({ installation, repository }: CopiedSite): Promise<void> {
  await installation.kill('pacs1', 'SIGTERM')
  await installation.kill('collector', 'SIGTERM')
  const pack = join(repository, PACK)
  const third = Math.floor(statSync(pack).size / 3)
  chmodSync(pack, 0o600)
  const fd = openSync(pack, 'r+')
  writeSync(fd, Buffer.alloc(third, 0x55), 0, third, third)
  closeSync(fd)
  chmodSync(pack, 0o400)
}

function scrub({ installation }: CopiedSite): Outcome {
  return installation.try('scrub', '--data', installation.data)
}

/** The paths of versions whose content cannot be read. */
function affectedIn({ installation, repository }: CopiedSite): string[] {
  const { stdout } = installation.try('check', '--repository', repository, '--json')
  return [...new Set((JSON.parse(stdout) as { affected: { path: string }[] }).affected.map(({ path }) => path))].sort()
}

/** What comes back of a moment, and what `restore` says is missing. */
function restored({ installation, repository }: CopiedSite, at: string): Copy {
  const to = join(scratchDirectory(), 'restored')
  installation.try('restore', 'pacs1:images', '--at', at, '--to', to, '--repository', repository)
  return walkTree(to)
}

function sourcesOfHeals({ repository }: CopiedSite): string[] {
  const lines = readFileSync(join(repository, 'heals.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => (JSON.parse(line) as HealedFile).source)
}

describe('content that nobody has any more but the agent', () => {
  it('is asked for when the agent is there, stored once more, and restored when it is gone', async () => {
    const site = await archive()
    const { installation, source } = site
    const truth = walkTree(source)
    await destroy(site)
    expect(affectedIn(site).length).toBeGreaterThan(10)
    // Without the agent it is damage, and said why.
    await site.startCollector()
    const alone = scrub(site)
    expect(alone).toMatchObject({ status: 3, stdout: expect.stringContaining('Damaged still') })
    expect(site.status.damage).toBeGreaterThan(0)
    expect(installation.run('ls', 'pacs1:images', '--data', installation.data).stderr).toContain('Agent pacs1 is not connected')
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    expect(scrub(site)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('Made good from agent pacs1: packs/01/000000000001.pack'),
    })
    expect(site.status.damage).toBe(0)
    expect(sourcesOfHeals(site)).toEqual(['agent pacs1'])
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    rmSync(source, { recursive: true })
    expect(installation.run('check', '--repository', site.repository).stdout).toContain('is stored elsewhere')
    expect(differences(truth, restored(site, 'now'))).toEqual([])
    expect(installation.json('rebuild', '--data', installation.data)).toMatchObject({ before: 'equal' })
    expect(differences(truth, restored(site, 'now'))).toEqual([])
  })

  it('is named where the live file is another by now, and never another content', async () => {
    const site = await archive()
    const { installation, source } = site
    const truth = walkTree(source)
    const before = new Date().toISOString()
    await destroy(site)
    const [changed = '', deleted = ''] = affectedIn(site)
    await site.startCollector()
    // One of the same size, in its place, and one that is gone.
    writeFileSync(join(source, changed), new Random(99).bytes(FILE_BYTES))
    rmSync(join(source, deleted))
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    expect(scrub(site).status).toBe(3)
    expect(affectedIn(site)).toEqual([changed, deleted].sort())
    expect(sourcesOfHeals(site)).toEqual(['agent pacs1'])
    expect(site.status.damage).toBeGreaterThan(0)
    // What was there before lacks these two, and has nothing else in their place.
    expect(differences(truth, restored(site, before)).sort()).toEqual(
      [changed, deleted].sort().map((path) => `${JSON.stringify(path)} is missing`),
    )
    expect(differences(walkTree(source), restored(site, 'now'))).toEqual([])
  })
})
