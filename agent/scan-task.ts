/**
 * What the main thread and the scan threads say to each other.
 *
 * A scan is one task at first. A thread that has much before it hands a part of its task over when another one is idle; each
 * task stands for a range of paths or of inodes, and the ranges of a scan never overlap.
 * Invariant: every task has exactly one `done`. It prevents a scan that ends before all of its parts have.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import type { VolumeRoot } from './file-stat.ts'
import type { Difference } from './scan.ts'
import type { Seen } from './state.ts'

export interface ScanRequest {
  readonly id: number
  /** Of the state's database. */
  readonly stateDirectory: string
  readonly volume: Label
  readonly root: VolumeRoot
  readonly path: RelativePath
  /** Only the path and its direct children. */
  readonly isShallow: boolean
  /** Files that are as captured are told as well. */
  readonly isDeep: boolean
  /** Not looked at, with everything below. */
  readonly ignored: readonly RelativePath[]
  /** In gitignore syntax; what depends on the kind of a path is left out by whoever is told of it. */
  readonly ignorePatterns: readonly string[]
  /** The inodes of the filesystem may be listed instead, if they are no more than these; 0: walk, and believe no earlier scan. */
  readonly bulkInodesMax: number
}

export type ScanTask =
  /** All that the request asks for. */
  | { readonly kind: 'all' }
  /** What is in the directory from the name `from` on, up to `until`. */
  | { readonly kind: 'names'; readonly directory: RelativePath; readonly from: ByteString; readonly until: ByteString | undefined }
  /** Inodes from `from` on, below `until`. */
  | { readonly kind: 'inodes'; readonly from: number; readonly until: number }

/** How a volume was gone through: its directories, or the inodes of its filesystem. */
export type ScanMethod = 'walk' | 'bulkstat'

/** To a scan thread. `end` asks it to end when it has done what came before. */
export type ScanOrder = { readonly request: ScanRequest; readonly task: ScanTask } | 'end'

/** From a scan thread. */
export type ScanMessage =
  | { readonly kind: 'method'; readonly id: number; readonly method: ScanMethod; readonly reason: string }
  | ({ readonly kind: 'found'; readonly id: number; readonly differences: readonly Difference[] } & Seen)
  | { readonly kind: 'handover'; readonly id: number; readonly task: ScanTask }
  | { readonly kind: 'done'; readonly id: number; readonly entries: number; readonly rootProblem: string | undefined }

/** Shared by the main thread and its scan threads: 32-bit counters at the places of CONTROL. */
export interface ScanThreadData {
  readonly control: SharedArrayBuffer
}

export const CONTROL = {
  /** Batches under way; the main thread lowers it. */
  inFlight: 0,
  /** Threads that wait for a task. */
  hungry: 1,
  /** The id of a scan that is to end early. */
  cancelled: 2,
  count: 3,
} as const
