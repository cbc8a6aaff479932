import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { scratchDirectory } from './support/scratch.ts'

const UNITS = join(import.meta.dirname, '../systemd')
const LAUNCHER = join(import.meta.dirname, '../collector/cli/pacsimile')
const isThere = spawnSync('systemd-analyze', ['--version']).status === 0

function verify(unit: string, change: (text: string) => string = (text) => text): string {
  const copy = join(scratchDirectory(), unit)
  writeFileSync(
    copy,
    change(readFileSync(join(UNITS, unit), 'utf8'))
      .replaceAll('/usr/bin/pacsimile', LAUNCHER)
      .replaceAll(/^Documentation=.*$/gm, ''),
  )
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', copy], { encoding: 'utf8' })
  return `${status} ${stdout}${stderr}`.trim()
}

describe('the systemd units', () => {
  it.skipIf(!isThere).each(readdirSync(UNITS).filter((name) => name.endsWith('.service')))(
    '%s passes systemd-analyze verify without a word',
    (unit) => {
      expect(verify(unit)).toBe('0')
    },
  )

  it.skipIf(!isThere)('would fail with a directive that does not exist', () => {
    expect(verify('pacsimile-agent.service', (text) => text.replace('Nice=5', 'Nicest=5'))).toMatch(/Nicest/)
  })

  it.each(readdirSync(UNITS))('%s says why for each group of directives', (unit) => {
    const lines = readFileSync(join(UNITS, unit), 'utf8').split('\n')
    expect(lines.filter((line) => line.startsWith('#')).length).toBeGreaterThan(8)
  })
})
