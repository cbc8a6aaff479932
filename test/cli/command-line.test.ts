import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseAgentOrVolume, parseTarget, showTarget } from '../../collector/cli/target.ts'
import { answer, LAUNCHER, launch } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'

describe('a target', () => {
  it('is an agent, a volume and a path of any bytes', () => {
    expect(parseTarget('pacs1:images')).toEqual({ agent: 'pacs1', volume: 'images', path: '' })
    expect(parseTarget('pacs1:images/2026/11/')).toEqual({ agent: 'pacs1', volume: 'images', path: '2026/11' })
    expect(parseTarget('pacs1:images/caf\u00e9 a:b')).toEqual({ agent: 'pacs1', volume: 'images', path: 'caf\xc3\xa9 a:b' })
    expect(parseTarget('pacs1:images/x\\xff').path).toBe('x\xff')
  })

  it.each(['pacs1:images', 'pacs1:images/a/b', 'pacs1:images/caf\u00e9', 'pacs1:images/x\\xff\\x0a\\x5c'])(
    '%s can be typed as it is shown',
    (text) => {
      expect(showTarget(parseTarget(text))).toBe(text)
    },
  )

  it.each(['pacs1', 'pacs1:', ':images', 'pacs1:images/../x', 'PACS:images', 'pacs1:images/a//b'])('%s is refused', (text) => {
    expect(() => parseTarget(text)).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  it('of wait may be an agent alone', () => {
    expect(parseAgentOrVolume('pacs1')).toEqual({ agent: 'pacs1', volume: undefined })
    expect(parseAgentOrVolume('pacs1:db')).toEqual({ agent: 'pacs1', volume: 'db' })
    expect(() => parseAgentOrVolume('pacs1:db:x')).toThrow(expect.objectContaining({ code: 'usage' }))
  })
})

describe('the command line', () => {
  const nowhere = join(scratchPath(), 'nowhere')

  it.each<[string[], number, RegExp]>([
    [[], 2, /Name a command/],
    [['nonsense'], 2, /nonsense/],
    [['statsu'], 2, /Did you mean status/],
    [['agent'], 2, /enroll, run, status, scan or mark/],
    [['status', '--nonsense'], 2, /nonsense/],
    [['status', '--data', 'a', '--data', 'b'], 2, /--data is given more than once/],
    [['restore', 'a:b', '--to', '/tmp/x'], 2, /at/],
    [['restore', 'a:b', '--at', 'yesterday', '--to', '/tmp/x'], 2, /not a moment/],
    [['log', 'a:b', '--at', 'now', '--to', 'now'], 2, /give one/],
    [['window', 'a:b/c'], 2, /whole volume/],
    [['wait', '--timeout', 'soon', '--data', nowhere], 2, /--timeout "soon"/],
    [['ls', 'no-target'], 2, /AGENT:VOLUME/],
    [['agent', 'enroll', '--collector', 'wss://x', '--token', 't', '--volume', 'images'], 2, /NAME=PATH/],
    [['collector', 'init', '--data', nowhere, '--passphrase'], 6, /PACSIMILE_PASSPHRASE/],
    [['keys'], 2, /list, add or remove/],
    [['keys', 'add', 'password'], 2, /recovery.*key-file.*passphrase/],
    [['keys', 'list', '--repository', nowhere], 4, /not a repository/],
    [['status', '--data', nowhere], 5, /Nobody listens.*does not exist/],
    [['ls', 'a:b', '--data', nowhere], 5, /Nobody listens/],
    [['agent', 'status', '--state', nowhere], 5, /Nobody listens/],
    [['agent', 'scan', '--state', nowhere], 5, /Nobody listens/],
    [['check', '--repository', nowhere], 4, /not a repository/],
    [['token', 'create', '--data', nowhere], 4, /collector init/],
    [['find', 'a:b'], 2, /needs 2 words behind its name and has 1/],
    [['collector', 'init', '--data', nowhere, '--listen', 'nonsense'], 2, /listen: not HOST:PORT/],
    // Where the system lets nobody make a directory, and says of one that is there that it is not.
    [['collector', 'init', '--data', '/proc/x'], 10, /Making the directory \/proc\/x\.partial\/keys: ENOENT/],
    [['restorer'], 2, /token, enroll, list, revoke or password/],
    [['restorer', 'token', 'x', '--allow', 'A:B:C', '--data', nowhere], 2, /all, AGENT or AGENT:VOLUME/],
    [['ls', 'a:b', '--collector', 'https://x', '--identity', nowhere], 4, /No restorer was enrolled/],
    [['ls', 'a:b', '--collector', 'https://x', '--repository', nowhere], 2, /two places/],
    [['agent', 'run', '--state', nowhere], 4, /agent.toml is missing/],
  ])('%j ends with %d and says why', async (args, status, words) => {
    const done = await launch(...args)
    expect(done.stderr).toMatch(words)
    expect(done.stderr.trim().split('\n')).toHaveLength(2)
    expect(done.stdout).toBe('')
    expect(done.status).toBe(status)
  })

  it('answers an error in JSON when it was asked to', async () => {
    const { status, stderr } = await launch('status', '--json', '--data', nowhere)
    expect(status).toBe(5)
    expect(JSON.parse(stderr)).toEqual({
      error: { code: 'collector-unreachable', message: expect.any(String), advice: expect.any(String), details: {} },
    })
  })

  it.each(['demo', 'status', 'wait', 'window', 'log', 'ls', 'cat', 'restore', 'check', 'collector init', 'agent enroll', 'token create'])(
    '%s --help shows an example',
    async (command) => {
      const { status, stdout } = await launch(...command.split(' '), '--help')
      expect(status).toBe(0)
      expect(stdout).toMatch(new RegExp(`Examples:\n  pacsimile ${command}`))
    },
  )

  it('speaks English whatever the language of the host, as its own texts do', () => {
    const { stdout } = spawnSync(LAUNCHER, ['--help'], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'de_DE.UTF-8' } })
    expect(stdout).toContain('Commands:')
  })

  it('completes commands and options', async () => {
    const { stdout } = await launch('--get-yargs-completions', 'pacsimile', 're')
    expect(stdout).toContain('restore')
    expect((await launch('--get-yargs-completions', 'pacsimile', 'restore', '--')).stdout).toContain('--dry-run')
    expect((await launch('completion')).stdout).toContain('complete -o')
  })

  it('makes a collector once, never over anything, and opens it only with its keys', async () => {
    const data = join(scratchDirectory(), 'data')
    const { recoveryKey } = (await answer('collector', 'init', '--data', data)) as { recoveryKey: string }
    expect((await launch('collector', 'init', '--data', data)).status).toBe(9)
    const repository = join(data, 'repository')
    expect((await launch('check', '--repository', repository)).status).toBe(0)
    const wrong = join(scratchDirectory(), 'wrong.key')
    writeFileSync(wrong, `pacsimile-key-1:${'ab'.repeat(32)}\n`)
    expect((await launch('check', '--repository', repository, '--key-file', wrong)).status).toBe(6)
    const recovered = spawnSync(LAUNCHER, ['check', '--repository', repository, '--json'], {
      encoding: 'utf8',
      env: { ...process.env, PACSIMILE_RECOVERY_KEY: recoveryKey },
    })
    expect(recovered.status).toBe(0)
    expect(JSON.parse(recovered.stdout)).toMatchObject({ whole: true, records: 0 })
  })

  it('says so where a copy is made on the disk that it is to outlive', async () => {
    const data = join(scratchDirectory(), 'data')
    await answer('collector', 'init', '--data', data)
    const { status, stderr } = await launch('copy', 'add', 'usb', `fs:${join(scratchDirectory(), 'not-mounted')}`, '--data', data)
    expect(status).toBe(0)
    expect(stderr).toContain('the same filesystem as the repository')
  })

  it('shows the recovery key framed, and where it must go', async () => {
    const { stdout } = await launch('collector', 'init', '--data', join(scratchDirectory(), 'data'))
    expect(stdout).toMatch(/\+-+\+\n +\| {2}([0-9A-Z]{4}-){14}[0-9A-Z]{4} {2}\|\n +\+-+\+/)
    expect(stdout).toContain('away from this')
    expect(stdout).toContain('pacsimile agent enroll --collector wss://THIS-HOST:7443')
  })

  it('prints a token alone, and what to do with it beside', async () => {
    const data = join(scratchDirectory(), 'data')
    await answer('collector', 'init', '--data', data)
    const { stdout, stderr } = await launch('token', 'create', '--data', data, '--ttl', '90m')
    expect(stdout).toMatch(/^pacsimile1\.\S+\n$/)
    expect(stderr).toContain('Good once, for 1 h 30 min')
  })
})

/** A path that nothing is at: made before any test runs, so not a directory that goes away with one. */
function scratchPath(): string {
  return join('/tmp', `pacsimile-nothing-${process.pid}`)
}
