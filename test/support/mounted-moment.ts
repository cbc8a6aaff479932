/** A moment that a process of its own has mounted; unmounted when the test ends, however it ends. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { LAUNCHER } from './launcher.ts'
import { scratchDirectory } from './scratch.ts'

export class MountedMoment {
  readonly directory: string
  /** What `mount --json` said. */
  readonly told: Readonly<Record<string, unknown>>
  readonly #child: ChildProcess
  readonly #log: string[]

  private constructor(directory: string, told: Readonly<Record<string, unknown>>, child: ChildProcess, log: string[]) {
    this.directory = directory
    this.told = told
    this.#child = child
    this.#log = log
  }

  /** `options`: those of `pacsimile mount`, with the moment. */
  static async of(target: string, ...options: string[]): Promise<MountedMoment> {
    const directory = join(scratchDirectory(), 'mounted')
    mkdirSync(directory)
    const child = spawn(LAUNCHER, ['mount', target, directory, '--json', ...options], { stdio: ['ignore', 'pipe', 'pipe'] })
    onTestFinished(() => {
      child.kill('SIGKILL')
      // Where it is one still.
      spawnSync('umount', ['--lazy', directory])
    })
    const log: string[] = []
    child.stderr.setEncoding('utf8').on('data', (text: string) => log.push(text))
    const ended = once(child, 'exit').then(([status]) => {
      throw new Error(`pacsimile mount exited with ${status}: ${log.join('')}`)
    })
    // After the first line nobody asks.
    ended.catch(() => {})
    const [line] = (await Promise.race([once(child.stdout.setEncoding('utf8'), 'data'), ended])) as [string]
    return new MountedMoment(directory, JSON.parse(line) as Record<string, unknown>, child, log)
  }

  get log(): string {
    return this.#log.join('')
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  /** Its exit status. */
  async ended(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit')
    return this.#child.exitCode
  }
}
