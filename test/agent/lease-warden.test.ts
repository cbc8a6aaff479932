/**
 * What a writer waits for the agent. The figure is printed; the bound that is asserted is only far below the 45 s after
 * which the kernel breaks a lease by force.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Leases } from '../../agent/lease.ts'
import { LeaseWarden } from '../../agent/lease-warden.ts'
import { CAPTURE_BYTES_IN_FLIGHT } from '../../shared/limits.ts'
import { silentLog } from '../../shared/log.ts'
import { CaptureSite, contentOf, side } from '../support/capture-site.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const FILE_BYTES = 64 << 20
const WAIT_MS_MAX = 1000

/** For each line that it reads: opens the file for writing, says what that took in ms, and closes it. */
const OPEN = `
import os, sys, time
print('ready', flush=True)
for line in sys.stdin:
    start = time.monotonic()
    fd = os.open(sys.argv[1], os.O_WRONLY)
    waited = time.monotonic() - start
    os.close(fd)
    print(waited * 1000, flush=True)
`

async function startWriter(path: string) {
  const writer = spawn('python3', ['-c', OPEN, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(writer, 'exit')
  onTestFinished(async () => {
    writer.stdin.end()
    await ended
  })
  const lines = createInterface({ input: writer.stdout })
  await once(lines, 'line')
  return async (): Promise<number> => {
    const answer = once(lines, 'line')
    writer.stdin.write('open\n')
    return Number((await answer)[0])
  }
}

/** Opens the file for writing and says how long that took in ms. */
const OPEN_ONCE = `
import os, sys, time
start = time.monotonic()
os.close(os.open(sys.argv[1], os.O_WRONLY))
print((time.monotonic() - start) * 1000)
`

describe('a writer', () => {
  it('gets the file while the thread that holds the lease is at work and looks at nothing', () => {
    const warden = new LeaseWarden(silentLog, 1)
    onTestFinished(() => warden.close())
    const leases = new Leases(warden.memory(0))
    const path = join(scratchDirectory(), 'f')
    writeFileSync(path, 'content')
    const fd = openSync(path, 'r')
    onTestFinished(() => closeSync(fd))
    const waitedMs: number[] = []
    leases.beginWork()
    for (let i = 0; i < 10; i++) {
      const lease = leases.take(fd)
      if (typeof lease === 'string') throw new Error(`the lease is ${lease}`)
      expect(lease.isBroken()).toBe(false)
      // This thread stands still until the writer has ended.
      waitedMs.push(Number(spawnSync('python3', ['-c', OPEN_ONCE, path], { encoding: 'utf8' }).stdout))
      expect(lease.isBroken()).toBe(true)
      lease.release()
    }
    leases.endWork()
    process.stderr.write(`without the holder's doing, a writer's open() took ${waitedMs.map((ms) => ms.toFixed(1)).join(', ')} ms\n`)
    expect(Math.max(...waitedMs)).toBeLessThan(WAIT_MS_MAX)
  })

  it('does not wait for the capture of a large file, which is discarded', async () => {
    const site = new CaptureSite()
    const content = new Random(1).bytes(FILE_BYTES)
    writeFileSync(site.file('f'), content)
    const openForWriting = await startWriter(site.file('f'))
    const waitedMs: number[] = []
    for (let i = 0; i < 5; i++) {
      let waited: Promise<number> | undefined
      // The capture cannot end before the writer has opened it: more is to be shipped than may be under way.
      const captured = await site.request(
        { kind: 'examine', ...side('f'), asIs: false, isDeep: false, wasStable: true, pin: undefined },
        () => {
          waited ??= openForWriting()
          return waited.then(() => undefined)
        },
      )
      expect(captured.outcome).toEqual({ kind: 'busy' })
      waitedMs.push((await waited) ?? Number.NaN)
    }
    process.stderr.write(`a writer's open() took ${waitedMs.map((ms) => ms.toFixed(1)).join(', ')} ms\n`)
    expect(FILE_BYTES).toBeGreaterThan(CAPTURE_BYTES_IN_FLIGHT)
    expect(Math.max(...waitedMs)).toBeLessThan(WAIT_MS_MAX)
    expect(contentOf(await site.look('f')).equals(content)).toBe(true)
  })
})
