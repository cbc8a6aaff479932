import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { scratchDirectory } from '../support/scratch.ts'

const SUPERVISOR = join(import.meta.dirname, '../../shared/supervisor.ts')
const LOG = join(import.meta.dirname, '../../shared/log.ts')

/** A program whose stop is that script, and of which one thread waits in the kernel for what never comes. */
async function program(stop: string): Promise<{ readonly child: ChildProcess; readonly ended: Promise<unknown[]> }> {
  const file = join(scratchDirectory(), 'program.mjs')
  writeFileSync(
    file,
    `import { spawnSync } from 'node:child_process'
     import { Worker } from 'node:worker_threads'
     import { stopSignal } from ${JSON.stringify(SUPERVISOR)}
     import { silentLog } from ${JSON.stringify(LOG)}
     spawnSync('mkfifo', [${JSON.stringify(`${file}.fifo`)}])
     const waits = \`const { openSync, readSync } = require('node:fs')
       const fd = openSync(${JSON.stringify(`${file}.fifo`)}, 'r+')
       require('node:worker_threads').parentPort.postMessage('waits')
       readSync(fd, Buffer.alloc(1))\`
     const thread = new Worker(waits, { eval: true })
     stopSignal(silentLog).addEventListener('abort', () => { ${stop} })
     thread.once('message', () => console.log('waits'))`,
  )
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  if (child.stdout !== null) await once(child.stdout, 'data')
  return { child, ended }
}

describe('a signal to stop', () => {
  it('that comes again ends the program at once, whatever its threads wait for', async () => {
    const { child, ended } = await program('')
    child.kill('SIGTERM')
    await sleep(700)
    expect(child.exitCode).toBeNull()
    child.kill('SIGTERM')
    expect(await ended).toEqual([143, null])
  })

  it('is one with those that come together with it', async () => {
    const { child, ended } = await program("setTimeout(() => process.kill(process.pid, 'SIGKILL'), 300)")
    for (const signal of ['SIGINT', 'SIGINT', 'SIGTERM'] as const) child.kill(signal)
    expect(await ended).toEqual([null, 'SIGKILL'])
  })
})
