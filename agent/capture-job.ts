/**
 * What the agent's main thread and its capture threads say to each other.
 *
 * Invariant: chunks of a job arrive before its outcome, and every job has exactly one outcome. It prevents a version from
 * being recorded before its content is in hand.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { ChunkSizes } from '../shared/chunker.ts'
import type { Digest } from '../shared/digest.ts'
import type { RelativePath } from '../shared/path.ts'
import type { StoredForm } from '../shared/stored-form.ts'
import type { ChunkRef, Version } from '../shared/version.ts'
import type { Identity, VolumeRoot } from './file-stat.ts'
import type { LeaseMemory } from './lease.ts'

/** A path that is to be captured if it changed. */
export interface Side {
  readonly path: RelativePath
  /** As it was captured last. */
  readonly known: Identity | undefined
  /** Digests of its last version, joined: their content need not be shipped again. */
  readonly storedDigests: ByteString
  /** Content of a larger file is not shipped: it will be read from the file itself when it is wanted. */
  readonly shipBytesMax: number
}

/** Look at a path, and capture it if it changed. */
export interface ExamineJob extends Side {
  readonly kind: 'examine'
  readonly id: number
  /** Read it even if it is open for writing. */
  readonly asIs: boolean
  /** Read its content even if nothing says that it changed. */
  readonly isDeep: boolean
  /** What is known of it was read under a lease: nobody had it open for writing. */
  readonly wasStable: boolean
  /**
   * Open for reading: the file to capture, whatever the path names by now and even if it has no name any more. Whoever
   * makes the job closes it after the outcome. Of anything but a regular file it is not heeded.
   */
  readonly pin: number | undefined
}

/** Look at an SQLite database and its write-ahead log, and capture both as they belong together. */
export interface ExaminePairJob {
  readonly kind: 'examine-pair'
  readonly id: number
  readonly base: Side
  /** The path of `base` with '-wal' behind it. */
  readonly wal: Side
}

/** Read one chunk of a file again. */
export interface FetchJob {
  readonly kind: 'fetch'
  readonly id: number
  readonly path: RelativePath
  readonly offset: number
  readonly chunk: ChunkRef
}

export type CaptureJob = ExamineJob | ExaminePairJob | FetchJob

/** `end` asks the thread to end when it has done what came before. */
export type CaptureMessage = JobsMessage | 'end'

export interface JobsMessage {
  readonly root: VolumeRoot
  readonly sizes: ChunkSizes
  readonly jobs: readonly CaptureJob[]
}

export type Outcome =
  | { readonly kind: 'same' }
  /** As it was captured, but not in a stable state, and it is open still. */
  | { readonly kind: 'still-open' }
  /** `durationMs` is what reading took, `bornNs` when the file was made, where its filesystem knows. */
  | { readonly kind: 'version'; readonly version: Version; readonly durationMs: number; readonly bornNs?: bigint | undefined }
  /** Nothing is there; `topmost` is the highest path above it (or itself) that is missing. */
  | { readonly kind: 'gone'; readonly topmost: RelativePath }
  /** It belongs to an SQLite database in WAL mode: only `examine-pair` captures that. */
  | { readonly kind: 'paired'; readonly base: RelativePath }
  /** Of `examine-pair`: to be recorded together. */
  | { readonly kind: 'pair'; readonly base: PairPart; readonly wal: PairPart; readonly durationMs: number }
  | { readonly kind: 'busy' }
  | { readonly kind: 'unreadable'; readonly reason: string }
  /** Its content is not what was captured, and nothing says that it was written. */
  | { readonly kind: 'rotten' }
  /** Another filesystem is mounted there or above. */
  | { readonly kind: 'foreign' }
  /** The volume's own directory is missing, unreadable or another one: nothing can be said of what is below. */
  | { readonly kind: 'root-lost'; readonly reason: string }
  /** Of a fetch: the chunk was shipped, or the file does not hold it any more. */
  | { readonly kind: 'fetched'; readonly found: boolean }

export type PairPart = Extract<Outcome, { kind: 'version' | 'same' | 'gone' }>

/** A chunk's bytes within the buffer of a message. */
export interface ShippedChunk extends StoredForm {
  readonly job: number
  readonly digest: Digest
  /** Plain bytes. */
  readonly length: number
  readonly offset: number
  readonly storedLength: number
}

export interface CapturedMessage {
  readonly bytes: Uint8Array
  readonly chunks: readonly ShippedChunk[]
  readonly outcomes: readonly (readonly [job: number, outcome: Outcome])[]
}

/** What a capture thread is started with. */
export interface CaptureThreadData {
  /** A counter of bytes under way, which the main thread lowers and the other raises. */
  readonly bytesInFlight: SharedArrayBuffer
  readonly leases: LeaseMemory
}
