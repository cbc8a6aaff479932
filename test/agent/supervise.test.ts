import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { scratchDirectory } from '../support/scratch.ts'

const SUPERVISE = join(import.meta.dirname, '../../agent/supervise.ts')
const CALLS = join(import.meta.dirname, '../../agent/descriptor-calls.ts')
const STORE = join(import.meta.dirname, '../../agent/descriptor-store.ts')
const LOG = join(import.meta.dirname, '../../shared/log.ts')

/**
 * A supervisor in a process of its own, whose agent is a script: it says in `lives` with what it was started, keeps a
 * descriptor, and then does what its life is for.
 */
function supervise(...lives: string[]): { readonly pid: number; readonly ended: Promise<number | null>; readonly lives: () => string[] } {
  const directory = scratchDirectory()
  const told = join(directory, 'lives')
  const agent = join(directory, 'agent.mjs')
  writeFileSync(
    agent,
    `import { appendFileSync, existsSync, fstatSync, openSync, readFileSync } from 'node:fs'
     import { dieWithParent } from ${JSON.stringify(CALLS)}
     import { DescriptorStore } from ${JSON.stringify(STORE)}
     import { silentLog } from ${JSON.stringify(LOG)}
     dieWithParent(9)
     const store = DescriptorStore.fromEnvironment(silentLog)
     const fd = store.take('kept')
     const life = existsSync(${JSON.stringify(told)}) ? readFileSync(${JSON.stringify(told)}, 'utf8').split('\\n').length - 1 : 0
     appendFileSync(${JSON.stringify(told)}, (fd === undefined ? 'nothing' : readFileSync(fd, 'utf8')) + '\\n')
     store.keep('kept', openSync(${JSON.stringify(agent)} + '.' + life))
     ;[${lives.map((life) => `() => { ${life} }`).join(', ')}][life]?.()`,
  )
  for (let life = 0; life < lives.length; life++) writeFileSync(`${agent}.${life}`, `kept in life ${life}`)
  // As a file: what is evaluated would be evaluated in the agent's place as well.
  const supervisor = join(directory, 'supervisor.mjs')
  const script = `import { AgentSupervisor } from ${JSON.stringify(SUPERVISE)}
    import { silentLog } from ${JSON.stringify(LOG)}
    process.exitCode = await new AgentSupervisor(silentLog, [${JSON.stringify(agent)}]).run()`
  writeFileSync(supervisor, script)
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', supervisor], { stdio: ['ignore', 'inherit', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit').then(([status]) => status as number | null)
  const said = (): string[] => (existsSync(told) ? readFileSync(told, 'utf8').trimEnd().split('\n') : [])
  return { pid: child.pid ?? 0, ended, lives: said }
}

const WAIT = 'setInterval(() => {}, 1000)'

describe("the agent's supervisor", () => {
  it('starts an agent that was killed again, with the descriptors that it had kept', async () => {
    const kill = "process.kill(process.pid, 'SIGKILL')"
    const supervised = supervise(kill, kill, 'process.exit(0)')
    expect(await supervised.ended).toBe(0)
    expect(supervised.lives()).toEqual(['nothing', 'kept in life 0', 'kept in life 1'])
  })

  it('ends with an agent that ends for good, and says its status', async () => {
    const supervised = supervise('process.exit(6)', 'process.exit(0)')
    expect(await supervised.ended).toBe(6)
    expect(supervised.lives()).toHaveLength(1)
  })

  it('hands a request to stop on, and ends when the agent has', async () => {
    const file = join(scratchDirectory(), 'ready')
    const supervised = supervise(`process.on('SIGTERM', () => process.exit(0)); appendFileSync(${JSON.stringify(file)}, ''); ${WAIT}`)
    await expect.poll(() => existsSync(file), { timeout: 10_000 }).toBe(true)
    process.kill(supervised.pid, 'SIGTERM')
    expect(await supervised.ended).toBe(0)
  })

  it('is not outlived by its agent', async () => {
    const file = join(scratchDirectory(), 'pid')
    const supervised = supervise(`appendFileSync(${JSON.stringify(file)}, String(process.pid)); ${WAIT}`)
    await expect.poll(() => existsSync(file), { timeout: 10_000 }).toBe(true)
    const agent = Number(readFileSync(file, 'utf8'))
    expect(existsSync(`/proc/${agent}`)).toBe(true)
    process.kill(supervised.pid, 'SIGKILL')
    await supervised.ended
    // Its zombie may stay until whoever adopted it looks.
    const isAlive = (): boolean => existsSync(`/proc/${agent}/stat`) && !/\) Z /.test(readFileSync(`/proc/${agent}/stat`, 'utf8'))
    await expect.poll(isAlive, { timeout: 10_000 }).toBe(false)
  })
})
