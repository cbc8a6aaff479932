/**
 * A collector and an agent for a measurement: started in a directory, asked in this process, gone at the end.
 *
 * Invariant: every process is ended by its id, the agent's whole family too. It prevents a measurement that broke off from
 * disturbing the next one.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { callLocal } from '../../shared/local-api.ts'

const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')
const run = promisify(execFile)
const TRIES_MAX = 1200
const PAUSE_MS = 50
const STOP_MS = 15_000

/** What a measurement reads of `agent status`. */
export interface StationStatus {
  readonly headSeq: number
  readonly headMs?: number
  readonly pending: number
  readonly dirty: number
  readonly journalLag?: { readonly changes: number; readonly p50Ms: number; readonly p99Ms: number; readonly maxMs: number }
  readonly volumes: readonly { readonly mode: string; readonly gaps: number; readonly unannounced: number }[]
}

export interface StationScan {
  readonly entries: number
  readonly seconds: number
  readonly differences: number
  readonly unannounced: number
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  return typeof address === 'object' && address !== null ? address.port : 0
}

function pacsimile(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(EXECUTABLE, args, { encoding: 'utf8', maxBuffer: 1 << 30 })
  if (status !== 0) throw new Error(`pacsimile ${args.join(' ')}: ${stderr}`)
  return stdout
}

export class Station implements AsyncDisposable {
  readonly state: string
  readonly data: string
  /** Of the collector, for `--collector`. */
  readonly url: string
  readonly #children: ChildProcess[] = []

  private constructor(directory: string, listen: string) {
    this.state = join(directory, 'agent')
    this.data = join(directory, 'collector')
    this.url = `https://${listen}`
  }

  get collectorPid(): number {
    return this.#children[0]?.pid ?? 0
  }

  /** The agent itself, which its supervisor has started (proc_pid_children(5)). */
  get agentPid(): number {
    const supervisor = this.#children[1]?.pid
    const [agent = ''] = readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, 'latin1').split(' ', 1)
    return Number(agent)
  }

  /** The agent watches `source`; the rest lies in `directory`. */
  static async start(directory: string, source: string): Promise<Station> {
    mkdirSync(directory, { recursive: true })
    const listen = `127.0.0.1:${await freePort()}`
    const station = new Station(directory, listen)
    const { state, data } = station
    pacsimile('collector', 'init', '--data', data, '--listen', listen)
    station.#spawn('collector', 'run', '--data', data)
    await station.#patiently('status', '--data', data)
    const token = pacsimile('token', 'create', '--data', data).trim()
    const place = ['--state', state, '--volume', `images=${source}`]
    pacsimile('agent', 'enroll', '--collector', `wss://${listen}`, '--token', token, '--name', 'bench', ...place)
    station.#spawn('agent', 'run', '--state', state)
    await station.#patiently('agent', 'status', '--state', state)
    return station
  }

  #spawn(...args: string[]): void {
    this.#children.push(spawn(EXECUTABLE, args, { stdio: 'ignore' }))
  }

  async #patiently(...args: string[]): Promise<void> {
    // Whoever measures meanwhile is not held up.
    const hasSucceeded = (): Promise<boolean> =>
      run(EXECUTABLE, args).then(
        () => true,
        () => false,
      )
    for (let tries = 0; !(await hasSucceeded()); tries++) {
      if (tries > TRIES_MAX) throw new Error(`pacsimile ${args.join(' ')} does not succeed`)
      await setTimeout(PAUSE_MS)
    }
  }

  /** Everything is durable and in the replica. */
  wait(seconds: number): Promise<void> {
    return this.#patiently('wait', 'bench', '--data', this.data, '--timeout', `${seconds}s`)
  }

  /** What comes is no reason to stop the replica, as many files as it may delete. */
  expectMassChange(reason: string): void {
    pacsimile('replica', 'expect', 'bench:images', '--for', '1h', '--reason', reason, '--data', this.data)
  }

  async status(): Promise<StationStatus> {
    return (await callLocal(join(this.state, 'agent.sock'), 'status', {}, { unreachable: 'agent-unreachable' })) as StationStatus
  }

  async scan(): Promise<StationScan> {
    const { stdout } = await run(EXECUTABLE, ['agent', 'scan', '--state', this.state, '--json'])
    const { volumes } = JSON.parse(stdout) as { volumes: StationScan[] }
    const [scan] = volumes
    if (scan === undefined) throw new Error('the scan tells of no volume')
    return scan
  }

  /** Records of these kinds after `seq`, by kind. */
  recordsAfter(seq: number): Map<string, number> {
    const counts = new Map<string, number>()
    for (const line of pacsimile('log', 'bench:images', '--data', this.data, '--json').trim().split('\n')) {
      const record = JSON.parse(line) as { seq: number; op: string; version?: { kind: string } }
      if (record.seq <= seq) continue
      const kind = record.version === undefined ? record.op : `${record.op} ${record.version.kind}`
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
    }
    return counts
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The agent ends its own child when it is asked to; only what does not end in time is made to.
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      const inTime = await Promise.race([ended.then(() => true), setTimeout(STOP_MS, false)])
      if (inTime) continue
      child.kill('SIGKILL')
      await ended
    }
  }
}
