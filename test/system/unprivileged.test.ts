/** The agent as its unit runs it: a user of its own, with three capabilities and no more. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Installation } from '../support/installation.ts'

const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')
const UNIT = readFileSync(join(import.meta.dirname, '../../systemd/pacsimile-agent.service'), 'utf8')
/** Numbers of nobody. */
const AGENT_USER = 64_999
const OTHER_USER = 64_998

const CAPABILITIES = /^AmbientCapabilities=(.*)$/m.exec(UNIT)?.[1]?.split(' ') ?? []

/** What the kernel says of a process: its user, and whether it holds what the unit gives and nothing else. */
function standingOf(pid: number): { readonly user: number; readonly capabilities: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  const [, user, held] = /^Uid:\t(\d+)[^]*^CapEff:\t([0-9a-f]+)$/m.exec(text) ?? []
  return { user: Number(user), capabilities: Number(`0x${held}`).toString(2).replaceAll('0', '').length }
}

const NOBODY = '@pacsimile-test-nobody'

async function startAs(user: number, capabilities: readonly string[], state: string): Promise<ChildProcess> {
  const set = ['-all', ...capabilities.map((name) => `+${name.replace('CAP_', '').toLowerCase()}`)].join(',')
  const caps = [`--inh-caps=${set}`, `--ambient-caps=${set}`, `--bounding-set=${set}`, '--no-new-privs']
  // As under systemd, its process is the one that is started, without a supervisor of its own.
  const child = spawn(
    'setpriv',
    [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', ...caps, EXECUTABLE, 'agent', 'run', '--state', state],
    { stdio: 'ignore', env: { ...process.env, NOTIFY_SOCKET: NOBODY } },
  )
  await once(child, 'spawn')
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  })
  return child
}

/** Of each version in the history of the volume, the file's name and how it was read. */
function consistencies(installation: Installation): string[] {
  const lines = installation.run('log', 'pacs1:images', '--data', installation.data, '--json').stdout.trim().split('\n')
  return lines.flatMap((line) => {
    const [, consistency] = /"consistency":"([a-z-]+)"/.exec(line) ?? []
    const [, name] = /"path":"([a-z]*)"/.exec(line) ?? []
    return consistency === undefined ? [] : [`${name} ${consistency}`]
  })
}

async function installationFor(state: string, source: string): Promise<Installation> {
  const installation = await Installation.make()
  installation.startCollector()
  await installation.up()
  mkdirSync(join(installation.directory, state))
  chownSync(join(installation.directory, state), AGENT_USER, AGENT_USER)
  installation.enroll('pacs1', join(installation.directory, source))
  chmodSync(installation.directory, 0o711)
  return installation
}

function writeSecret(installation: Installation, name: string): void {
  const file = join(installation.directory, 'source', name)
  writeFileSync(file, name, { mode: 0o600 })
  chownSync(file, OTHER_USER, OTHER_USER)
}

describe.skipIf(process.getuid?.() !== 0)('an agent with the capabilities of its unit, and no root', () => {
  it('captures files of other owners that nobody else may read, in a stable state', async () => {
    const installation = await installationFor('state-pacs1', 'source')
    writeSecret(installation, 'before')
    const agent = await startAs(AGENT_USER, CAPABILITIES, installation.stateOf('pacs1'))
    await installation.wait('pacs1')
    expect(standingOf(agent.pid ?? 0)).toEqual({ user: AGENT_USER, capabilities: 3 })
    writeSecret(installation, 'after')
    await installation.wait('pacs1')
    for (const name of ['before', 'after']) expect(readFileSync(join(installation.replicaOf('pacs1'), name), 'utf8')).toBe(name)
    expect(consistencies(installation).toSorted()).toEqual(['after stable', 'before stable'])
  })

  it('owns what root enrolled for it', async () => {
    const installation = await installationFor('state-pacs1', 'source')
    const state = installation.stateOf('pacs1')
    const owners = readdirSync(state, { recursive: true, encoding: 'utf8' }).map((name) => `${name} ${statSync(join(state, name)).uid}`)
    expect(owners.toSorted()).toEqual(
      ['agent.toml', 'identity', ...readdirSync(join(state, 'identity')).map((name) => join('identity', name))]
        .map((name) => `${name} ${AGENT_USER}`)
        .toSorted(),
    )
  })

  it('does not begin a journal that it can only reach by its capabilities: LevelDB would not see what is there', async () => {
    const installation = await installationFor('state-pacs1', 'source')
    chmodSync(installation.directory, 0o700)
    const agent = await startAs(AGENT_USER, CAPABILITIES, installation.stateOf('pacs1'))
    const [status] = (await once(agent, 'exit')) as [number]
    expect(status).toBe(10)
    expect(readdirSync(installation.stateOf('pacs1'))).not.toContain('log')
  })

  it('would not have stable reads without LEASE', async () => {
    const installation = await installationFor('state-pacs1', 'source')
    writeSecret(installation, 'a')
    const agent = await startAs(AGENT_USER, ['CAP_DAC_READ_SEARCH'], installation.stateOf('pacs1'))
    await installation.wait('pacs1')
    agent.kill('SIGKILL')
    await once(agent, 'exit')
    expect(consistencies(installation)).toEqual(['a unverified'])
  })
})
