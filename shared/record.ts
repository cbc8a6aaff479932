/**
 * A record: one entry of an agent's journal, and the hash chain that binds it to all before it (docs/format.md, "Record").
 *
 * Invariant: seq is dense from 1 within an epoch, time never goes backwards, and each record holds the BLAKE3 of the one
 * before; so the head's hash vouches for every record. It prevents a history with a hole, a fork or a rewritten past from
 * passing for whole.
 */
import { isUtf8 } from 'node:buffer'
import { ByteReader, type ByteString, ByteWriter } from './bytes.ts'
import { type HybridTime, hybridTime } from './clock.ts'
import { DIGEST_BYTES, type Digest, digest, digestOf, NO_DIGEST } from './digest.ts'
import { PacsimileError } from './errors.ts'
import { LABEL_MAX, PATH_BYTES_MAX } from './limits.ts'
import { type Label, label, type RelativePath, relativePath } from './path.ts'
import { decodeVersion, encodeVersion, type Version } from './version.ts'

/** What a record says. Each has one meaning, given by tree.ts. */
export type Change =
  /** First record of every epoch. `previous` is the end of the agent's epoch before, where it is known. */
  | {
      readonly kind: 'epoch'
      readonly agent: Label
      readonly reason: EpochReason
      readonly previousEpoch: number
      readonly previousHash: Digest
      readonly nonce: ByteString
    }
  /** A volume is protected from here on; `root` is its directory on the agent's host. */
  | { readonly kind: 'volume'; readonly volume: Label; readonly root: ByteString; readonly mode: WatchMode }
  /** The path is this version now. Whatever was below it, if it was a directory and is none now, is gone. */
  | { readonly kind: 'put'; readonly volume: Label; readonly path: RelativePath; readonly version: Version }
  /** The path and everything below it is gone. */
  | { readonly kind: 'remove'; readonly volume: Label; readonly path: RelativePath }
  /** The path with everything below it has another name; what had that name is gone. */
  | { readonly kind: 'rename'; readonly volume: Label; readonly path: RelativePath; readonly to: RelativePath }
  /** A full scan ended: everything of this volume that was put before `since` (a seq of this epoch) is gone, but for the directories that hold something put later. */
  | { readonly kind: 'sweep'; readonly volume: Label; readonly since: number }
  /** Between the two times intermediate versions may be unknown; the state at the end is verified. */
  | { readonly kind: 'gap'; readonly volume: Label; readonly from: HybridTime; readonly until: HybridTime; readonly cause: string }
  /** Between the two times every change was seen (`complete`), or the state was verified at both ends (`best-effort`). */
  | { readonly kind: 'coverage'; readonly volume: Label; readonly from: HybridTime; readonly until: HybridTime; readonly mode: WatchMode }
  /** The content that the record `lostSeq` of this epoch names could not be kept until it was acked: that version cannot be restored. */
  | { readonly kind: 'lost'; readonly volume: Label; readonly path: RelativePath; readonly lostSeq: number }
  /** A named point. */
  | { readonly kind: 'mark'; readonly volume: Label; readonly name: string }

export const EPOCH_REASONS = ['first', 'state-lost', 'rewound', 'forked', 'damaged'] as const
export type EpochReason = (typeof EPOCH_REASONS)[number]

export const WATCH_MODES = ['complete', 'best-effort'] as const
export type WatchMode = (typeof WATCH_MODES)[number]

export type JournalRecord = Change & {
  readonly previous: Digest
  readonly epoch: number
  readonly seq: number
  readonly time: HybridTime
}

/** Where a record stands in its agent's history. */
export interface Position {
  readonly epoch: number
  readonly seq: number
}

/** Where every history begins. */
export const BEFORE_ALL: Position = { epoch: 0, seq: 0 }

export function comparePositions(a: Position, b: Position): number {
  return a.epoch - b.epoch || a.seq - b.seq
}

const KINDS = [
  'epoch',
  'volume',
  'put',
  'remove',
  'rename',
  'sweep',
  'gap',
  'coverage',
  'mark',
  'lost',
] as const satisfies readonly Change['kind'][]

/** Bytes before the body: previous hash, epoch, seq, time, kind. */
export const RECORD_HEADER_BYTES = DIGEST_BYTES + 8 + 8 + 8 + 1
export const NONCE_BYTES = 16
const TEXT_MAX = 1024

/** A record without what a put holds: enough to list it. */
export type RecordSummary = Exclude<JournalRecord, { kind: 'put' }> | Omit<Extract<JournalRecord, { kind: 'put' }>, 'version'>

export function encodeRecord(record: JournalRecord, to = new ByteWriter()): Buffer {
  encodeSummaryInto(record, to)
  if (record.kind === 'put') encodeVersion(record.version, to)
  return to.take()
}

/** The record's encoding; of a put, all but the version at its end. */
export function encodeSummary(record: RecordSummary, to = new ByteWriter()): Buffer {
  encodeSummaryInto(record, to)
  return to.take()
}

function encodeSummaryInto(record: RecordSummary, to: ByteWriter): void {
  to.reset()
  to.rawString(record.previous).u64(record.epoch).u64(record.seq).big64(record.time)
  to.u8(KINDS.indexOf(record.kind) + 1)
  switch (record.kind) {
    case 'epoch':
      to.string(record.agent).u8(EPOCH_REASONS.indexOf(record.reason) + 1)
      to.u64(record.previousEpoch).rawString(record.previousHash).rawString(record.nonce)
      break
    case 'volume':
      to.string(record.volume)
        .string(record.root)
        .u8(WATCH_MODES.indexOf(record.mode) + 1)
      break
    case 'put':
    case 'remove':
      to.string(record.volume).string(record.path)
      break
    case 'rename':
      to.string(record.volume).string(record.path).string(record.to)
      break
    case 'sweep':
      to.string(record.volume).u64(record.since)
      break
    case 'gap':
      to.string(record.volume).big64(record.from).big64(record.until).bytes(Buffer.from(record.cause, 'utf8'))
      break
    case 'coverage':
      to.string(record.volume)
        .big64(record.from)
        .big64(record.until)
        .u8(WATCH_MODES.indexOf(record.mode) + 1)
      break
    case 'mark':
      to.string(record.volume).bytes(Buffer.from(record.name, 'utf8'))
      break
    case 'lost':
      to.string(record.volume).string(record.path).u64(record.lostSeq)
      break
  }
}

/** @throws format-invalid, format-unknown */
export function decodeRecord(bytes: Uint8Array): JournalRecord {
  const from = new ByteReader(bytes, 'Record')
  const summary = readSummary(from)
  const record: JournalRecord = summary.kind === 'put' ? { ...summary, version: decodeVersion(from) } : summary
  from.end()
  return record
}

/** The inverse of `encodeSummary`. @throws format-invalid, format-unknown */
export function decodeSummary(bytes: Uint8Array): RecordSummary {
  const from = new ByteReader(bytes, 'Record summary')
  const summary = readSummary(from)
  from.end()
  return summary
}

function readSummary(from: ByteReader): RecordSummary {
  const previous = digest(from.rawString(DIGEST_BYTES))
  const epoch = from.u64()
  const seq = from.u64()
  if (epoch === 0 || seq === 0) from.fail('epoch and seq start at 1')
  const time = hybridTime(from.big64())
  const number = from.u8()
  const kind = KINDS[number - 1]
  if (kind === undefined)
    throw new PacsimileError('format-unknown', `Record ${epoch}:${seq} is of kind ${number}, which this release does not know`)
  if ((kind === 'epoch') !== (seq === 1)) from.fail('the first record of an epoch, and no other, is of kind epoch')
  return { previous, epoch, seq, time, ...readChange(kind, from) }
}

type ChangeSummary = Exclude<Change, { kind: 'put' }> | Omit<Extract<Change, { kind: 'put' }>, 'version'>

function readChange(kind: Change['kind'], from: ByteReader): ChangeSummary {
  switch (kind) {
    case 'epoch': {
      const agent = readLabel(from, 'agent')
      const reason = EPOCH_REASONS[from.u8() - 1] ?? from.unknown('reason of an epoch')
      return {
        kind,
        agent,
        reason,
        previousEpoch: from.u64(),
        previousHash: digest(from.rawString(DIGEST_BYTES)),
        nonce: from.rawString(NONCE_BYTES),
      }
    }
    case 'volume':
      return { kind, volume: readVolume(from), root: from.string(PATH_BYTES_MAX), mode: readMode(from) }
    case 'put':
      return { kind, volume: readVolume(from), path: readPath(from) }
    case 'remove':
      return { kind, volume: readVolume(from), path: readPath(from) }
    case 'rename':
      return { kind, volume: readVolume(from), path: readPath(from), to: readPath(from) }
    case 'sweep':
      return { kind, volume: readVolume(from), since: from.u64() }
    case 'gap':
      return {
        kind,
        volume: readVolume(from),
        from: hybridTime(from.big64()),
        until: hybridTime(from.big64()),
        cause: readText(from),
      }
    case 'coverage':
      return { kind, volume: readVolume(from), from: hybridTime(from.big64()), until: hybridTime(from.big64()), mode: readMode(from) }
    case 'mark':
      return { kind, volume: readVolume(from), name: readText(from) }
    case 'lost':
      return { kind, volume: readVolume(from), path: readPath(from), lostSeq: from.u64() }
  }
}

function readText(from: ByteReader): string {
  const bytes = from.bytes(TEXT_MAX)
  return isUtf8(bytes) ? bytes.toString('utf8') : from.fail('text that is not UTF-8')
}

function readLabel(from: ByteReader, what: string): Label {
  const text = from.string(LABEL_MAX)
  try {
    return label(text, what)
  } catch {
    return from.fail(`bad ${what} name`)
  }
}

function readVolume(from: ByteReader): Label {
  return readLabel(from, 'volume')
}

function readPath(from: ByteReader): RelativePath {
  return relativePath(from.string(PATH_BYTES_MAX))
}

function readMode(from: ByteReader): WatchMode {
  return WATCH_MODES[from.u8() - 1] ?? from.unknown('watch mode')
}

/** The hash that the next record carries. */
export function recordHash(encoded: Uint8Array): Digest {
  return digestOf(encoded)
}

/** The end of a chain: what the next record must follow. */
export interface ChainEnd extends Position {
  readonly hash: Digest
  readonly time: HybridTime
}

/** Where an epoch begins: before its first record. */
export function chainStart(epoch: number): ChainEnd {
  return { epoch, seq: 0, hash: NO_DIGEST, time: hybridTime(0n) }
}

/** Why `record` cannot follow `end`, or undefined when it does. */
export function chainBreak(end: ChainEnd, record: JournalRecord): string | undefined {
  if (record.epoch !== end.epoch) return `epoch ${record.epoch} follows epoch ${end.epoch}`
  if (record.seq !== end.seq + 1) return `seq ${record.seq} follows seq ${end.seq}`
  if (record.previous !== end.hash) return `seq ${record.seq} does not carry the hash of seq ${end.seq}`
  if (record.time < end.time) return `seq ${record.seq} is earlier than seq ${end.seq}`
  return undefined
}

/** The same for an agent's next record, which may begin an epoch; `end` undefined for an agent never heard of. */
export function breakAfter(end: ChainEnd | undefined, record: JournalRecord): string | undefined {
  if (end !== undefined && record.epoch < end.epoch) return `epoch ${record.epoch} is over; epoch ${end.epoch} has begun`
  return chainBreak(end !== undefined && end.epoch === record.epoch ? end : chainStart(record.epoch), record)
}
