/** `restore --in-place`, `restore undo`, `list`, `forget`: what is said, what is asked, and how it ends. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { createCollectorConfig } from '../../collector/config.ts'
import { digestOf } from '../../shared/digest.ts'
import type { RelativePath } from '../../shared/path.ts'
import { fileVersion } from '../support/agent-parts.ts'
import { FakeHistory, serveHistory } from '../support/fake-history.ts'
import { directoryVersion } from '../support/journal-writer.ts'
import { answer, type Ended, environment, LAUNCHER, launch } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'

const INCOMPLETE = 8
const IO = 10
const NOT_FOUND = 4
const USAGE = 2

beforeEach(() => {
  process.env['PACSIMILE_RESTORES'] = join(scratchDirectory(), 'restores')
})

/** A volume that holds `one` and `two`, and a directory in which `one` is another, `two` is not, and `three` is. */
async function archive(): Promise<{ live: string; args: string[] }> {
  const history = new FakeHistory()
  const position = { epoch: 1, seq: 9 }
  history.entries.push({ path: '' as RelativePath, position, version: directoryVersion(), absent: undefined })
  for (const name of ['one', 'two']) {
    history.contents.set(digestOf(Buffer.from(name)), Buffer.from(name))
    history.entries.push({ path: name as RelativePath, position, version: fileVersion(name), absent: undefined })
  }
  const data = await serveHistory(history)
  const live = join(scratchDirectory(), 'live')
  mkdirSync(live)
  for (const name of ['one', 'three']) writeFileSync(join(live, name), 'newer')
  return { live, args: ['restore', 'pacs1:images', '--at', 'now', '--data', data, '--to', live, '--in-place', '--delete'] }
}

const contentsOf = (live: string): string => readFileSync(join(live, 'one'), 'utf8')

/** At a terminal, somebody who types that. */
async function launchAtTerminal(typed: string, ...args: readonly string[]): Promise<Ended> {
  const line = [LAUNCHER, ...args].map((word) => `'${word}'`).join(' ')
  const child = spawn('script', ['-qec', line, '/dev/null'], { env: environment(), stdio: ['pipe', 'pipe', 'inherit'] })
  let stdout = ''
  child.stdout.on('data', (bytes: Buffer) => {
    if (!stdout.includes('[y/N]') && `${stdout}${bytes.toString()}`.includes('[y/N]')) child.stdin.write(`${typed}\n`)
    stdout += bytes.toString()
  })
  const [status] = (await once(child, 'close')) as [number]
  return { status, stdout, stderr: '' }
}

describe('restore', () => {
  it('ends with the reason where its target cannot be made', async () => {
    const { live, args } = await archive()
    const to = args
      .filter((word) => !word.startsWith('--in-place') && word !== '--delete')
      .map((word) => (word === live ? '/proc/a/b' : word))
    expect(await launch(...to)).toMatchObject({
      status: IO,
      stderr: expect.stringMatching(/Preparing \/proc\/a\/b: ENOENT/) as string,
    })
  })
})

describe('restore --in-place', () => {
  it('shows what it would do, and how long that would take, and has done nothing', async () => {
    const { live, args } = await archive()
    const { status, stdout, stderr } = await launch(...args, '--dry-run')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^Would restore pacs1:images as of .* in place in .*: 2 files, 1 directory, 6 B$/m)
    expect(stdout).toMatch(/replaced +1\n +one\n +added +1\n +two\n/)
    expect(stdout).toMatch(/put aside +1 \(with what is in them 1 path, 5 B\)\n +three\n/)
    expect(stdout).toMatch(/^Time: about .*, at .*\/s, at which one reader has just read and verified a sample of 6 B/m)
    expect(stderr).not.toContain('warning')
    expect(contentsOf(live)).toBe('newer')
    const limited = await launch(...args, '--dry-run', '--bandwidth', '1B/s')
    expect(limited.stdout).toContain('Time: about 6.0 s, as --bandwidth allows')
  })

  it('asks at a terminal, and takes nothing but yes for it', async () => {
    const { live, args } = await archive()
    for (const typed of ['n', 'of course']) {
      const { status, stdout } = await launchAtTerminal(typed, ...args)
      expect(status).toBe(0)
      expect(stdout).toContain('Nothing was changed.')
      expect(contentsOf(live)).toBe('newer')
    }
    const { stdout } = await launchAtTerminal('y', ...args)
    expect(stdout).toMatch(/`pacsimile restore undo [0-9a-f]{12}` takes it back/)
    expect(contentsOf(live)).toBe('one')
    // Nothing is left to ask about.
    const again = await launchAtTerminal('', ...args)
    expect(again.stdout).not.toContain('[y/N]')
    expect(again.stdout).not.toContain('restore undo')
  })

  it('does nothing unasked where nobody can be asked, and refuses what belongs to it alone elsewhere', async () => {
    const { live, args } = await archive()
    for (const more of [[], ['--json']]) {
      const { status, stderr } = await launch(...args, ...more)
      expect(status).toBe(USAGE)
      expect(stderr).toContain('give --yes, or --dry-run')
    }
    expect(contentsOf(live)).toBe('newer')
    const without = args.filter((word) => word !== '--in-place')
    expect(await launch(...without)).toMatchObject({
      status: USAGE,
      stderr: expect.stringContaining('--delete goes with --in-place') as string,
    })
  })

  it('is taken back but for what was changed since, and that too with --force, which keeps the change', async () => {
    const { live, args } = await archive()
    const { id } = ((await answer(...args, '--yes')) as { inPlace: { id: string } }).inPlace
    writeFileSync(join(live, 'one'), 'newest')
    const first = await launch('restore', 'undo', id)
    expect(first.status).toBe(INCOMPLETE)
    expect(first.stderr).toMatch(/left as they are: 1 path\n {4}one: it was changed since it was restored\n/)
    expect(contentsOf(live)).toBe('newest')
    expect(readFileSync(join(live, 'three'), 'utf8')).toBe('newer')
    const forced = await launch('restore', 'undo', id, '--force')
    expect(forced).toMatchObject({ status: 0, stdout: expect.stringContaining(`Restore ${id} is taken back`) as string })
    expect(forced.stdout).toContain(`\`restore forget ${id}\` removes that`)
    expect(contentsOf(live)).toBe('newer')
    expect(await answer('restore', 'list')).toMatchObject({
      restores: [{ id, to: live, state: 'undone-but', agent: 'pacs1', volume: 'images' }],
    })
  })

  it('is listed, and given up by its age', async () => {
    const { live, args } = await archive()
    const { id } = ((await answer(...args, '--yes')) as { inPlace: { id: string } }).inPlace
    expect((await launch('restore', 'list')).stdout).toMatch(new RegExp(`^${id} +done +.* ago +pacs1:images +${live}$`, 'm'))
    expect(await answer('restore', 'forget', '--older-than', '1d')).toEqual({ forgotten: [] })
    expect(await answer('restore', 'forget', '--older-than', '0s')).toEqual({ forgotten: [id] })
    expect(readdirSync(live).sort()).toEqual(['one', 'two'])
    expect(await launch('restore', 'undo', id)).toMatchObject({ status: NOT_FOUND })
  })

  it('is found by its directory where this host cannot remember it', async () => {
    const { live, args } = await archive()
    writeFileSync(process.env['PACSIMILE_RESTORES'] ?? '', 'in the way')
    const { status, stdout, stderr } = await launch(...args, '--yes')
    const [, id = ''] = /restore undo ([0-9a-f]{12})/.exec(stdout) ?? []
    expect(status).toBe(0)
    expect(stderr).toContain(`\`restore undo ${id}\` needs --in ${live}`)
    process.env['PACSIMILE_RESTORES'] = join(scratchDirectory(), 'restores')
    expect(await answer('restore', 'undo', id, '--in', live)).toMatchObject({ done: true })
    expect(contentsOf(live)).toBe('newer')
  })
})

describe('a restore in place into the source of a volume', () => {
  const EXTRA = 60
  const STUDIES = 100

  /** The volume's source is the target, in which `EXTRA` files are that were not there at the moment. */
  async function sourceItself({ files }: { readonly files: number }): Promise<{ live: string; data: string; args: string[] }> {
    const history = new FakeHistory()
    const live = join(scratchDirectory(), 'live')
    mkdirSync(live)
    const position = { epoch: 1, seq: 9 }
    const version = fileVersion('content')
    for (let i = 0; i < files; i++) history.entries.push({ path: `f${i}` as RelativePath, position, version, absent: undefined })
    for (let i = 0; i < files; i++) writeFileSync(join(live, `f${i}`), 'content')
    for (let i = 0; i < EXTRA; i++) writeFileSync(join(live, `extra${i}`), 'extra')
    const { ino: inode, mtimeNs } = statSync(live, { bigint: true })
    history.entries.unshift({ path: '' as RelativePath, position, version: directoryVersion({ inode, mtimeNs }), absent: undefined })
    history.span = { ...history.span, root: live }
    const data = await serveHistory(history)
    const args = ['restore', 'pacs1:images', '--at', 'now', '--data', data, '--to', live, '--in-place', '--delete', '--dry-run']
    return { live, data, args }
  }

  const hintOf = async (args: readonly string[]): Promise<unknown> =>
    ((await answer(...args)) as { inPlace: { massChange: unknown } }).inPlace.massChange

  it('names the mass change that it is to its replica, by the defaults where it knows no configuration', async () => {
    const { live, args } = await sourceItself({ files: STUDIES })
    const { stderr } = await launch(...args)
    expect(stderr).toContain(`${live} is the source of pacs1:images: putting 60 paths aside pauses its replica as a mass change`)
    expect(stderr).toContain("at the collector: pacsimile replica expect pacs1:images --for 1h --reason 'restore in place'\n")
    expect(await hintOf(args)).toMatchObject({ target: 'pacs1:images', gone: EXTRA, share: 20, files: 50, configured: false })
  })

  it('goes by the configuration of its collector', async () => {
    const { data, args } = await sourceItself({ files: STUDIES })
    createCollectorConfig(data, { breaker: { share: 50 } })
    expect(await hintOf(args)).toMatchObject({ share: 50, configured: true })
    const off = await sourceItself({ files: STUDIES })
    createCollectorConfig(off.data, { breaker: { share: 0 } })
    expect(await hintOf(off.args)).toBeNull()
    const without = await sourceItself({ files: STUDIES })
    createCollectorConfig(without.data, { replica: false })
    expect(await hintOf(without.args)).toBeNull()
  })

  it('says nothing where it is too little of the volume, or another directory of that name', async () => {
    const large = await sourceItself({ files: 5 * EXTRA })
    expect(await hintOf(large.args)).toBeNull()
    const { live, args } = await sourceItself({ files: STUDIES })
    utimesSync(live, 1, 1)
    expect(await hintOf(args)).toBeNull()
  })
})
