/**
 * A collector and agents as real processes of the built executable, on loopback, in a scratch directory.
 *
 * Every process is stopped by its id when the test ends, however it ends. What is asked again and again is asked as the commands ask it,
 * over the programs' own sockets: a process for each look would take from them the time that they need to get there.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import type { AgentStatus } from '../../agent/status.ts'
import type { CollectorStatus } from '../../collector/status.ts'
import { callLocal } from '../../shared/local-api.ts'
import { freePort } from './free-port.ts'
import { scratchDirectory } from './scratch.ts'

const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')

/** How long a process that is asked to end is given. */
const STOP_MS_MAX = 30_000
/** And one that was started, to answer as it should. */
const ANSWER_MS_MAX = 60_000
const PAUSE_MS = 20

function childrenOf(pid: number): number[] {
  const tasks = `/proc/${pid}/task`
  try {
    return readdirSync(tasks).flatMap((task) =>
      readFileSync(join(tasks, task, 'children'), 'utf8')
        .split(' ')
        .filter((word) => word !== '')
        .map(Number),
    )
  } catch {
    // It has ended, or the kernel does not tell: then there is nothing more to end by id.
    return []
  }
}

async function killFamily(child: ChildProcess): Promise<number | null> {
  const children = child.pid === undefined ? [] : childrenOf(child.pid)
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  for (const pid of children) killIfThere(pid)
  await ended
  return child.exitCode
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

export interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export class Installation {
  readonly directory: string
  readonly data: string
  readonly port: number
  recoveryKey = ''
  readonly #processes = new Map<string, ChildProcess>()

  private constructor(directory: string, data: string, port: number) {
    this.directory = directory
    this.data = data
    this.port = port
  }

  /** An initialised collector, not running. */
  static async make(data?: string): Promise<Installation> {
    const directory = scratchDirectory()
    const installation = new Installation(directory, data ?? join(directory, 'collector'), await freePort())
    onTestFinished(() => installation.stopAll())
    const made: unknown = JSON.parse(
      installation.run('collector', 'init', '--data', installation.data, '--listen', `127.0.0.1:${installation.port}`, '--json').stdout,
    )
    if (typeof made === 'object' && made !== null && 'recoveryKey' in made) installation.recoveryKey = String(made.recoveryKey)
    return installation
  }

  /** Runs a command to its end; throws unless it exits with `expected`. */
  run(...args: string[]): Outcome {
    const outcome = this.try(...args)
    if (outcome.status !== 0) throw new Error(`pacsimile ${args.join(' ')} exited with ${outcome.status}: ${outcome.stderr}`)
    return outcome
  }

  try(...args: string[]): Outcome {
    const done = spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 256 << 20, env: { ...process.env, TZ: 'Europe/Berlin' } })
    return { status: done.status ?? -1, stdout: done.stdout, stderr: done.stderr }
  }

  json(...args: string[]): unknown {
    return JSON.parse(this.run(...args, '--json').stdout)
  }

  stateOf(agent: string): string {
    return join(this.directory, `state-${agent}`)
  }

  /** Enrols an agent that protects `directory` (made where it is missing) as volume `images`. */
  enroll(agent: string, directory: string): void {
    mkdirSync(directory, { recursive: true })
    const answer = this.json('token', 'create', '--data', this.data)
    const token = typeof answer === 'object' && answer !== null && 'token' in answer ? String(answer.token) : ''
    this.run(
      'agent',
      'enroll',
      '--collector',
      `wss://127.0.0.1:${this.port}`,
      '--token',
      token,
      '--name',
      agent,
      '--state',
      this.stateOf(agent),
      '--volume',
      `images=${directory}`,
    )
  }

  /** The replica follows whatever becomes of the archive: for tests that tear down trees at random. Before the collector starts. */
  withoutBreaker(): void {
    const file = join(this.data, 'collector.toml')
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^share = .*$/m, 'share = 0'))
  }

  /** A command that goes on beside the test. */
  start(name: string, args: readonly string[]): ChildProcess {
    return this.#start(name, args)
  }

  #start(name: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): ChildProcess {
    const log = openSync(join(this.directory, `${name}.log`), 'a')
    const child = spawn(EXECUTABLE, args, { stdio: ['ignore', log, log], env: { ...process.env, ...environment } })
    closeSync(log)
    this.#processes.set(name, child)
    return child
  }

  log(name: string): string {
    const file = join(this.directory, `${name}.log`)
    return existsSync(file) ? readFileSync(file, 'utf8') : ''
  }

  startCollector(data = this.data, name = 'collector', environment: Readonly<Record<string, string>> = {}): void {
    this.#start(name, ['collector', 'run', '--data', data], environment)
  }

  startAgent(agent: string, options: readonly string[] = [], environment: Readonly<Record<string, string>> = {}): void {
    this.#start(agent, ['agent', 'run', '--state', this.stateOf(agent), ...options], environment)
  }

  /**
   * `name` is 'collector' or an agent's. Resolves when the process has ended. With SIGKILL its children end too: an agent
   * that is a supervisor and its child dies as a whole, as in a power cut.
   */
  async kill(name: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    const child = this.#processes.get(name)
    if (child === undefined) return null
    this.#processes.delete(name)
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
    if (signal === 'SIGKILL') return killFamily(child)
    const ended = once(child, 'exit')
    child.kill(signal)
    const inTime = await Promise.race([ended.then(() => true), setTimeout(STOP_MS_MAX, false)])
    if (inTime) return child.exitCode
    await killFamily(child)
    throw new Error(`${name} does not end on ${signal}: ${this.log(name).slice(-2000)}`)
  }

  isRunning(name: string): boolean {
    const child = this.#processes.get(name)
    return child !== undefined && child.exitCode === null && child.signalCode === null
  }

  async stopAll(): Promise<void> {
    await Promise.all(Array.from(this.#processes.keys(), (name) => this.kill(name)))
  }

  /** Waits until a command succeeds: for what has only just been started. */
  async until(...args: string[]): Promise<Outcome> {
    const deadline = Date.now() + ANSWER_MS_MAX
    for (;;) {
      const outcome = this.try(...args)
      if (outcome.status === 0) return outcome
      if (Date.now() > deadline)
        throw new Error(
          `pacsimile ${args.join(' ')} still exits with ${outcome.status}: ${outcome.stderr}\n${this.log('collector').slice(-2000)}`,
        )
      await setTimeout(100)
    }
  }

  /** Resolves when a collector that has only just been started answers. */
  async up(data = this.data): Promise<void> {
    await this.#answer(data, 'status', {})
  }

  /** What `pacsimile wait` does: resolves when every change made before the call is durable and in the replica. */
  async wait(agent: string, seconds = 50, data = this.data): Promise<void> {
    await this.#answer(data, 'wait', { agent, timeoutMs: seconds * 1000 })
  }

  async #answer(data: string, question: string, body: object): Promise<void> {
    const deadline = Date.now() + ANSWER_MS_MAX
    for (;;) {
      try {
        await callLocal(join(data, 'admin.sock'), question, body, { unreachable: 'collector-unreachable' })
        return
      } catch (error) {
        if (Date.now() > deadline)
          throw new Error(`${question} still fails: ${String(error)}\n${this.log('collector').slice(-2000)}`, { cause: error })
      }
      await setTimeout(PAUSE_MS)
    }
  }

  /** The status of a collector, or undefined where it does not answer. */
  async statusIfUp(data = this.data): Promise<CollectorStatus | undefined> {
    const call = { unreachable: 'collector-unreachable' } as const
    return (await callLocal(join(data, 'admin.sock'), 'status', {}, call).catch(() => undefined)) as CollectorStatus | undefined
  }

  /** The same of an agent. */
  async agentStatusIfUp(agent: string): Promise<AgentStatus | undefined> {
    const call = { unreachable: 'agent-unreachable' } as const
    return (await callLocal(join(this.stateOf(agent), 'agent.sock'), 'status', {}, call).catch(() => undefined)) as AgentStatus | undefined
  }

  replicaOf(agent: string): string {
    return join(this.data, 'replica', agent, 'images')
  }
}
