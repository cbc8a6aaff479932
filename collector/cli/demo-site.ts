/**
 * The demo's collector and agent: real processes of this very executable, over real TLS on loopback.
 *
 * Invariant: after `end` nothing that was started here runs, and after the signal nothing more can be started. It prevents a demo that was
 * interrupted from leaving processes behind, or a command that goes on writing into a directory that was cleared away.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PacsimileError } from '../../shared/errors.ts'

type Program = 'collector' | 'agent'

const READY_MS = 30_000
const RETRY_MS = 100

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
    const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], { stdio })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
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
    for (const child of this.#children) child.kill('SIGKILL')
  }

  /** Resolves when no child is left. */
  async end(): Promise<void> {
    await Promise.all(Array.from(this.#children, killed))
  }
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
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
