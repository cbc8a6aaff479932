/**
 * A real Orthanc that keeps its storage and its index in one directory, and answers on loopback only.
 *
 * Needs the package orthanc, which must not have started a service of its own. It is ended by its process id, when the test ends at
 * the latest. It prevents what is restored from being called right by anything but the program that must live with it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { freePort } from './free-port.ts'
import { scratchDirectory } from './scratch.ts'

const PROGRAM = '/usr/sbin/Orthanc'
const UP_MS_MAX = 30_000
const PAUSE_MS = 20

/** Announced where it is missing. */
export const hasOrthanc = existsSync(PROGRAM)

/** As Orthanc names them. */
export interface Stored {
  readonly instance: string
  readonly study: string
}

export class Orthanc {
  readonly #process: ChildProcess
  readonly #log: string
  readonly #url: string

  private constructor(process: ChildProcess, log: string, url: string) {
    this.#process = process
    this.#log = log
    this.#url = url
  }

  /** Resolves when it answers. `directory` is made where it is missing. @throws with its log when it does not start */
  static async start(directory: string): Promise<Orthanc> {
    mkdirSync(directory, { recursive: true })
    const beside = scratchDirectory()
    const port = await freePort()
    const [configuration, log] = [join(beside, 'orthanc.json'), join(beside, 'orthanc.log')]
    writeFileSync(configuration, JSON.stringify(settings(directory, port)))
    const output = openSync(log, 'a')
    const process = spawn(PROGRAM, [configuration], { stdio: ['ignore', output, output] })
    closeSync(output)
    onTestFinished(() => {
      process.kill('SIGKILL')
    })
    const orthanc = new Orthanc(process, log, `http://127.0.0.1:${port}`)
    await orthanc.#up()
    return orthanc
  }

  async #up(): Promise<void> {
    const deadline = Date.now() + UP_MS_MAX
    for (;;) {
      const hasEnded = this.#process.exitCode !== null || this.#process.signalCode !== null
      if (hasEnded || Date.now() > deadline) throw new Error(`Orthanc does not start: ${readFileSync(this.#log, 'utf8')}`)
      const answer = await fetch(`${this.#url}/system`).catch(() => undefined)
      if (answer?.ok === true) return
      await setTimeout(PAUSE_MS)
    }
  }

  /** Resolves when it has acknowledged the file. */
  async store(file: Buffer): Promise<Stored> {
    const answer = await this.#ask('/instances', { method: 'POST', body: new Uint8Array(file) })
    const { ID, ParentStudy, Status } = (await answer.json()) as { ID: string; ParentStudy: string; Status: string }
    if (Status !== 'Success') throw new Error(`Orthanc says of a new file: ${Status}`)
    return { instance: ID, study: ParentStudy }
  }

  /** Resolves when it has acknowledged that the study is gone. */
  async remove(study: string): Promise<void> {
    await this.#ask(`/studies/${study}`, { method: 'DELETE' })
  }

  /** What it serves: the SHA-256 of each instance's file; a status where it lists one and has no file of it. */
  async served(): Promise<Map<string, string>> {
    const instances = (await (await this.#ask('/instances')).json()) as string[]
    const served = new Map<string, string>()
    for (const instance of instances) {
      const answer = await fetch(`${this.#url}/instances/${instance}/file`)
      const bytes = new Uint8Array(await answer.arrayBuffer())
      served.set(instance, answer.ok ? hash('sha256', bytes) : `status ${answer.status}`)
    }
    return served
  }

  /** The number of the last change that it tells of. */
  async lastChange(): Promise<number> {
    const { Last } = (await (await this.#ask('/changes?last')).json()) as { Last: number }
    return Last
  }

  async #ask(path: string, options: RequestInit = {}): Promise<Response> {
    const answer = await fetch(`${this.#url}${path}`, options)
    if (!answer.ok) throw new Error(`${options.method ?? 'GET'} ${path}: ${answer.status} ${await answer.text()}`)
    return answer
  }

  /** Resolves when it has ended in order. @returns the errors of its log */
  async stop(): Promise<string[]> {
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGTERM')
    await ended
    return readFileSync(this.#log, 'utf8')
      .split('\n')
      .filter((line) => /^E\d/.test(line))
  }
}

/** What it answers to another host than this one is a refusal. */
function settings(directory: string, port: number): object {
  return {
    Name: 'pacsimile-test',
    StorageDirectory: directory,
    IndexDirectory: directory,
    StorageCompression: false,
    SyncStorageArea: true,
    HttpPort: port,
    RemoteAccessAllowed: false,
    AuthenticationEnabled: false,
    DicomServerEnabled: false,
    Plugins: [],
  }
}
