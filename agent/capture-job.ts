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
import type { ChunkRef, Version } from '../shared/version.ts'
import type { Identity, VolumeRoot } from './file-stat.ts'

/** Look at a path, and capture it if it changed. */
export interface ExamineJob {
  readonly kind: 'examine'
  readonly id: number
  readonly path: RelativePath
  /** As it was captured last. */
  readonly known: Identity | undefined
  /** Digests of its last version, joined: their content need not be shipped again. */
  readonly storedDigests: ByteString
  /** Read it even if it is open for writing. */
  readonly asIs: boolean
  /** Read its content even if nothing says that it changed. */
  readonly isDeep: boolean
  /** Content of a larger file is not shipped: it will be read from the file itself when it is wanted. */
  readonly shipBytesMax: number
}

/** Read one chunk of a file again. */
export interface FetchJob {
  readonly kind: 'fetch'
  readonly id: number
  readonly path: RelativePath
  readonly offset: number
  readonly chunk: ChunkRef
}

export type CaptureJob = ExamineJob | FetchJob

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
  /** `durationMs` is what reading took. */
  | { readonly kind: 'version'; readonly version: Version; readonly durationMs: number }
  /** Nothing is there; `topmost` is the highest path above it (or itself) that is missing. */
  | { readonly kind: 'gone'; readonly topmost: RelativePath }
  | { readonly kind: 'busy' }
  | { readonly kind: 'unreadable'; readonly reason: string }
  /** Another filesystem is mounted there or above. */
  | { readonly kind: 'foreign' }
  /** The volume's own directory is missing, unreadable or another one: nothing can be said of what is below. */
  | { readonly kind: 'root-lost'; readonly reason: string }
  /** Of a fetch: the chunk was shipped, or the file does not hold it any more. */
  | { readonly kind: 'fetched'; readonly found: boolean }

/** A chunk's bytes within the buffer of a message. */
export interface ShippedChunk {
  readonly job: number
  readonly digest: Digest
  /** Plain bytes. */
  readonly length: number
  readonly compressed: boolean
  readonly offset: number
  readonly storedLength: number
}

export interface CapturedMessage {
  readonly bytes: Uint8Array
  readonly chunks: readonly ShippedChunk[]
  readonly outcomes: readonly (readonly [job: number, outcome: Outcome])[]
}

/** What a capture thread is started with: a counter of bytes under way, which the main thread lowers and the other raises. */
export interface CaptureThreadData {
  readonly bytesInFlight: SharedArrayBuffer
}
