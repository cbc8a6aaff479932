/**
 * Where a command reads history from: a running collector, or a bare repository. Two implementations, one meaning.
 */
import type { HybridTime } from '../shared/clock.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { Position, RecordSummary, WatchMode } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import type { ChunkRef, Version } from '../shared/version.ts'
import type { Absence } from './absent-content.ts'
import type { Coverage, Damage, Gap } from './catalog.ts'
import type { StoredEntry } from './catalog-tree.ts'
import type { Mark } from './marks.ts'
import type { PackAccess } from './pack-reader.ts'
import type { Point, PointRequest } from './point.ts'

/** An entry of a tree at a point. */
export interface ListedEntry extends TreeEntry {
  /** Why its content cannot be restored: the agent could not keep it until it was acknowledged, or it has expired. */
  readonly absent: Absence | undefined
}

/** The same as it is stored, for who passes it on. */
export interface StoredListing extends StoredEntry {
  readonly absent: Absence | undefined
}

/** What can be restored of a volume. */
export interface Window {
  readonly agent: Label
  readonly volume: Label
  readonly root: string
  readonly mode: WatchMode
  /** The first moment at which the volume was known whole; undefined before the first scan is done. */
  readonly from: HybridTime | undefined
  /** The last record. */
  readonly until: HybridTime
  readonly head: Position
  readonly gaps: readonly Gap[]
  readonly coverage: readonly Coverage[]
}

/** One record of a log; `version` for a put, and why its content is not there. */
export interface LogEntry {
  readonly record: RecordSummary
  readonly version: Version | undefined
  readonly absent: Absence | undefined
}

export interface LogQuery {
  /** Only records of this path and below. */
  readonly path: RelativePath
  /** Only records after this moment's state. */
  readonly from: PointRequest | undefined
  /** Only records up to this moment. */
  readonly until: PointRequest | undefined
}

export type TreeDepth = 'all' | 'directory'

/** The content of a chunk, or why it cannot be had. */
export type ChunkResult =
  | {
      readonly bytes: Buffer
      /** Nobody else has this memory: it may be given away to another thread. */
      readonly isOwn?: true
      /** It was held against its digest in this process. */
      readonly isVerified?: true
    }
  | { readonly failure: string }

export interface HistorySource extends AsyncDisposable {
  /** Whether what is recorded later is seen through it too. */
  readonly isLive: boolean
  /** What is known to be damaged; found while the history was read. */
  readonly damage: readonly Damage[]
  volumes(): Promise<{ readonly agent: Label; readonly volume: Label }[]>
  /** @throws not-found, outside-window */
  point(agent: Label, volume: Label, request: PointRequest): Promise<Point>
  /**
   * The path and all below it at a position, depth first, names in byte order. Empty where the path is not there. With 'directory' only
   * what is right in it, though a source may give more.
   */
  tree(agent: Label, volume: Label, path: RelativePath, at: Position, depth?: TreeDepth): AsyncIterable<ListedEntry>
  /** The same in groups, as they come: where there are many, one at a time costs more than all else. */
  treeGroups(agent: Label, volume: Label, path: RelativePath, at: Position, depth?: TreeDepth): AsyncIterable<readonly ListedEntry[]>
  /** When the path was last given content that was not torn, at or before a position; undefined where it was not since it is a file. */
  lastWhole(agent: Label, volume: Label, path: RelativePath, at: Position): Promise<HybridTime | undefined>
  /** Records of a volume, oldest first. */
  log(agent: Label, volume: Label, query: LogQuery): AsyncIterable<LogEntry>
  /** What happened to a path itself, by its records or by those of directories above it, oldest first. */
  versions(agent: Label, volume: Label, path: RelativePath): AsyncIterable<LogEntry>
  /** Oldest first. */
  marks(agent: Label, volume: Label): Promise<Mark[]>
  /** A directory of this host that holds the volume as it is now, more or less; undefined where there is none. */
  replicaDirectory(agent: Label, volume: Label): Promise<string | undefined>
  window(agent: Label, volume: Label): Promise<Window>
  /** Contents of chunks, one result for each, in the order asked for. */
  chunks(refs: readonly ChunkRef[]): AsyncIterable<ChunkResult>
  /** The packs themselves, for who reads them in threads of his own; undefined where they, or their key, are not to be had here. */
  packs?(): Promise<PackAccess | undefined>
}

export async function* oneByOne<Item>(groups: AsyncIterable<readonly Item[]>): AsyncGenerator<Item, void> {
  for await (const group of groups) yield* group
}
