/** The units of systemd/, as systemd itself reads them. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ERRORS } from '../shared/errors.ts'
import { scratchDirectory } from './support/scratch.ts'

const UNITS = join(import.meta.dirname, '../systemd')
const LAUNCHER = join(import.meta.dirname, '../collector/cli/pacsimile')
const SERVICES = readdirSync(UNITS).filter((name) => name.endsWith('.service'))
// Without systemd: a skip that is announced on a laptop, a failure in CI.
const isSkipped = spawnSync('systemd-analyze', ['--version']).status !== 0 && process.env['CI'] === undefined

/** Of 10; what is left are the capabilities, the network and the view of other processes, which the agent needs. */
const AGENT_EXPOSURE_MAX = 2.5

/** Directives that describe the unit and need no reason. */
const SELF_EVIDENT = new Set(['Description', 'Documentation'])

function textOf(unit: string): string {
  return readFileSync(join(UNITS, unit), 'utf8')
}

/** The verdict on a copy that runs this checkout, and does not name documents that only a package installs. */
function verify(unit: string, change: (text: string) => string = (text) => text): string {
  const copy = join(scratchDirectory(), unit)
  const text = change(textOf(unit))
    .replaceAll('/usr/bin/pacsimile', LAUNCHER)
    .replaceAll(/^Documentation=.*$/gm, '')
  writeFileSync(copy, text)
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', copy], { encoding: 'utf8' })
  return `${status} ${stdout}${stderr}`.trim()
}

/** How much of the host the unit's process could reach, as systemd judges it. */
function exposure(text: string): number {
  const copy = join(scratchDirectory(), 'pacsimile-agent.service')
  writeFileSync(copy, text)
  const { stdout } = spawnSync('systemd-analyze', ['security', '--offline=true', copy], { encoding: 'utf8' })
  return Number(/Overall exposure level for .*: ([\d.]+)/.exec(stdout)?.[1])
}

function withoutReason(text: string): string[] {
  const lines = text.split('\n')
  return lines.filter((line, index) => {
    const directive = /^(\w+)=/.exec(line)?.[1]
    return directive !== undefined && !SELF_EVIDENT.has(directive) && lines[index - 1]?.startsWith('#') !== true
  })
}

describe('the systemd units', () => {
  it('are both there', () => {
    expect(SERVICES).toEqual(['pacsimile-agent.service', 'pacsimile-collector.service'])
  })

  it.skipIf(isSkipped).each(SERVICES)('%s passes systemd-analyze verify without a word', (unit) => {
    expect(verify(unit)).toBe('0')
  })

  it.skipIf(isSkipped)('would not pass with a directive that does not exist', () => {
    expect(verify('pacsimile-agent.service', (text) => text.replace('Nice=5', 'Nicest=5'))).toMatch(/Nicest/)
  })

  it.skipIf(isSkipped)('would not pass with a program that is not there', () => {
    expect(verify('pacsimile-agent.service', (text) => text.replace('/usr/bin/pacsimile', '/nowhere/pacsimile'))).toMatch(/nowhere/)
  })

  it.skipIf(isSkipped)('the agent’s leaves it little of the host, which its sandbox does', () => {
    const text = textOf('pacsimile-agent.service')
    expect(exposure(text)).toBeLessThanOrEqual(AGENT_EXPOSURE_MAX)
    expect(exposure(text.replace(/^SystemCallFilter=.*$/m, ''))).toBeGreaterThan(AGENT_EXPOSURE_MAX)
  })

  it('the agent’s gives it three capabilities and keeps it out of what would break its watching', () => {
    const text = textOf('pacsimile-agent.service')
    const capabilities = 'CAP_SYS_ADMIN CAP_DAC_READ_SEARCH CAP_LEASE'
    expect(text).toContain(`\nAmbientCapabilities=${capabilities}\n`)
    expect(text).toContain(`\nCapabilityBoundingSet=${capabilities}\n`)
    // fanotify refuses filesystem marks from a user namespace; the compiler of Node.js writes what it then executes.
    expect(text).not.toMatch(/^(PrivateUsers|MemoryDenyWriteExecute|DynamicUser)=/m)
  })

  it.skipIf(isSkipped)('the agent’s user is one that systemd-sysusers can make', () => {
    const made = spawnSync('systemd-sysusers', ['--dry-run', join(UNITS, 'pacsimile-agent.sysusers.conf')], { encoding: 'utf8' })
    expect(made.status).toBe(0)
    expect(`${made.stdout}${made.stderr}`).toContain("user 'pacsimile-agent'")
  })

  it.each(SERVICES)('%s says why beside each directive', (unit) => {
    expect(withoutReason(textOf(unit))).toEqual([])
    expect(withoutReason(textOf(unit).replaceAll(/^#.*\n/gm, ''))).not.toEqual([])
  })

  it.each(SERVICES)('%s starts again after every error that may pass by itself', (unit) => {
    const prevented = /^RestartPreventExitStatus=(.*)$/m.exec(textOf(unit))?.[1]?.split(' ').map(Number) ?? []
    const passing = Object.values(ERRORS).filter((meaning) => meaning.retryable)
    expect(passing.filter((meaning) => prevented.includes(meaning.exit))).toEqual([])
  })
})
