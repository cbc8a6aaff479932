/** What waits for a commit, and what it takes while it waits. */
import type { Digest } from '../shared/digest.ts'
import type { PacsimileError } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { storedForm } from '../shared/stored-form.ts'
import type { ChainHead, Message } from '../shared/wire.ts'
import type { CatalogBatch } from './catalog-batch.ts'
import type { Payload } from './repository/frame.ts'
import type { LedgerBody } from './repository/ledger-entry.ts'

export type ChunkMessage = Extract<Message, { kind: 'chunk' }>

/** What ingest tells a session. */
export interface IngestSession {
  readonly agent: Label
  /** Chunks that the agent declared lost: records may name them. */
  readonly lost: ReadonlySet<Digest>
  committed(head: ChainHead): void
  /** This session broke a rule, or the disk failed: it ends, and the agent sends again from its last ack. */
  failed(error: PacsimileError): void
}

export type Sent =
  | { readonly session: IngestSession; readonly chunk: ChunkMessage }
  | { readonly session: IngestSession; readonly records: readonly Uint8Array[] }

interface Awaited {
  readonly resolve: () => void
  readonly reject: (error: PacsimileError) => void
}

/** Entries of the ledger, made when everything before them is in the batch; they may change with it what they speak of. */
export interface LedgerWrite extends Awaited {
  readonly ledger: (batch: CatalogBatch) => readonly LedgerBody[]
}

/** A chunk that is stored once more. */
export interface Rewrite extends Awaited {
  readonly rewrite: ChunkMessage
}

/** What is done between two commits. */
export interface Still extends Awaited {
  readonly still: () => Promise<void>
}

export type Committed = Sent | Rewrite | LedgerWrite
export type Item = Committed | Still

/** What a chunk or a record that waits takes beside its bytes. */
const HOLDING_BYTES = 1024

/** As it came, unless that takes more room than it needs to. */
export function payloadOf({ digest, length, filtered, compressed, bytes }: ChunkMessage, plain: Buffer): Payload {
  const isAsSmall = compressed ? bytes.length < length : !filtered
  const form = isAsSmall ? { filtered, compressed, bytes } : storedForm(plain, undefined)
  return { digest, plainLength: length, ...form }
}

export function bytesOf(item: Item): number {
  if ('ledger' in item || 'still' in item) return 0
  if ('rewrite' in item) return item.rewrite.bytes.length
  return 'chunk' in item ? item.chunk.bytes.length : item.records.reduce((sum, record) => sum + record.length, 0)
}

/** In memory: of small files, what it takes to hold them is the most. */
export function heldBytesOf(item: Item): number {
  return bytesOf(item) + HOLDING_BYTES * ('records' in item ? item.records.length : 1)
}

export function queuedKey(session: IngestSession, chunk: ChunkMessage): string {
  return `${session.agent}\0${chunk.digest}`
}
