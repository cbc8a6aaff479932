/**
 * A collector's port on loopback, over a repository that a test fills: for tests of who may read what there.
 */

import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { type IncomingMessage } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { Enrollment } from '../../collector/enrollment.ts'
import { createToken, type Identity, openIdentity } from '../../collector/identity.ts'
import { initCollector } from '../../collector/init.ts'
import { type Patience, Receiver } from '../../collector/receiver.ts'
import { enrollRestorer, type RestorerIdentity, readRestorer } from '../../collector/restorer-identity.ts'
import { RestorerPort } from '../../collector/restorer-port.ts'
import { HybridClock, systemClock, type WallClock } from '../../shared/clock.ts'
import { silentLog } from '../../shared/log.ts'
import { JournalWriter } from './journal-writer.ts'
import { scratchDirectory } from './scratch.ts'
import { Store } from './store.ts'

const HOUR_MS = 3_600_000

export interface AskedFor extends RequestOptions {
  readonly headers?: Record<string, string>
}

export interface Answered {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

export interface AccessLine {
  readonly event: 'asked' | 'ended'
  readonly id: string
  readonly restorer?: string
  readonly by?: string
  readonly what?: string
  readonly volume?: string
  readonly path?: string
  readonly at?: unknown
  readonly outcome?: string
  readonly bytes?: number
}

export interface ReadingPortOptions {
  readonly clock?: WallClock
  readonly patience?: Patience
  readonly requireFolded?: () => void
}

export class ReadingPort {
  readonly store: Store
  readonly identity: Identity
  readonly dataDir: string
  readonly receiver: Receiver
  /** Of the agent `pacs1`; `send` makes it history. */
  readonly writer = new JournalWriter()

  private constructor(store: Store, identity: Identity, dataDir: string, receiver: Receiver) {
    this.store = store
    this.identity = identity
    this.dataDir = dataDir
    this.receiver = receiver
  }

  static async open({ clock = systemClock, patience, requireFolded = () => {} }: ReadingPortOptions = {}): Promise<ReadingPort> {
    const store = await Store.open()
    const dataDir = join(scratchDirectory(), 'data')
    await initCollector({ dataDir })
    const identity = openIdentity(dataDir, clock)
    const { catalog, history, ingest, repository } = store
    const restorers = new RestorerPort({ dataDir, identity, history, catalog, requireFolded, log: silentLog })
    const enrollment = new Enrollment(identity, () => 0, silentLog)
    const parts = {
      identity,
      enrollment,
      ingest,
      repository: repository.description,
      clock: new HybridClock(systemClock),
      restorers,
      log: silentLog,
    }
    const receiver = await Receiver.listen(parts, { host: '127.0.0.1', port: 0 }, patience)
    onTestFinished(() => receiver.close())
    return new ReadingPort(store, identity, dataDir, receiver)
  }

  get url(): string {
    return `https://127.0.0.1:${this.receiver.address.port}`
  }

  /** What the writer has written becomes history. */
  async send(writer = this.writer): Promise<void> {
    const { failures } = await this.store.send(writer)
    if (failures[0] !== undefined) throw failures[0]
  }

  token(name: string, allowed: readonly string[], validMs = HOUR_MS): string {
    return createToken(this.dataDir, { ttlMs: HOUR_MS, restorer: { name, allowed, validMs } })
  }

  async restorer(name: string, allowed: readonly string[] = ['all'], validMs?: number): Promise<RestorerIdentity> {
    const directory = join(scratchDirectory(), 'restorer')
    await enrollRestorer(directory, { collector: this.url, token: this.token(name, allowed, validMs), name })
    return readRestorer(directory)
  }

  /** One request on a connection of its own. */
  async ask(options: AskedFor, body: string | Buffer = ''): Promise<Answered> {
    const { address, port } = this.receiver.address
    const base = { host: address, port, agent: false, rejectUnauthorized: false, headers: { 'content-length': Buffer.byteLength(body) } }
    const asking = httpsRequest({ ...base, ...options, headers: { ...base.headers, ...options.headers } })
    const responded = once(asking, 'response') as Promise<[IncomingMessage]>
    asking.end(body)
    const [answer] = await responded
    const parts: Buffer[] = []
    for await (const part of answer as AsyncIterable<Buffer>) parts.push(part)
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(parts) }
  }

  get access(): AccessLine[] {
    const directory = join(this.dataDir, 'access')
    return readdirSync(directory)
      .toSorted()
      .flatMap((file) => readFileSync(join(directory, file), 'utf8').trim().split('\n'))
      .map((line) => JSON.parse(line) as AccessLine)
  }
}
