import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { pathFields, showBytes, showDuration } from '../../collector/cli/output.ts'
import { parseAgentOrVolume, parseDuration, parseTarget } from '../../collector/cli/target.ts'
import { scratchDirectory } from '../support/scratch.ts'

const LAUNCHER = join(import.meta.dirname, '../../collector/cli/pacsimile')

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(LAUNCHER, args, { encoding: 'utf8', env: { ...process.env, PACSIMILE_PASSPHRASE: '', PACSIMILE_RECOVERY_KEY: '' } })
}

describe('a target', () => {
  it('is an agent, a volume and a path of any bytes', () => {
    expect(parseTarget('pacs1:images')).toEqual({ agent: 'pacs1', volume: 'images', path: '' })
    expect(parseTarget('pacs1:images/2026/11/')).toEqual({ agent: 'pacs1', volume: 'images', path: '2026/11' })
    expect(parseTarget('pacs1:images/caf\u00e9 a:b')).toEqual({ agent: 'pacs1', volume: 'images', path: 'caf\xc3\xa9 a:b' })
    expect(parseTarget('pacs1:images/x\\xff').path).toBe('x\xff')
  })

  it.each(['pacs1', 'pacs1:', ':images', 'pacs1:images/../x', 'PACS:images', 'pacs1:images/a//b'])('%s is refused', (text) => {
    expect(() => parseTarget(text)).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  it('of wait may be an agent alone', () => {
    expect(parseAgentOrVolume('pacs1')).toEqual({ agent: 'pacs1', volume: undefined })
    expect(parseAgentOrVolume('pacs1:db')).toEqual({ agent: 'pacs1', volume: 'db' })
  })
})

describe('amounts', () => {
  it('are read with their unit', () => {
    expect([parseDuration('60s', 'x'), parseDuration('1.5h', 'x'), parseDuration('250ms', 'x'), parseDuration('5', 'x')]).toEqual([
      60_000, 5_400_000, 250, 5000,
    ])
    expect(() => parseDuration('soon', '--ttl')).toThrow('--ttl "soon"')
  })

  it('are shown as people say them', () => {
    expect([0, 1023, 1024, 1536, 20 << 20, 3 * 1024 ** 4].map(showBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '20 MiB',
      '3.0 TiB',
    ])
    expect([5, 1500, 250_000, 11_100_000, 200_000_000].map(showDuration)).toEqual(['5 ms', '1.5 s', '4 min 10 s', '3 h 5 min', '2 d 7 h'])
  })

  it('of bytes in a name are exact in JSON where text cannot carry them', () => {
    expect(pathFields('caf\xc3\xa9')).toEqual({ path: 'caf\u00e9' })
    expect(pathFields('x\xff')).toEqual({ path: 'x\\xff', pathBytes: Buffer.from('x\xff', 'latin1').toString('base64') })
  })
})

describe('the command line', () => {
  it('says what is wrong and exits with the status of the table', () => {
    const nowhere = join(scratchDirectory(), 'nowhere')
    const cases: [string[], number, RegExp][] = [
      [[], 2, /Name a command/],
      [['nonsense'], 2, /nonsense/],
      [['status', '--nonsense'], 2, /nonsense/],
      [['restore', 'a:b', '--to', '/tmp/x'], 2, /at/],
      [['restore', 'a:b', '--at', 'yesterday', '--to', '/tmp/x'], 2, /not a moment/],
      [['ls', 'no-target'], 2, /AGENT:VOLUME/],
      [['status', '--data', nowhere], 5, /Nobody listens/],
      [['agent', 'status', '--state', nowhere], 5, /Nobody listens/],
      [['check', '--repository', nowhere], 4, /not a repository/],
      [['agent', 'run', '--state', nowhere], 4, /agent.toml is missing/],
    ]
    for (const [args, status, words] of cases) {
      const done = run(...args)
      expect(done.stderr, args.join(' ')).toMatch(words)
      expect(done.status, args.join(' ')).toBe(status)
      expect(done.stdout, args.join(' ')).toBe('')
    }
  })

  it('answers an error in JSON when it was asked to', () => {
    const { status, stderr } = run('status', '--json', '--data', join(scratchDirectory(), 'nowhere'))
    expect(status).toBe(5)
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'collector-unreachable' } })
  })

  it('makes a collector once, never over anything, and opens it only with its keys', () => {
    const data = join(scratchDirectory(), 'data')
    const made = run('collector', 'init', '--data', data, '--json')
    expect(made.status).toBe(0)
    const { recoveryKey } = JSON.parse(made.stdout) as { recoveryKey: string }
    expect(run('collector', 'init', '--data', data).status).toBe(9)
    const repository = join(data, 'repository')
    expect(run('check', '--repository', repository).status).toBe(0)
    const wrong = join(scratchDirectory(), 'wrong.key')
    writeFileSync(wrong, `pacsimile-key-1:${'ab'.repeat(32)}\n`)
    expect(run('check', '--repository', repository, '--key-file', wrong).status).toBe(6)
    const recovered = spawnSync(LAUNCHER, ['check', '--repository', repository, '--json'], {
      encoding: 'utf8',
      env: { ...process.env, PACSIMILE_RECOVERY_KEY: recoveryKey },
    })
    expect(recovered.status).toBe(0)
    expect(JSON.parse(recovered.stdout)).toMatchObject({ whole: true, records: 0 })
  })
})
