/**
 * One protected directory from end to end: a collector, an agent that watches it in a chosen way, and what they say of it.
 *
 * The collector and the agent's state lie on another filesystem than the protected directory, wherever that is one of the
 * test's own. Invariant: `expectEqual` compares the source with the replica and with a restore, all metadata of every path.
 * It prevents a test from calling equal what it has looked at from one side only.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { callLocal } from '../../shared/local-api.ts'
import { Installation, type Outcome } from './installation.ts'
import { launch } from './launcher.ts'
import { scratchDirectory } from './scratch.ts'
import { type WalkedEntry, walkTree } from './tree-walk.ts'
import { differences } from './truth.ts'

export type Watch = 'fanotify' | 'chokidar'

const AGENT = 'pacs1'
const VOLUME = `${AGENT}:images`
/** docs/errors.md: what is listed could not be restored, everything else was. */
const EXIT_INCOMPLETE = 8
const DIFFERENCES_TOLD = 20
const HISTORY_TOLD = 10
const LOG_TOLD = 5000

/** As docs/json.md says of `agent status`. */
export interface Status {
  /** Of the agent, and of the small process that starts it again; absent under systemd. */
  readonly pid?: number
  readonly supervisor?: number
  readonly epoch: number
  readonly headSeq: number
  readonly pending: number
  readonly dirty: number
  readonly alarms: readonly string[]
  readonly volumes: readonly {
    readonly mode: 'complete' | 'best-effort'
    readonly state: 'scanning' | 'watching' | 'paused'
    readonly reason: string
    readonly gaps: number
    readonly unannounced: number
  }[]
}

export interface Gap {
  readonly from: string
  readonly until: string
  readonly cause: string
}

/** As docs/json.md says of `log`. */
export interface LogLine {
  readonly time: string
  readonly epoch: number
  readonly seq: number
  readonly op: string
  readonly path?: string
  readonly to?: string
  readonly cause?: string
  readonly lost?: boolean
  readonly version?: {
    readonly kind: string
    readonly mode: string
    readonly size?: number
    readonly digest?: string
    readonly consistency?: string
  }
}

export interface Scanned {
  readonly name: string
  readonly entries: number
  readonly seconds: number
  readonly differences: number
  readonly unannounced: number
}

export interface SiteOptions {
  readonly source: string
  /** fanotify is what an agent takes by itself, as root. */
  readonly watch?: Watch
  readonly environment?: Readonly<Record<string, string>>
  /** Whether a mass change stops the replica. */
  readonly hasBreaker?: boolean
}

export interface RestoreOptions {
  readonly path?: string
  readonly options?: readonly string[]
  readonly missing?: readonly string[]
}

export class Site {
  readonly installation: Installation
  readonly source: string
  readonly #watch: Watch
  readonly #environment: Readonly<Record<string, string>>

  private constructor(installation: Installation, { source, watch, environment }: SiteOptions) {
    this.installation = installation
    this.source = source
    this.#watch = watch ?? 'fanotify'
    this.#environment = environment ?? {}
  }

  /** Enrolled, the collector running; `prepare` may change the installation before the agent is enrolled. */
  static async make(options: SiteOptions, prepare?: (installation: Installation) => void): Promise<Site> {
    const installation = await Installation.make()
    const site = new Site(installation, options)
    if (options.hasBreaker !== true) installation.withoutBreaker()
    installation.startCollector()
    await installation.up()
    prepare?.(installation)
    installation.enroll(AGENT, options.source)
    return site
  }

  /** As `make`, and the agent has started and done its first scan. */
  static async watching(options: SiteOptions, prepare?: (installation: Installation) => void): Promise<Site> {
    const site = await Site.make(options, prepare)
    site.start()
    await site.wait()
    return site
  }

  get state(): string {
    return this.installation.stateOf(AGENT)
  }

  start(): void {
    this.installation.startAgent(AGENT, this.#watch === 'chokidar' ? ['--watch', 'chokidar'] : [], this.#environment)
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.installation.kill(AGENT, signal)
  }

  async wait(seconds = 50): Promise<void> {
    try {
      await this.installation.wait(AGENT, seconds)
    } catch (error) {
      const said = JSON.stringify(await this.statusIfRunning())
      throw new Error(`it was not durable and in the replica; agent: ${said}\n${this.#logEnd}`, {
        cause: error,
      })
    }
  }

  /** What the agent said last. */
  get #logEnd(): string {
    return this.installation.log(AGENT).slice(-LOG_TOLD)
  }

  get status(): Status {
    return this.installation.json('agent', 'status', '--state', this.state) as Status
  }

  /** The status, or undefined where the agent does not answer. */
  statusIfRunning(): Promise<Status | undefined> {
    return this.installation.agentStatusIfUp(AGENT)
  }

  /** A scan now; resolves when it has compared everything. */
  scan(): Scanned {
    return onlyVolume(this.installation.json('agent', 'scan', '--state', this.state))
  }

  /** The same without stopping this process, as often as one likes. */
  async scanBeside(): Promise<Scanned> {
    return onlyVolume(await callLocal(join(this.state, 'agent.sock'), 'scan', {}, { unreachable: 'agent-unreachable' }))
  }

  get gaps(): readonly Gap[] {
    return (this.installation.json('window', VOLUME, '--data', this.installation.data) as { gaps: Gap[] }).gaps
  }

  /** Every record of the volume, or of a path and below it, after the record `since`. */
  log({ path = '', since }: { path?: string; since?: LogLine | undefined } = {}): LogLine[] {
    const target = path === '' ? VOLUME : `${VOLUME}/${path}`
    const lines = this.installation
      .run('log', target, '--data', this.installation.data, '--json')
      .stdout.split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as LogLine)
    return since === undefined ? lines : lines.slice(lines.findIndex(({ epoch, seq }) => epoch === since.epoch && seq === since.seq) + 1)
  }

  /** The directory into which it was restored, all but the paths of which `missing` says that they cannot be. */
  restore(at: string, how: RestoreOptions = {}): string {
    const to = join(scratchDirectory(), 'restored')
    const asked = this.#restoring(at, to, how)
    expectRestored(asked, this.installation.try(...asked), how)
    return to
  }

  /** The same without stopping this process. */
  async restoreBeside(at: string, how: RestoreOptions = {}): Promise<string> {
    const to = join(scratchDirectory(), 'restored')
    const asked = this.#restoring(at, to, how)
    expectRestored(asked, await launch(...asked), how)
    return to
  }

  #restoring(at: string, to: string, { path = '', options = [] }: RestoreOptions): string[] {
    const target = path === '' ? VOLUME : `${VOLUME}/${path}`
    return ['restore', target, '--at', at, '--to', to, '--data', this.installation.data, '--json', ...options]
  }

  /** Source, replica and a restore of now are the same, every path with all its metadata. @returns what they hold */
  async expectEqual(seconds = 50): Promise<Map<string, WalkedEntry>> {
    await this.wait(seconds)
    const copy = walkTree(this.source)
    const restored = this.restore('now')
    // Soft: whether the history or only the replica is wrong is the first question when one of them is.
    expect.soft(this.#told(differences(copy, walkTree(this.installation.replicaOf(AGENT)))), 'replica').toEqual([])
    expect(this.#told(differences(copy, walkTree(restored))), 'restore --at now').toEqual([])
    rmSync(restored, { recursive: true })
    return copy
  }

  /** At most so many, with what the history says of the first path. */
  #told(words: readonly string[]): string[] {
    const [first] = words
    if (first === undefined) return []
    const path: unknown = JSON.parse(/^"(?:[^"\\]|\\.)*"/.exec(first)?.[0] ?? '""')
    const { stdout } = this.installation.try('log', `${VOLUME}/${String(path)}`, '--data', this.installation.data)
    return [...words.slice(0, DIFFERENCES_TOLD), ...stdout.split('\n').slice(-HISTORY_TOLD)]
  }

  /** Every change was seen: nothing was found by a scan that no event had announced, and no gap. */
  /** `isForgiven`: the causes of gaps that are what the test is about. */
  expectNothingMissed(isForgiven: (cause: string) => boolean = () => false): void {
    expect(this.status.volumes[0], 'agent status').toMatchObject({ mode: 'complete', reason: '' })
    expect(this.scan(), 'agent scan').toMatchObject({ unannounced: 0 })
    const gaps = this.gaps.filter(({ cause }) => !isForgiven(cause))
    expect(gaps, `gaps; the agent: ${this.#logEnd}`).toEqual([])
    expect(this.status.volumes[0], `agent status; the agent: ${this.#logEnd}`).toMatchObject({
      mode: 'complete',
      state: 'watching',
      unannounced: 0,
    })
  }
}

function expectRestored(asked: readonly string[], { status, stdout, stderr }: Outcome, { missing = [] }: RestoreOptions): void {
  if (status !== 0 && status !== EXIT_INCOMPLETE) throw new Error(`${asked.join(' ')} exited with ${status}: ${stderr}`)
  const report = JSON.parse(stdout) as { missing: { path: string }[] }
  expect(report.missing.map((entry) => entry.path).sort(), 'missing').toEqual([...missing].sort())
}

function onlyVolume(answer: unknown): Scanned {
  const [scanned] = (answer as { volumes: Scanned[] }).volumes
  if (scanned === undefined) throw new Error('the scan tells of no volume')
  return scanned
}
