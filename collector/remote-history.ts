/**
 * History asked of a running collector: through its admin socket, or however else its questions are carried.
 */
import { z } from 'zod'
import { type HybridTime, hybridTime } from '../shared/clock.ts'
import { type Digest, digestHex } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { callLocal, streamLocal } from '../shared/local-api.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import { type Position, WATCH_MODES } from '../shared/record.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { Damage } from './catalog.ts'
import {
  type ChunkResult,
  type HistorySource,
  type ListedEntry,
  type LogEntry,
  type LogQuery,
  oneByOne,
  type TreeDepth,
  type Window,
} from './history-source.ts'
import { decodeChunks, decodeEntries, decodeLog } from './history-wire.ts'
import type { Mark } from './marks.ts'
import type { OpenRepository, PackAccess } from './pack-reader.ts'
import type { Point, PointRequest } from './point.ts'
import type { FramePlace } from './repository/frame-file.ts'

const time = z.string().transform((text) => hybridTime(BigInt(text)))
const position = z.object({ epoch: z.number(), seq: z.number() })
const gap = z.object({ from: time, until: time, cause: z.string() })
const label = z.string().transform((text) => text as Label)

const span = z.object({ from: time, until: time, mode: z.enum(WATCH_MODES) })
const MARKS = z.array(z.object({ name: z.string(), time, position }))

const POINT = z.object({
  position,
  time: time.optional(),
  requestedMs: z.number().optional(),
  next: time.optional(),
  gap: gap.optional(),
  whole: z.boolean(),
  coverage: span.optional(),
})
const LAST_WHOLE = z.object({ time: time.optional() })
const VOLUMES = z.array(z.object({ agent: label, volume: label }))
const WINDOW = z.object({
  agent: label,
  volume: label,
  root: z.string(),
  mode: z.enum(WATCH_MODES),
  from: time.optional(),
  until: time,
  head: position,
  gaps: z.array(gap.extend({ position })),
  coverage: z.array(span),
})

const PLACES = z.array(z.object({ file: z.number(), offset: z.number(), storedLength: z.number() }).nullable())
const REPLICA = z.object({ directory: z.string().optional() })
const DAMAGE = z.array(z.object({ file: z.string(), offset: z.number(), reason: z.string() }))
const UNREACHABLE = { unreachable: 'collector-unreachable' } as const

/** Chunks asked for in one call. */
const CHUNKS_PER_CALL = 4096

/** How questions get to a collector. */
export interface HistoryCalls {
  call(name: string, body: object): Promise<unknown>
  /** Ends well only when all bytes came. */
  stream(name: string, body: object): AsyncIterable<Buffer>
  close(): void
}

export class RemoteHistory implements HistorySource {
  readonly isLive = true
  readonly damage: readonly Damage[]
  readonly #calls: HistoryCalls
  readonly #repository: () => Promise<OpenRepository | undefined>

  protected constructor(
    calls: HistoryCalls,
    damage: readonly Damage[],
    repository: () => Promise<OpenRepository | undefined> = () => Promise.resolve(undefined),
  ) {
    this.#calls = calls
    this.#repository = repository
    this.damage = damage
  }

  /** `repository`: that of the collector, where its key is to be had without asking for it. @throws collector-unreachable */
  static async open(socketFile: string, repository?: () => Promise<OpenRepository | undefined>): Promise<RemoteHistory> {
    const calls: HistoryCalls = {
      call: (name, body) => callLocal(socketFile, name, body, UNREACHABLE),
      stream: (name, body) => streamLocal(socketFile, name, body, UNREACHABLE),
      // Every call has its own connection.
      close() {},
    }
    return new RemoteHistory(calls, await damageSaid(calls), repository)
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#calls.close()
    return Promise.resolve()
  }

  async #call<Schema extends z.ZodType>(name: string, body: object, schema: Schema): Promise<z.output<Schema>> {
    return schema.parse(await this.#calls.call(name, body))
  }

  #stream(name: string, body: object): AsyncIterable<Buffer> {
    return this.#calls.stream(name, body)
  }

  volumes(): Promise<{ agent: Label; volume: Label }[]> {
    return this.#call('volumes', {}, VOLUMES)
  }

  async point(agent: Label, volume: Label, request: PointRequest): Promise<Point> {
    const found = await this.#call('point', { agent, volume, at: request }, POINT)
    return {
      position: found.position,
      time: found.time,
      requestedMs: found.requestedMs,
      next: found.next,
      gap: found.gap,
      whole: found.whole,
      coverage: found.coverage,
    }
  }

  tree(...asked: Parameters<HistorySource['tree']>): AsyncIterable<ListedEntry> {
    return oneByOne(this.treeGroups(...asked))
  }

  treeGroups(
    agent: Label,
    volume: Label,
    path: RelativePath,
    at: Position,
    depth: TreeDepth = 'all',
  ): AsyncIterable<readonly ListedEntry[]> {
    return decodeEntries(this.#stream('tree', { agent, volume, path, at, depth }))
  }

  async lastWhole(agent: Label, volume: Label, path: RelativePath, at: Position): Promise<HybridTime | undefined> {
    const found = await this.#call('lastWhole', { agent, volume, path, at }, LAST_WHOLE)
    return found.time
  }

  log(agent: Label, volume: Label, query: LogQuery): AsyncIterable<LogEntry> {
    return decodeLog(this.#stream('log', { agent, volume, path: query.path, from: query.from, until: query.until }))
  }

  versions(agent: Label, volume: Label, path: RelativePath): AsyncIterable<LogEntry> {
    return decodeLog(this.#stream('versions', { agent, volume, path }))
  }

  marks(agent: Label, volume: Label): Promise<Mark[]> {
    return this.#call('marks', { agent, volume }, MARKS)
  }

  async replicaDirectory(agent: Label, volume: Label): Promise<string | undefined> {
    const { directory } = await this.#call('replicaDirectory', { agent, volume }, REPLICA)
    return directory
  }

  async window(agent: Label, volume: Label): Promise<Window> {
    const found = await this.#call('window', { agent, volume }, WINDOW)
    return { ...found, from: found.from }
  }

  async packs(): Promise<PackAccess | undefined> {
    const opened = await this.#repository()
    return opened === undefined ? undefined : { ...opened, places: (names) => this.#places(names) }
  }

  async #places(names: readonly Digest[]): Promise<(FramePlace | undefined)[]> {
    try {
      const found = await this.#call('places', { chunks: names.map(digestHex) }, PLACES)
      return found.map((place) => place ?? undefined)
    } catch (error) {
      // A collector of an older release, that was not started again since: it gives content itself.
      if (error instanceof PacsimileError && error.code === 'unsupported') return names.map(() => undefined)
      throw error
    }
  }

  async *chunks(refs: readonly ChunkRef[]): AsyncGenerator<ChunkResult, void> {
    for (let at = 0; at < refs.length; at += CHUNKS_PER_CALL) {
      const asked = refs.slice(at, at + CHUNKS_PER_CALL)
      yield* decodeChunks(this.#stream('chunks', { chunks: asked.map((ref) => ({ digest: digestHex(ref.digest), length: ref.length })) }))
    }
  }
}

/** The first question to a collector, so that one that is not there is noticed at once. */
export async function damageSaid(calls: HistoryCalls): Promise<readonly Damage[]> {
  return DAMAGE.parse(await calls.call('damage', {}))
}
