import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { scratchDirectory } from '../support/scratch.ts'

const LAUNCHER = join(import.meta.dirname, '../../collector/cli/pacsimile')

/** Command lines of the running processes that name a directory. */
function processesIn(directory: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      } catch {
        // It has ended since it was listed.
        return []
      }
    })
    .filter((line) => line.includes(directory))
}

describe('pacsimile demo', () => {
  it('tells the whole story, with everything restored equal to the truth, and leaves nothing behind', () => {
    const directory = join(scratchDirectory(), 'demo')
    const { status, stdout, stderr } = spawnSync(LAUNCHER, ['demo', '--json', '--dir', directory], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(status).toBe(0)
    const figures = JSON.parse(stdout) as Record<string, number>
    expect(figures).toMatchObject({ ok: true, lagCount: 288 })
    expect(figures['seconds']).toBeLessThan(60)
    expect(figures['lagP50Ms']).toBeGreaterThan(0)
    expect(figures['lagP99Ms']).toBeGreaterThanOrEqual(figures['lagP50Ms'] ?? Infinity)
    expect(figures['lagMaxMs']).toBeLessThan(10_000)
    // Eleven studies of 36 images and the index; the other makers' files where they are installed.
    expect(figures['restoredFiles']).toBeGreaterThanOrEqual(11 * 36 + 1)
    expect(figures['repositoryBytes']).toBeLessThan(figures['restoredBytes'] ?? 0)
    expect(existsSync(directory)).toBe(false)
    expect(processesIn(directory)).toEqual([])
  })

  it('refuses a directory that holds something, and leaves it as it is', () => {
    const directory = scratchDirectory()
    const { status } = spawnSync(LAUNCHER, ['demo', '--dir', join(directory, '..')], { encoding: 'utf8' })
    expect(status).toBe(9)
    expect(existsSync(directory)).toBe(true)
  })

  it.each([600, 1500, 4000])('leaves nothing behind when it is interrupted after %i ms', async (ms) => {
    const directory = join(scratchDirectory(), 'demo')
    const demo = spawn(LAUNCHER, ['demo', '--json', '--dir', directory], { stdio: 'ignore' })
    const ended = once(demo, 'exit')
    onTestFinished(() => {
      demo.kill('SIGKILL')
    })
    // The moment is the point of this test: each falls into another act.
    await new Promise((resolve) => setTimeout(resolve, ms))
    demo.kill('SIGINT')
    await ended
    expect(demo.exitCode).toBe(130)
    expect(existsSync(directory)).toBe(false)
    expect(processesIn(directory)).toEqual([])
  })
})
