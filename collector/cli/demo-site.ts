/**
 * The demo's collector and agent: real processes of this very executable, over real TLS on loopback.
 *
 * Every process is ended by its id when the demo ends, however it ends.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export class DemoSite {
  readonly directory: string
  readonly data: string
  readonly state: string
  readonly repository: string
  readonly replica: string
  readonly #running = new Map<string, ChildProcess>()

  constructor(directory: string) {
    this.directory = directory
    this.data = join(directory, 'collector')
    this.state = join(directory, 'agent')
    this.repository = join(this.data, 'repository')
    this.replica = join(this.data, 'replica', 'pacs1', 'images')
  }

  #spawn(args: readonly string[], stdio: ('ignore' | 'pipe' | number)[]): ChildProcess {
    return spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], { stdio })
  }

  async #call(args: readonly string[]): Promise<Outcome> {
    const child = this.#spawn(args, ['ignore', 'pipe', 'pipe'])
    const ended = once(child, 'close')
    const parts = { stdout: '', stderr: '' }
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      parts.stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      parts.stderr += text
    })
    await ended
    return { status: child.exitCode ?? -1, ...parts }
  }

  /** Runs a command to its end; its JSON answer. @throws incomplete when it fails */
  async command(...args: string[]): Promise<unknown> {
    const { status, stdout, stderr } = await this.#call([...args, '--json'])
    if (status !== 0)
      throw new PacsimileError('incomplete', `pacsimile ${args.join(' ')} ended with ${status}: ${stderr.trim()}\n${this.#lastWords()}`)
    return JSON.parse(stdout)
  }

  /** For what has only just been started: the same again until it succeeds. */
  async patiently(...args: string[]): Promise<unknown> {
    const deadline = Date.now() + 30_000
    for (;;) {
      try {
        return await this.command(...args)
      } catch (error) {
        if (Date.now() > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
  }

  #lastWords(): string {
    return ['collector', 'agent'].map((name) => this.#logOf(name).split('\n').slice(-6).join('\n')).join('\n')
  }

  #logOf(name: string): string {
    try {
      return readFileSync(join(this.directory, `${name}.log`), 'utf8')
    } catch {
      // It was not started yet.
      return ''
    }
  }

  start(name: 'collector' | 'agent'): void {
    const log = openSync(join(this.directory, `${name}.log`), 'a')
    const place = name === 'collector' ? ['--data', this.data] : ['--state', this.state]
    this.#running.set(name, this.#spawn([name, 'run', ...place], ['ignore', log, log]))
    closeSync(log)
  }

  async end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#running.get(name)
    this.#running.delete(name)
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  /** At once: an agent that stops in order waits for a collector, and that one may be gone. */
  async endAll(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((name) => this.end(name, 'SIGKILL')))
  }
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
