import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const LAUNCHER = join(import.meta.dirname, '../../collector/cli/pacsimile')

describe('pacsimile demo', () => {
  it('tells the whole story, with everything restored equal to the truth', () => {
    const { status, stdout, stderr } = spawnSync(LAUNCHER, ['demo', '--json'], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(status).toBe(0)
    const figures: unknown = JSON.parse(stdout)
    expect(figures).toMatchObject({ ok: true, lagCount: 288 })
  })
})
