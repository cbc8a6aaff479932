/**
 * The messages between agent and collector, and their bytes (docs/protocol.md).
 *
 * One WebSocket message is one message: a type byte, then a CBOR map (control) or a fixed layout (chunks and records).
 * Invariant: `decodeMessage` either returns a message whose every field was checked, or throws `protocol`; it allocates
 * nothing by an unchecked length. It prevents a hostile or broken peer from doing more than losing its session.
 */
import { Decoder, Encoder } from 'cbor-x'
import { z } from 'zod'
import { ByteReader, ByteWriter } from './bytes.ts'
import { type HybridTime, hybridTime, TIME_END } from './clock.ts'
import { DIGEST_BYTES, type Digest, digest } from './digest.ts'
import { PacsimileError, reasonOf } from './errors.ts'
import {
  ASKED_SPOTS_MAX,
  CHUNK_BYTES_MAX,
  CONTROL_BYTES_MAX,
  LABEL_MAX,
  OFFER_DIGESTS_MAX,
  RECORD_BYTES_MAX,
  RECORDS_PER_MESSAGE_MAX,
} from './limits.ts'
import { type Label, label, pathBuffer, type RelativePath, relativePath } from './path.ts'
import type { Stored, StoredForm } from './stored-form.ts'

export const SUBPROTOCOL = 'pacsimile.v1'
export const PROTOCOL_MAJOR = 1
export const PROTOCOL_MINOR = 2
/** From this minor version on, chunks may be filtered. */
export const MINOR_WITH_FILTER = 1
/** From this minor version on, an agent can be asked for content. */
export const MINOR_WITH_ASK = 2

/** Path of the WebSocket endpoint on the collector. */
export const JOURNAL_PATH = '/v1/journal'
/** Path of the enrolment request on the collector. */
export const ENROLL_PATH = '/v1/enroll'
/** Where a restorer does. */
export const RESTORER_ENROLL_PATH = '/v1/enroll/restorer'
/** Below it, what a restorer may ask. */
export const HISTORY_PATH = '/v1/history/'

export interface ChainHead {
  readonly epoch: number
  readonly seq: number
  readonly hash: Digest
}

export type Message =
  /** agent: who I am and what I hold. `oldest` is the lowest seq of the epoch that can still be sent (0: none yet). */
  | {
      readonly kind: 'hello'
      readonly major: number
      readonly minor: number
      readonly agent: string
      readonly head: ChainHead
      readonly oldest: number
      readonly time: HybridTime
    }
  /** collector: what I have durably of that epoch, the highest epoch that I know, and the rules of my repository. */
  | {
      readonly kind: 'welcome'
      readonly minor: number
      readonly acked: ChainHead
      readonly lastEpoch: number
      readonly repository: string
      readonly chunkSizes: { readonly min: number; readonly average: number; readonly max: number }
      readonly windowBytes: number
      readonly time: HybridTime
      /** False: go on from `acked`, but keep what you hold; an ack comes when enough copies have it. */
      readonly isHeld?: boolean | undefined
    }
  /** collector: this session ends; `code` is an error code (docs/errors.md). */
  | { readonly kind: 'refuse'; readonly code: string; readonly message: string; readonly lastEpoch: number }
  /** agent: I am about to send records that name these chunks. */
  | { readonly kind: 'offer'; readonly id: number; readonly digests: readonly Digest[] }
  /** collector: of that offer, send these (indices, rising). */
  | { readonly kind: 'want'; readonly id: number; readonly indices: readonly number[] }
  /** agent: content of one chunk, of `length` plain bytes. */
  | (Stored & { readonly kind: 'chunk'; readonly digest: Digest; readonly length: number })
  /** agent: consecutive records, as journalled. Every chunk that they name was sent or was not wanted, or is declared lost. */
  | { readonly kind: 'records'; readonly records: readonly Uint8Array[] }
  /** agent: these chunks can no longer be read; a `lost` record in the journal says which versions they were of. */
  | { readonly kind: 'lost'; readonly digests: readonly Digest[] }
  /** collector: all up to here is durable and verified. */
  | { readonly kind: 'ack'; readonly head: ChainHead; readonly time: HybridTime }
  /** collector: stop sending / go on. */
  | { readonly kind: 'flow'; readonly go: boolean }
  /** agent: how it stands, every few seconds. Volumes are watched without a break up to `until`. */
  | {
      readonly kind: 'coverage'
      readonly until: HybridTime
      readonly head: number
      readonly pending: number
      readonly spoolBytes: number
      readonly volumes: readonly VolumeReport[]
    }
  /** collector: journal everything that changed before this message (of one volume, or of all), and then a mark, then say so. */
  | { readonly kind: 'barrier'; readonly id: number; readonly volume: string; readonly mark?: string | undefined }
  /** agent: everything before that barrier is journalled up to `seq`; or `error` says why that cannot be said. */
  | { readonly kind: 'barrier-done'; readonly id: number; readonly epoch: number; readonly seq: number; readonly error: string }
  /** collector: give me this chunk, of `length` plain bytes, which these files held when they were captured. */
  | {
      readonly kind: 'ask'
      readonly id: number
      readonly digest: Digest
      readonly length: number
      readonly spots: readonly AskedSpot[]
    }
  /** agent: what was asked for has these `length` plain bytes; 0 and nothing where it is not to be had any more. */
  | (Stored & { readonly kind: 'answer'; readonly id: number; readonly length: number })

/** Where a chunk may be. */
export interface AskedSpot {
  readonly volume: Label
  readonly path: RelativePath
  readonly offset: number
}

export interface VolumeReport {
  readonly name: string
  readonly mode: 'complete' | 'best-effort'
  readonly reason: string
  readonly state: 'scanning' | 'watching' | 'paused'
}

export type MessageKind = Message['kind']

const TYPES: Readonly<Record<MessageKind, number>> = {
  'hello': 1,
  'welcome': 2,
  'refuse': 3,
  'offer': 4,
  'want': 5,
  'chunk': 6,
  'records': 7,
  'lost': 8,
  'ack': 9,
  'flow': 10,
  'coverage': 11,
  'barrier': 12,
  'barrier-done': 13,
  'ask': 14,
  'answer': 15,
}

const count = z.number().int().nonnegative()
const bytes = z.instanceof(Uint8Array)
const time = z.union([z.bigint().min(0n).max(TIME_END), count]).transform((value) => hybridTime(BigInt(value)))
const digestField = bytes.transform((value) => digest(Buffer.from(value).toString('latin1')))
const digestsField = bytes.transform((value, context) => {
  if (value.length % DIGEST_BYTES !== 0 || value.length / DIGEST_BYTES > OFFER_DIGESTS_MAX) {
    context.addIssue({ code: 'custom', message: 'not a list of digests' })
    return z.NEVER
  }
  const text = Buffer.from(value).toString('latin1')
  return Array.from({ length: value.length / DIGEST_BYTES }, (_, i) => digest(text.slice(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)))
})
const head = z.object({ epoch: count, seq: count, hash: digestField })
const short = z.string().max(LABEL_MAX)
const text = z.string().max(2048)
const chunkSize = count.max(CHUNK_BYTES_MAX)
/** An answer repeats the id in four bytes. */
const ASK_ID_MAX = 2 ** 32 - 1
const askedSpot = z.object({
  volume: short.transform((name) => label(name, 'Volume')),
  path: bytes.transform((value) => relativePath(Buffer.from(value).toString('latin1'))),
  offset: count,
})

/** Unknown keys are dropped: a newer minor version may add some. */
const CONTROL = {
  'hello': z.object({ major: count, minor: count, agent: short, head, oldest: count, time }),
  'welcome': z.object({
    minor: count,
    acked: head,
    lastEpoch: count,
    repository: short,
    chunkSizes: z.object({ min: chunkSize, average: chunkSize, max: chunkSize }),
    windowBytes: count,
    time,
    isHeld: z.boolean().optional(),
  }),
  'refuse': z.object({ code: short, message: text, lastEpoch: count }),
  'offer': z.object({ id: count, digests: digestsField }),
  'want': z.object({ id: count, indices: z.array(count).max(OFFER_DIGESTS_MAX) }),
  'lost': z.object({ digests: digestsField }),
  'ack': z.object({ head, time }),
  'flow': z.object({ go: z.boolean() }),
  'coverage': z.object({
    until: time,
    head: count,
    pending: count,
    spoolBytes: count,
    volumes: z
      .array(
        z.object({
          name: short,
          mode: z.enum(['complete', 'best-effort']),
          reason: text,
          state: z.enum(['scanning', 'watching', 'paused']),
        }),
      )
      .max(1024),
  }),
  'barrier': z.object({ id: count, volume: short, mark: short.optional() }),
  'barrier-done': z.object({ id: count, epoch: count, seq: count, error: text }),
  'ask': z.object({
    id: count.max(ASK_ID_MAX),
    digest: digestField,
    length: chunkSize.min(1),
    spots: z.array(askedSpot).min(1).max(ASKED_SPOTS_MAX),
  }),
} as const

type ControlKind = keyof typeof CONTROL
const BY_TYPE = new Map(Object.entries(TYPES).map(([kind, type]) => [type, kind as MessageKind]))

const encoder = new Encoder({ useRecords: false, variableMapSize: true, tagUint8Array: false })
const decoder = new Decoder({ useRecords: false, mapsAsObjects: true })

/** Flags of a chunk message. */
const CHUNK_COMPRESSED = 1
const CHUNK_FILTERED = 2
/** Bytes of a chunk message before the content: type, digest, plain length, flags. */
const CHUNK_HEADER_BYTES = 1 + DIGEST_BYTES + 4 + 1
/** Of an answer: type, id, plain length, flags. */
const ANSWER_HEADER_BYTES = 1 + 4 + 4 + 1

export function encodeMessage(message: Message): Buffer {
  switch (message.kind) {
    case 'chunk': {
      const to = new ByteWriter(CHUNK_HEADER_BYTES + message.bytes.length)
      return to.u8(TYPES.chunk).rawString(message.digest).u32(message.length).u8(flagsOf(message)).raw(message.bytes).view()
    }
    case 'answer': {
      const to = new ByteWriter(ANSWER_HEADER_BYTES + message.bytes.length)
      return to.u8(TYPES.answer).u32(message.id).u32(message.length).u8(flagsOf(message)).raw(message.bytes).view()
    }
    case 'ask': {
      const { kind, digest: name, spots, ...rest } = message
      const plainSpots = spots.map(({ volume, path, offset }) => ({ volume, path: pathBuffer(path), offset }))
      return control(kind, { ...rest, digest: Buffer.from(name, 'latin1'), spots: plainSpots })
    }
    case 'records': {
      const to = new ByteWriter(16 + message.records.reduce((sum, record) => sum + record.length + 5, 0))
      to.u8(TYPES.records).varint(message.records.length)
      for (const record of message.records) to.bytes(record)
      return to.view()
    }
    case 'offer':
    case 'lost': {
      const { kind, digests, ...rest } = message
      return control(kind, { ...rest, digests: Buffer.from(digests.join(''), 'latin1') })
    }
    case 'hello': {
      const { kind, head: end, ...rest } = message
      return control(kind, { ...rest, head: plainHead(end) })
    }
    case 'welcome': {
      const { kind, acked, ...rest } = message
      return control(kind, { ...rest, acked: plainHead(acked) })
    }
    case 'ack': {
      const { kind, head: end, ...rest } = message
      return control(kind, { ...rest, head: plainHead(end) })
    }
    default: {
      const { kind, ...rest } = message
      return control(kind, rest)
    }
  }
}

function flagsOf({ compressed, filtered }: StoredForm): number {
  return (compressed ? CHUNK_COMPRESSED : 0) | (filtered ? CHUNK_FILTERED : 0)
}

function plainHead(end: ChainHead): object {
  return { epoch: end.epoch, seq: end.seq, hash: Buffer.from(end.hash, 'latin1') }
}

function control(kind: MessageKind, fields: object): Buffer {
  return Buffer.concat([Buffer.from([TYPES[kind]]), encoder.encode(fields)])
}

/** @throws protocol */
export function decodeMessage(raw: Uint8Array): Message {
  const kind = BY_TYPE.get(raw[0] ?? 0)
  if (kind === undefined) throw new PacsimileError('protocol', `Message of unknown type ${raw[0] ?? 'none'}`)
  try {
    if (kind === 'chunk') return decodeChunk(raw)
    if (kind === 'records') return decodeRecords(raw)
    if (kind === 'answer') return decodeAnswer(raw)
    return decodeControl(kind, raw)
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'protocol') throw error
    throw new PacsimileError('protocol', `Malformed ${kind} message: ${reasonOf(error).slice(0, 300)}`, { cause: error })
  }
}

function decodeControl(kind: ControlKind, raw: Uint8Array): Message {
  if (raw.length > CONTROL_BYTES_MAX) throw new PacsimileError('protocol', `A ${kind} message of ${raw.length} bytes is too large`)
  const fields: unknown = decoder.decode(raw.subarray(1))
  return { kind, ...CONTROL[kind].parse(fields) } as Message
}

function decodeChunk(raw: Uint8Array): Message {
  const from = new ByteReader(raw, 'Chunk message')
  from.u8()
  const name = digest(from.rawString(DIGEST_BYTES))
  const length = from.u32()
  if (length === 0) from.fail('a chunk of 0 bytes')
  return { kind: 'chunk', digest: name, length, ...decodeStored(from, length) }
}

function decodeAnswer(raw: Uint8Array): Message {
  const from = new ByteReader(raw, 'Answer message')
  from.u8()
  const id = from.u32()
  const length = from.u32()
  const stored = decodeStored(from, length)
  if (length === 0 && stored.bytes.length > 0) from.fail('content of no length')
  return { kind: 'answer', id, length, ...stored }
}

/** Flags and content, to the end of the message. */
function decodeStored(from: ByteReader, length: number): Stored {
  const flags = from.u8()
  if (length > CHUNK_BYTES_MAX) from.fail(`a chunk of ${length} bytes`)
  if (flags > (CHUNK_COMPRESSED | CHUNK_FILTERED)) from.fail(`unknown flags ${flags}`)
  return { filtered: (flags & CHUNK_FILTERED) !== 0, compressed: (flags & CHUNK_COMPRESSED) !== 0, bytes: from.raw(from.remaining) }
}

function decodeRecords(raw: Uint8Array): Message {
  const from = new ByteReader(raw, 'Records message')
  from.u8()
  const records = Array.from({ length: from.varint(RECORDS_PER_MESSAGE_MAX) }, () => from.bytes(RECORD_BYTES_MAX))
  from.end()
  if (records.length === 0) from.fail('no records')
  return { kind: 'records', records }
}
