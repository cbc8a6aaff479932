/** What people look at, on a running installation: marks that hold what was written before them, and a log that is followed. */
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, it, onTestFinished } from 'vitest'
import { LAUNCHER } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'

const VOLUME = 'pacs1:images'
const LIMIT = { timeout: 120_000 }

async function site(): Promise<Site> {
  const source = join(scratchDirectory(), 'images')
  mkdirSync(source)
  return Site.watching({ source })
}

it('a mark holds everything that was written before it, also one that is set while the collector is away', LIMIT, async () => {
  const { installation, source, state } = await site()
  const at = ['--data', installation.data]
  const fill = (round: string): void => {
    mkdirSync(join(source, round))
    for (let i = 0; i < 50; i++) writeFileSync(join(source, round, `${i}.dcm`), `${round} ${i}`)
  }
  fill('one')
  const marked = installation.json('mark', VOLUME, 'before-upgrade', ...at) as { seq: number }
  const before = walkTree(source)
  fill('two')
  rmSync(join(source, 'one/7.dcm'))

  await installation.kill('collector', 'SIGKILL')
  const away = walkTree(source)
  const set = installation.json('agent', 'mark', 'collector-away', '--state', state) as { volumes: { seq: number }[] }
  fill('three')
  installation.startCollector()
  await installation.until('wait', ...at, '--timeout', '50s')

  const marks = installation
    .run('marks', VOLUME, ...at, '--json')
    .stdout.trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { name: string; seq: number })
  expect(marks.map(({ name, seq }) => [name, seq])).toEqual([
    ['before-upgrade', marked.seq],
    ['collector-away', set.volumes[0]?.seq],
  ])
  for (const [name, truth] of [
    ['before-upgrade', before],
    ['collector-away', away],
  ] as const) {
    const to = join(scratchDirectory(), 'restored')
    installation.run('restore', VOLUME, '--at', `mark:${name}`, '--to', to, ...at)
    expect(differences(truth, walkTree(to)), name).toEqual([])
    expect(installation.run('diff', VOLUME, '--at', `mark:${name}`, '--with', to, '--directory-times', ...at).stdout, name).toBe('')
  }
  const between = installation.run('diff', VOLUME, '--from', 'mark:before-upgrade', '--to', 'mark:collector-away', ...at).stdout
  const lines = between.trim().split('\n')
  expect(lines).toContain('- one/7.dcm  5 B')
  expect(lines.filter((line) => line.startsWith('+'))).toHaveLength(51)
  expect(installation.run('diff', VOLUME, '--at', 'now', '--with', source, ...at).stdout).toBe('')
})

it('a log is followed from what there is to what comes', LIMIT, async () => {
  const { installation, source } = await site()
  writeFileSync(join(source, 'first.dcm'), 'x')
  await installation.until('wait', '--data', installation.data, '--timeout', '50s')
  const child = spawn(LAUNCHER, ['log', VOLUME, '--op', 'put', '--match', '*.dcm', '--follow', '--json', '--data', installation.data], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const paths: string[] = []
  createInterface(child.stdout).on('line', (line) => paths.push((JSON.parse(line) as { path: string }).path))
  await until('the first line', 30, () => paths.includes('first.dcm') || undefined)
  for (const name of ['second.dcm', 'other.txt', 'third.dcm']) writeFileSync(join(source, name), name)
  await until('what came later', 30, () => paths.includes('third.dcm') || undefined)
  await until('all that came', 30, () => paths.length >= 3 || undefined)
  // Files that are closed at once are recorded in any order.
  expect(paths.toSorted()).toEqual(['first.dcm', 'second.dcm', 'third.dcm'])
})
