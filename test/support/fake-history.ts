/**
 * A history made of a few entries and records, answered for on a data directory's admin socket as a collector does.
 *
 * It knows one volume and one state; what is not given is empty. For tests of what commands make of an answer.
 */
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Damage } from '../../collector/catalog.ts'
import type { ChunkResult, HistorySource, ListedEntry, LogEntry, StoredListing, Window } from '../../collector/history-source.ts'
import { encodeChunks, encodeEntries, encodeLog } from '../../collector/history-wire.ts'
import type { Mark } from '../../collector/marks.ts'
import type { Point, PointRequest } from '../../collector/point.ts'
import { ByteWriter } from '../../shared/bytes.ts'
import { type HybridTime, millisecondsOf, startOfMillisecond } from '../../shared/clock.ts'
import type { Digest } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { type LocalRoutes, serveLocal } from '../../shared/local-api.ts'
import { isWithin, label, type RelativePath } from '../../shared/path.ts'
import { type ChunkRef, encodeVersion } from '../../shared/version.ts'
import { scratchDirectory } from './scratch.ts'

export const PACS = label('pacs1', 'agent')
export const IMAGES = label('images', 'volume')
/** When the first and the last record of the fake were made. */
export const FIRST_MS = Date.UTC(2026, 10, 24, 9, 0, 0)
export const LAST_MS = Date.UTC(2026, 10, 24, 10, 0, 0)

export class FakeHistory implements HistorySource {
  readonly isLive = true
  readonly damage: Damage[] = []
  readonly named: Mark[] = []
  readonly entries: ListedEntry[] = []
  readonly records: LogEntry[] = []
  /** What is said of any path whose content is torn. */
  whole: HybridTime | undefined
  readonly contents = new Map<Digest, Buffer>()
  now: Point = {
    position: { epoch: 1, seq: 9 },
    time: startOfMillisecond(LAST_MS),
    requestedMs: undefined,
    next: undefined,
    gap: undefined,
    whole: true,
    coverage: undefined,
  }
  span: Window = {
    agent: PACS,
    volume: IMAGES,
    root: '/srv/pacs',
    mode: 'best-effort',
    from: startOfMillisecond(FIRST_MS),
    until: startOfMillisecond(LAST_MS),
    head: { epoch: 1, seq: 9 },
    gaps: [],
    coverage: [],
  }

  volumes(): Promise<{ agent: typeof PACS; volume: typeof IMAGES }[]> {
    return Promise.resolve([{ agent: PACS, volume: IMAGES }])
  }

  point(_agent: string, _volume: string, request: PointRequest): Promise<Point> {
    if (request.kind !== 'time') return Promise.resolve(this.now)
    if (request.ms < FIRST_MS) throw new PacsimileError('outside-window', 'That lies before the first record')
    return Promise.resolve({ ...this.now, requestedMs: request.ms })
  }

  async *tree(_agent: string, _volume: string, path: RelativePath): AsyncGenerator<ListedEntry> {
    for (const entry of this.entries) if (isWithin(entry.path, path)) yield entry
  }

  async *treeGroups(agent: string, volume: string, path: RelativePath): AsyncGenerator<readonly ListedEntry[]> {
    for await (const entry of this.tree(agent, volume, path)) yield [entry]
  }

  async *stored(within: RelativePath): AsyncGenerator<StoredListing[]> {
    for await (const { path, position, version, absent } of this.tree('', '', within)) {
      const to = new ByteWriter()
      encodeVersion(version, to)
      yield [{ path, position, version: to.take(), absent }]
    }
  }

  lastWhole(): Promise<HybridTime | undefined> {
    return Promise.resolve(this.whole)
  }

  async *log(_agent: string, _volume: string, query: { readonly from: PointRequest | undefined }): AsyncGenerator<LogEntry> {
    const after = query.from?.kind === 'time' ? query.from.ms : 0
    for (const entry of this.records) if (millisecondsOf(entry.record.time) > after) yield entry
  }

  async *versions(_agent: string, _volume: string, path: RelativePath): AsyncGenerator<LogEntry> {
    for (const entry of this.records) if ('path' in entry.record && entry.record.path === path) yield entry
  }

  marks(): Promise<Mark[]> {
    return Promise.resolve(this.named)
  }

  replicaDirectory(): Promise<undefined> {
    return Promise.resolve(undefined)
  }

  window(): Promise<Window> {
    return Promise.resolve(this.span)
  }

  async *chunks(refs: readonly Pick<ChunkRef, 'digest'>[]): AsyncGenerator<ChunkResult> {
    for (const { digest } of refs) {
      const bytes = this.contents.get(digest)
      yield bytes === undefined ? { failure: 'the pack has a hole there' } : { bytes }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** @returns the data directory, for --data */
export async function serveHistory(history: FakeHistory, more: LocalRoutes = {}): Promise<string> {
  const data = scratchDirectory()
  // What the real routes check is tested with them; here the bodies are what the command line has just made.
  type Body = { path: RelativePath; at: PointRequest; from?: PointRequest; chunks: { digest: string }[] }
  const server = await serveLocal(join(data, 'admin.sock'), {
    volumes: () => history.volumes(),
    damage: () => Promise.resolve(history.damage),
    point: (body) => Promise.resolve().then(() => history.point('', '', (body as Body).at)),
    window: () => history.window(),
    tree: (body) => encodeEntries(history.stored((body as Body).path)),
    lastWhole: async () => ({ time: await history.lastWhole() }),
    log: (body) => encodeLog(history.log('', '', { from: (body as Body).from })),
    versions: (body) => encodeLog(history.versions('', '', (body as Body).path)),
    marks: () => history.marks(),
    replicaDirectory: () => Promise.resolve({}),
    chunks: (body) =>
      encodeChunks(
        history.chunks((body as Body).chunks.map(({ digest }) => ({ digest: Buffer.from(digest, 'hex').toString('latin1') as Digest }))),
      ),
    ...more,
  })
  onTestFinished(() => server.close())
  return data
}

export function at(ms: number): HybridTime {
  return startOfMillisecond(ms)
}
