/** What the kernel says of the threads that stand back, in processes of their own: priorities do not come back. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { scratchDirectory } from '../support/scratch.ts'

const MODULE = pathToFileURL(join(import.meta.dirname, '../../agent/priority.ts')).href

/** Class and nice value of the main thread, and of a worker: before, while somebody waits for it, and after. */
function prioritiesWith(choice: string): unknown {
  const file = join(scratchDirectory(), 'priorities.mjs')
  writeFileSync(
    file,
    `import { spawnSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { getPriority } from 'node:os'
import { Worker, isMainThread, parentPort } from 'node:worker_threads'
import { choosePriority, holdingUp, standBack } from '${MODULE}'
const tid = () => readlinkSync('/proc/thread-self').split('/').at(-1)
const ioClass = () => spawnSync('ionice', ['-p', tid()], { encoding: 'utf8' }).stdout.trim()
if (isMainThread) {
  choosePriority('${choice}')
  new Worker(new URL(import.meta.url)).once('message', (worker) =>
    console.log(JSON.stringify({ main: [ioClass(), getPriority(0)], worker })))
} else {
  standBack()
  parentPort.postMessage([ioClass(), holdingUp(ioClass), ioClass(), getPriority(0)])
}`,
  )
  const { stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8' })
  if (stderr !== '') throw new Error(stderr)
  return JSON.parse(stdout)
}

describe.skipIf(process.platform !== 'linux')('the priority', () => {
  it('is the idle class for threads whose work can wait, except while somebody waits for them', () => {
    expect(prioritiesWith('idle')).toEqual({
      main: [expect.stringMatching(/^none/), 5],
      worker: ['idle', 'best-effort: prio 7', 'idle', 10],
    })
  })

  it('is everybody else’s where that is what was chosen', () => {
    expect(prioritiesWith('normal')).toEqual({
      main: ['none: prio 0', 0],
      worker: ['none: prio 0', 'none: prio 0', 'none: prio 0', 0],
    })
  })
})
