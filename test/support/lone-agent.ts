/** An agent in this process, without a collector: what it protects, what it journals, and a watcher that a test speaks for. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { Agent } from '../../agent/agent.ts'
import { Database } from '../../agent/database.ts'
import { DescriptorStore } from '../../agent/descriptor-store.ts'
import { recordEntry } from '../../agent/journal-records.ts'
import type { AgentStatus } from '../../agent/status.ts'
import { writeTerms } from '../../agent/terms.ts'
import type { Fence, WatchEvent, Watcher } from '../../agent/watch/watcher.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { SPOOL_BYTES_MAX } from '../../shared/limits.ts'
import { silentLog } from '../../shared/log.ts'
import { label, relativePath } from '../../shared/path.ts'
import type { JournalRecord } from '../../shared/record.ts'
import { scratchDirectory } from './scratch.ts'

class SpokenWatcher implements Watcher {
  readonly mode = 'best-effort'
  readonly reason = 'a test speaks'
  readonly isContinuous = false
  readonly provenMs = undefined
  readonly silentMs = 0
  readonly #waiting: WatchEvent[][] = []
  #wake: (() => void) | undefined
  #isClosed = false

  say(...events: WatchEvent[]): void {
    this.#waiting.push(events)
    this.#wake?.()
  }

  async *events(): AsyncGenerator<readonly WatchEvent[]> {
    while (!this.#isClosed) {
      const events = this.#waiting.shift()
      if (events !== undefined) yield events
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
  }

  fence(): Promise<Fence> {
    return Promise.resolve({ isBehind: false, closedBeforeNs: 0n })
  }

  verified(): void {}

  doubted(): void {}

  mark(): number {
    return 0
  }

  settled(): void {}

  close(): Promise<void> {
    this.#isClosed = true
    this.#wake?.()
    return Promise.resolve()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

export class LoneAgent {
  readonly stateDir = join(scratchDirectory(), 'state')
  readonly volume: string
  quotaBytes = SPOOL_BYTES_MAX
  everySeconds = 300
  acceptRoot: string | undefined
  acceptEmpty = false
  ignore: readonly string[] = []
  #agent: Agent | undefined
  #watcher: SpokenWatcher | undefined
  #stop: (() => Promise<void>) | undefined

  constructor(directory = scratchDirectory()) {
    this.volume = join(directory, 'volume')
    mkdirSync(this.volume)
    mkdirSync(this.stateDir)
    // As if it had met its collector before.
    writeTerms(join(this.stateDir, 'collector.json'), { repository: 'repository1', chunkSizes: DEFAULT_CHUNK_SIZES })
    onTestFinished(() => this.stop())
  }

  start(): void {
    const stop = new AbortController()
    const agent = new Agent({
      stateDir: this.stateDir,
      config: {
        name: label('agent1', 'agent'),
        collector: 'wss://127.0.0.1:1',
        volume: [
          {
            name: label('images', 'volume'),
            path: this.volume,
            ignore: [...this.ignore],
            acceptRoot: this.acceptRoot,
            acceptEmpty: this.acceptEmpty,
          },
        ],
        spool: { quotaBytes: this.quotaBytes },
        watch: 'auto',
        scan: { everySeconds: this.everySeconds, reconcileSeconds: 3600 },
        priority: 'normal',
        logLevel: 'info',
      },
      log: silentLog,
      descriptors: DescriptorStore.fromEnvironment(silentLog, {}),
      openWatcher: () => {
        this.#watcher = new SpokenWatcher()
        return Promise.resolve(this.#watcher)
      },
    })
    const running = agent.run(stop.signal, () => {})
    this.#agent = agent
    this.#stop = async () => {
      stop.abort()
      await running
    }
  }

  async stop(): Promise<void> {
    const stop = this.#stop
    this.#stop = undefined
    await stop?.()
  }

  get status(): AgentStatus | undefined {
    try {
      return this.#agent?.status()
    } catch {
      return undefined
    }
  }

  /** Starts, and resolves when the first scan is done. */
  async startAndWatch(): Promise<void> {
    this.start()
    await this.is('watching')
    // What it found is known a moment later.
    await expect.poll(() => this.status?.volumes[0]?.lastScan).toBeDefined()
  }

  async is(state: 'watching' | 'paused'): Promise<void> {
    await expect.poll(() => this.status?.volumes[0]?.state, { timeout: 10_000 }).toBe(state)
  }

  write(name: string, content: string): void {
    mkdirSync(join(this.volume, name, '..'), { recursive: true })
    writeFileSync(join(this.volume, name), content)
  }

  /** Events that say that these paths changed. */
  tell(...names: string[]): void {
    this.#watcher?.say(...names.map((name): WatchEvent => ({ kind: 'dirty', path: relativePath(name) })))
  }

  say(...events: WatchEvent[]): void {
    this.#watcher?.say(...events)
  }

  /** Everything journalled, of all epochs; the agent must be stopped. */
  async records(): Promise<JournalRecord[]> {
    const database = await Database.open(join(this.stateDir, 'log'))
    const records: JournalRecord[] = []
    for await (const page of database.pages({ gte: 'r', lt: 's' }))
      for (const [key, value] of page) records.push(recordEntry(key, value).record)
    await database.close()
    return records
  }
}
