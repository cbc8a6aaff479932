/** What a volume's rules leave out: compared with git itself, and seen in what an agent captures. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { IgnoreRules } from '../../agent/watch/ignore.ts'
import { byteString, type RelativePath, relativePath } from '../../shared/path.ts'
import { canMount } from '../support/image-filesystem.ts'
import { LoneAgent } from '../support/lone-agent.ts'
import { mountDisk } from '../support/mounted-disk.ts'
import { scratchDirectory } from '../support/scratch.ts'

const PATTERNS = [
  '*.tmp',
  '!keep.tmp',
  '/cache/',
  'logs/**/old',
  'a?c',
  'voilà',
  '[x-z]9',
  '\\#x',
  'trailing  ',
  'Case',
  'deep/*',
  '!deep/b',
]

/** A path that ends in '/' is a directory's. */
const PATHS = [
  'a.tmp',
  'keep.tmp',
  'd/b.tmp',
  'd/keep.tmp',
  'cache/',
  'd/cache/',
  'cache/inside',
  'logs/old',
  'logs/1/2/old',
  'logs/1/2/older',
  'abc',
  'aéc',
  'voilà',
  'voil\xc3',
  'x9',
  'w9',
  '#x',
  'trailing',
  'Case',
  'case',
  'deep/a',
  'deep/b',
  'deep/b/c',
  'line\nbreak.tmp',
]

function pathOf(text: string): { path: RelativePath; isDirectory: boolean } {
  return { path: relativePath(byteString(text.replace(/\/$/, ''))), isDirectory: text.endsWith('/') }
}

/** What git says of the same files. */
function ignoredByGit(): string[] {
  const directory = scratchDirectory()
  writeFileSync(join(directory, '.gitignore'), `${PATTERNS.join('\n')}\n`)
  const run = (...args: string[]) => spawnSync('git', args, { cwd: directory, input: PATHS.join('\0'), encoding: 'utf8' })
  run('init', '-q')
  return run('check-ignore', '--stdin', '-z', '--no-index').stdout.split('\0').slice(0, -1)
}

describe('ignore rules', () => {
  it('are read as git reads them, on bytes', () => {
    const rules = new IgnoreRules({ paths: [], patterns: PATTERNS })
    const ignored = PATHS.filter((text) => {
      const { path, isDirectory } = pathOf(text)
      return rules.isIgnored(path, isDirectory)
    })
    expect(ignored).toEqual(ignoredByGit())
    expect(ignored).toContain('voilà')
  })

  it('hold for names that are not UTF-8', () => {
    const rules = new IgnoreRules({ paths: [], patterns: ['*.tmp'] })
    expect(rules.isIgnored(relativePath('\xff\xfe.tmp'), false)).toBe(true)
    expect(rules.isIgnored(relativePath('\xff\xfe.dcm'), false)).toBe(false)
  })

  it('leave nothing out unasked, and never the volume itself', () => {
    const none = new IgnoreRules({ paths: [], patterns: [] })
    for (const text of PATHS) expect(none.isIgnored(pathOf(text).path, undefined)).toBe(false)
    expect(new IgnoreRules({ paths: [], patterns: ['*'] }).isIgnored(relativePath(''), true)).toBe(false)
  })

  it('give no answer that may be wrong where the kind is not known', () => {
    const rules = new IgnoreRules({ paths: [relativePath('state')], patterns: ['cache/', '*', '!*/', '!cache'] })
    expect(rules.isIgnored(relativePath('state/x'), undefined)).toBe(true)
    expect(rules.isIgnored(relativePath('file'), undefined)).toBe(false)
    expect(rules.isIgnored(relativePath('file'), false)).toBe(true)
    expect(rules.isIgnored(relativePath('file'), true)).toBe(false)
  })

  it('answer the same however often and about however many paths they were asked', () => {
    const rules = new IgnoreRules({ paths: [], patterns: ['*.tmp', '!keep.tmp'] })
    for (let i = 0; i < 20_000; i++) {
      expect(rules.isIgnored(relativePath(`d${i % 100}/f${i}.tmp`), false)).toBe(true)
      expect(rules.isIgnored(relativePath(`d${i % 100}/keep.tmp`), false)).toBe(false)
    }
  })
})

describe('what a restore in place keeps for itself', () => {
  it('is left out with all that is in it, wherever it is, and nothing else that begins so', () => {
    const rules = new IgnoreRules({ paths: [], patterns: [] })
    const left = ['.pacsimile-restore-0123456789ab', 'a/.pacsimile-restore-0123456789ab/slots/0/1']
    const kept = [
      '.pacsimile-restore-0123456789a',
      'a/.pacsimile-restore-0123456789abc/x',
      'x.pacsimile-restore-0123456789ab',
      '.pacsimile-restore-',
    ]
    for (const path of left) expect(rules.isIgnored(path as RelativePath, undefined), path).toBe(true)
    for (const path of kept) expect(rules.isIgnored(path as RelativePath, true), path).toBe(false)
  })
})

describe('an agent with ignore rules', () => {
  it('captures nothing that they name, neither by a scan nor by an event', async () => {
    const agent = new LoneAgent()
    agent.ignore = ['*.tmp', '!keep.tmp', '/cache/']
    for (const name of ['a.tmp', 'keep.tmp', 'a.dcm', 'cache/x', 'sub/cache/x']) agent.write(name, name)
    await agent.startAndWatch()
    const head = agent.status?.headSeq ?? 0
    for (const name of ['b.tmp', 'b.dcm', 'cache/y', 'sub/c.tmp']) agent.write(name, name)
    agent.tell('b.tmp', 'cache', 'cache/y', 'sub/c.tmp', 'b.dcm')
    await expect.poll(() => agent.status?.headSeq).toBeGreaterThan(head)
    await expect.poll(() => agent.status?.dirty).toBe(0)
    await agent.stop()
    const put = (await agent.records()).flatMap((record) => (record.kind === 'put' ? [record.path] : []))
    expect([...new Set(put)].toSorted()).toEqual(['', 'a.dcm', 'b.dcm', 'keep.tmp', 'sub', 'sub/cache', 'sub/cache/x'])
  })

  it('leaves as it is what was captured before the rules came, even when it changes or goes away', async () => {
    const agent = new LoneAgent()
    for (const name of ['old.tmp', 'gone.tmp', 'cache/x', 'a.dcm']) agent.write(name, name)
    await agent.startAndWatch()
    await agent.stop()
    agent.ignore = ['*.tmp', 'cache/']
    agent.write('old.tmp', 'changed')
    rmSync(join(agent.volume, 'gone.tmp'))
    rmSync(join(agent.volume, 'cache'), { recursive: true })
    const before = (await agent.records()).length
    await agent.startAndWatch()
    // The volume's own directory, and one of which a scan cannot know whether the rule means it.
    expect(agent.status?.volumes[0]?.lastScan?.differences).toBeLessThanOrEqual(2)
    const head = agent.status?.headSeq ?? 0
    agent.write('last.dcm', 'x')
    agent.tell('old.tmp', 'gone.tmp', 'cache', 'last.dcm')
    await expect.poll(() => agent.status?.headSeq).toBeGreaterThan(head)
    await expect.poll(() => agent.status?.dirty).toBe(0)
    await agent.stop()
    const since = (await agent.records()).slice(before).flatMap((record) => ('path' in record && record.path !== '' ? [record] : []))
    expect(since).toMatchObject([{ kind: 'put', path: 'last.dcm' }])
  })

  it.skipIf(!canMount)('captures what a rule left out when that is taken back, though nothing has changed there since', async () => {
    // There a scan lists no directory that it knows.
    const agent = new LoneAgent(mountDisk('xfs', 400 << 20))
    agent.ignore = ['*.tmp']
    for (const name of ['d/a.tmp', 'd/a.dcm', 'e/b.dcm']) agent.write(name, name)
    // Times of directories that are older than the filesystem's clock is coarse prove something.
    await setTimeout(2100)
    for (let scans = 0; scans < 2; scans++) {
      await agent.startAndWatch()
      await agent.stop()
    }
    agent.ignore = []
    await agent.startAndWatch()
    await agent.stop()
    const puts = async (): Promise<string[]> => (await agent.records()).flatMap((record) => (record.kind === 'put' ? [record.path] : []))
    expect(await puts()).toContain('d/a.tmp')
    const before = (await puts()).length
    await agent.startAndWatch()
    await agent.stop()
    expect(await puts()).toHaveLength(before)
  })

  it('captures a file under the name of an ignored directory', async () => {
    const agent = new LoneAgent()
    agent.ignore = ['cache/']
    mkdirSync(join(agent.volume, 'cache'))
    await agent.startAndWatch()
    const head = agent.status?.headSeq ?? 0
    rmSync(join(agent.volume, 'cache'), { recursive: true })
    agent.write('cache', 'a file')
    agent.tell('cache')
    await expect.poll(() => agent.status?.headSeq).toBeGreaterThan(head)
    await expect.poll(() => agent.status?.dirty).toBe(0)
    await agent.stop()
    expect((await agent.records()).filter((record) => record.kind === 'put' && record.path === 'cache')).toHaveLength(1)
  })
})
