import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { LOCK_MS_MAX, withLockFile } from '../../collector/repository/copy-lock.ts'
import { scratchDirectory } from '../support/scratch.ts'

const MODULE = join(import.meta.dirname, '../../collector/repository/copy-lock.ts')
const locked = (path: string, act: () => Promise<void>): Promise<void> => withLockFile(path, `${path}-draft-`, 'It', act)
const nothing = (): Promise<void> => Promise.resolve()

/** Another process, which holds it until it is killed. */
async function holder(path: string): Promise<ChildProcess> {
  const program = `
    const { withLockFile } = await import(${JSON.stringify(MODULE)})
    await withLockFile(${JSON.stringify(path)}, ${JSON.stringify(`${path}-draft-`)}, 'It', () => new Promise(() => {
      setInterval(() => {}, 1000)
      console.log('held')
    }))`
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', program])
  const ended = once(child, 'exit').then(([status]) => Promise.reject(new Error(`It ended, status ${String(status)}`)))
  // Wanted later.
  ended.catch(() => undefined)
  await Promise.race([once(child.stdout, 'data'), ended])
  return child
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

describe('a lock file', () => {
  it('is held by one at a time, and is gone afterwards', async () => {
    const directory = scratchDirectory()
    const path = join(directory, 'lock')
    const done: string[] = []
    await locked(path, async () => {
      expect(existsSync(path)).toBe(true)
      await expect(locked(path, nothing)).rejects.toMatchObject({ code: 'locked', message: expect.stringContaining('It') as string })
      done.push('first')
    })
    await expect(
      locked(path, () => {
        done.push('second')
        return Promise.reject(new Error('as it happens'))
      }),
    ).rejects.toThrow('as it happens')
    await locked(path, nothing)
    expect(done).toEqual(['first', 'second'])
    expect(readdirSync(directory)).toEqual([])
  })

  it('is respected while another process lives, and is free at once when that one is killed', async () => {
    const path = join(scratchDirectory(), 'lock')
    for (let kills = 0; kills < 3; kills++) {
      const child = await holder(path)
      try {
        await expect(locked(path, nothing)).rejects.toMatchObject({ code: 'locked' })
      } finally {
        await kill(child)
      }
      expect(existsSync(path)).toBe(true)
    }
    await locked(path, nothing)
    expect(existsSync(path)).toBe(false)
  }, 60_000)

  it('of another host, or of a system that ran here before, holds until it has aged', async () => {
    const path = join(scratchDirectory(), 'lock')
    writeFileSync(path, '00000000-0000-0000-0000-000000000000\n')
    await expect(locked(path, nothing)).rejects.toMatchObject({ code: 'locked' })
    const at = (Date.now() - 2 * LOCK_MS_MAX) / 1000
    utimesSync(path, at, at)
    await locked(path, nothing)
    expect(existsSync(path)).toBe(false)
  })

  it('is had by one of many that find it dead', async () => {
    const path = join(scratchDirectory(), 'lock')
    for (let round = 0; round < 50; round++) {
      writeFileSync(path, readFileSync('/proc/sys/kernel/random/boot_id'))
      let holding = 0
      let most = 0
      let times = 0
      const act = async (): Promise<void> => {
        times += 1
        holding += 1
        most = Math.max(most, holding)
        await setTimeout(1)
        holding -= 1
      }
      await Promise.allSettled(Array.from({ length: 8 }, () => locked(path, act)))
      expect(most).toBe(1)
      expect(times).toBeGreaterThan(0)
      expect(existsSync(path)).toBe(false)
    }
  })

  it('that has aged under its holder, and is another one by now, is left to that one', async () => {
    const path = join(scratchDirectory(), 'lock')
    await locked(path, async () => {
      const at = (Date.now() - 2 * LOCK_MS_MAX) / 1000
      utimesSync(path, at, at)
      const { ino } = statSync(path)
      const other = await holder(path)
      expect(statSync(path).ino).not.toBe(ino)
      await kill(other)
    })
    expect(existsSync(path)).toBe(true)
  })
})
