/** A process that runs the raw fanotify loop (raw-watch.ts), from its first event to its last. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'

const LOOP = join(import.meta.dirname, 'raw-watch.ts')

export class RawWatch implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: Interface

  private constructor(directory: string) {
    this.#child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', LOOP, directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#lines = createInterface(this.#child.stdout)
  }

  /** Resolves when it watches the filesystem that holds the directory. */
  static async start(directory: string): Promise<RawWatch> {
    const watch = new RawWatch(directory)
    await watch.#line()
    return watch
  }

  /** Resolves with the number of events, when it has read all of them. */
  async end(): Promise<number> {
    const line = this.#line()
    this.#child.stdin.end()
    return (JSON.parse(await line) as { events: number }).events
  }

  async #line(): Promise<string> {
    const ended = once(this.#child, 'exit').then(([status]) => Promise.reject(new Error(`the raw loop ended with ${status}`)))
    const [line] = (await Promise.race([once(this.#lines, 'line'), ended])) as [string]
    return line
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }
}
