/**
 * The demo's collector and agent: real processes of this very executable, over real TLS on loopback.
 *
 * Invariant: after `end` nothing that was started here runs, and after the signal nothing more can be started. It prevents a demo that was
 * interrupted from leaving processes behind, or a command that goes on writing into a directory that was cleared away.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errnoOf, PacsimileError } from '../../shared/errors.ts'

type Program = 'collector' | 'agent'

const READY_MS = 30_000
const RETRY_MS = 100
/** What was killed is gone in milliseconds, unless it waits for a disk. */
const GONE_MS = 5000
const GONE_POLL_MS = 5
const ENDED_STATES = new Set(['Z', 'X'])

export class DemoSite {
  readonly directory: string
  readonly data: string
  readonly state: string
  readonly repository: string
  readonly replica: string
  readonly #programs = new Map<Program, ChildProcess>()
  readonly #children = new Set<ChildProcess>()
  readonly #signal: AbortSignal

  /** The signal ends every child at once and lets no other begin. */
  constructor(directory: string, signal: AbortSignal) {
    this.#signal = signal
    signal.addEventListener('abort', () => this.killAll(), { once: true })
    this.directory = directory
    this.data = join(directory, 'collector')
    this.state = join(directory, 'agent')
    this.repository = join(this.data, 'repository')
    this.replica = join(this.data, 'replica', 'pacs1', 'images')
  }

  #spawn(args: readonly string[], stdio: ('ignore' | 'pipe' | number)[]): ChildProcess {
    this.#signal.throwIfAborted()
    // In a group of its own: an agent has a process below it.
    const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], { stdio, detached: true })
    this.#children.add(child)
    // What is below one that was killed may be there still: `end` waits for it.
    child.once('exit', () => !this.#signal.aborted && this.#children.delete(child))
    return child
  }

  /** Runs a command to its end; its JSON answer. @throws incomplete when it fails */
  async command(...args: string[]): Promise<unknown> {
    const child = this.#spawn([...args, '--json'], ['ignore', 'pipe', 'pipe'])
    const ended = once(child, 'close')
    const said = { stdout: '', stderr: '' }
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said.stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said.stderr += text
    })
    await ended
    this.#signal.throwIfAborted()
    if (child.exitCode === 0) return JSON.parse(said.stdout)
    const status = child.exitCode ?? child.signalCode ?? ''
    throw new PacsimileError('incomplete', `pacsimile ${args.join(' ')} ended with ${status}: ${said.stderr.trim()}\n${this.#lastWords()}`)
  }

  /** For what has only just been started: the same again until it succeeds. @throws incomplete, at once when a program has ended */
  async patiently(...args: string[]): Promise<unknown> {
    const deadline = performance.now() + READY_MS
    for (;;) {
      try {
        return await this.command(...args)
      } catch (error) {
        if (this.#signal.aborted || performance.now() > deadline) throw error
        for (const [program, { exitCode, signalCode }] of this.#programs) {
          const status = exitCode ?? signalCode
          if (status !== null)
            throw new PacsimileError('incomplete', `pacsimile ${program} run ended with ${status}\n${this.#lastWords()}`, { cause: error })
        }
        await sleep(RETRY_MS)
      }
    }
  }

  #lastWords(): string {
    return (['collector', 'agent'] as const)
      .map((program) => this.#logOf(program))
      .filter((file) => existsSync(file))
      .map((file) => readFileSync(file, 'utf8').split('\n').slice(-16).join('\n'))
      .join('\n')
  }

  #logOf(program: Program): string {
    return join(this.directory, `${program}.log`)
  }

  start(program: Program): void {
    const log = openSync(this.#logOf(program), 'a')
    const place = program === 'collector' ? ['--data', this.data] : ['--state', this.state]
    this.#programs.set(program, this.#spawn([program, 'run', ...place], ['ignore', log, log]))
    closeSync(log)
  }

  /** `kill -9`. */
  async kill(program: Program): Promise<void> {
    const child = this.#programs.get(program)
    this.#programs.delete(program)
    if (child !== undefined) await killed(child)
  }

  /** At once, and without waiting: an agent that stops in order waits for a collector, and that one may be gone. */
  killAll(): void {
    for (const child of this.#children) killGroup(child)
  }

  /** Resolves when no child is left. */
  async end(): Promise<void> {
    await Promise.all(Array.from(this.#children, killed))
  }
}

async function killed(child: ChildProcess): Promise<void> {
  const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined
  killGroup(child)
  await ended
  // What was below it is nobody's child here.
  for (const deadline = performance.now() + GONE_MS; isGroupAlive(child) && performance.now() < deadline; ) await sleep(GONE_POLL_MS)
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    // Nobody is left of it whom one could, or would have to, end; the others are to be ended all the same.
    if (errnoOf(error) === undefined) throw error
  }
}

/** Whether a process of it is more than what nobody has taken note of the end of (proc_pid_stat(5)). */
function isGroupAlive({ pid }: ChildProcess): boolean {
  if (!existsSync('/proc/self/stat')) return false
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1')
      const [state = '', , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return Number(group) === pid && !ENDED_STATES.has(state)
    } catch (error) {
      // It has ended since it was listed.
      if (errnoOf(error) === undefined) throw error
      return false
    }
  })
}

/** How a person here starts the program that runs now. */
export function launcher(): string {
  const file = join(dirname(process.argv[1] ?? ''), '../../../collector/cli/pacsimile')
  if (!existsSync(file)) return 'pacsimile'
  const nearby = relative(process.cwd(), file)
  return nearby.startsWith('..') ? file : nearby
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new PacsimileError('io', 'No free port on loopback')
  return address.port
}
