/**
 * The layout of the journal database, and the walk that finds out whether it is whole (docs/format.md, "Agent journal").
 *
 *     r EPOCH SEQ                  -> crc32 u32 (little-endian), encoded record
 *     a REPOSITORY NUL EPOCH SEQ   -> hash of that record: the repository's collector has acknowledged up to it
 *
 * EPOCH and SEQ are 8 bytes, big-endian, so that keys sort as records follow each other. Invariant: no key is ever written
 * twice. It prevents a stale value, which LevelDB can bring back after a compaction, from being taken for a newer one.
 */
import { crc32 } from 'node:zlib'
import type { ByteString } from '../shared/bytes.ts'
import { digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { type ChainEnd, chainBreak, chainStart, decodeRecord, type JournalRecord, type Position, recordHash } from '../shared/record.ts'
import type { ChainHead } from '../shared/wire.ts'
import type { Database, KeyRange, Write } from './database.ts'

/** A record with its bytes, as they are sent. */
export interface JournalEntry {
  readonly record: JournalRecord
  readonly bytes: Buffer
}

const CHECKSUM_BYTES = 4
const NUMBER_BYTES = 8
const WORD = 0x1_0000_0000

export const RECORD_KEYS: KeyRange = { gte: 'r', lt: 's' }

export function recordWrite({ record, bytes }: JournalEntry): Write {
  const value = Buffer.allocUnsafe(CHECKSUM_BYTES + bytes.length)
  value.writeUInt32LE(crc32(bytes), 0)
  bytes.copy(value, CHECKSUM_BYTES)
  return { type: 'put', key: recordKey(record), value }
}

/** @throws damage when the value is not what was written under the key */
export function recordEntry(key: ByteString, value: Buffer): JournalEntry {
  const { epoch, seq } = positionOf(key)
  const bytes = value.subarray(CHECKSUM_BYTES)
  if (value.length < CHECKSUM_BYTES || crc32(bytes) !== value.readUInt32LE(0)) {
    throw new PacsimileError('damage', `Journal record ${epoch}:${seq} is not what was written`)
  }
  const record = decodeRecord(bytes)
  if (record.seq !== seq || record.epoch !== epoch) {
    throw new PacsimileError('damage', `Journal record ${record.epoch}:${record.seq} stands in the place of ${epoch}:${seq}`)
  }
  return { record, bytes }
}

/** Records of an epoch from `from` on, below `until`. */
export function recordRange(epoch: number, from: number, until: number): KeyRange {
  return { gte: recordKey({ epoch, seq: from }), lt: recordKey({ epoch, seq: until }) }
}

/** All records before this one, also those of earlier epochs. */
export function recordsBefore(position: Position): KeyRange {
  return { gte: 'r', lt: recordKey(position) }
}

export function ackWrite(repository: string, head: ChainHead): Write {
  return { type: 'put', key: ackKey(repository, head), value: Buffer.from(head.hash, 'latin1') }
}

/** What is noted of a repository before this position. */
export function acksBefore(repository: string, position: Position): KeyRange {
  return { gte: ackPrefix(repository), lt: ackKey(repository, position) }
}

/** How far each repository's collector has acknowledged this epoch. */
export async function readAcks(database: Database, epoch: number): Promise<Map<string, ChainHead>> {
  const acks = new Map<string, ChainHead>()
  for await (const page of database.pages({ gte: 'a', lt: 'b' })) {
    for (const [key, value] of page) {
      const head = { ...positionOf(key), hash: digest(value.toString('latin1')) }
      if (head.epoch === epoch) acks.set(key.slice(1, -1 - 2 * NUMBER_BYTES), head)
    }
  }
  return acks
}

export interface Walked {
  readonly end: ChainEnd
  readonly oldest: number
}

/** Walks the kept chain of an epoch. @throws damage where it is broken, or shorter than what was acknowledged */
export async function walkChain(database: Database, epoch: number, acks: ReadonlyMap<string, ChainHead>): Promise<Walked> {
  const ackedSeq = Math.max(0, ...[...acks.values()].map(({ seq }) => seq))
  let end: ChainEnd | undefined
  let oldest = 1
  for await (const page of database.pages(recordRange(epoch, 0, Number.MAX_SAFE_INTEGER))) {
    for (const [key, value] of page) {
      const { record, bytes } = recordEntry(key, value)
      if (end === undefined) {
        oldest = record.seq
        if (oldest > Math.max(1, ackedSeq)) throw missingRecord(epoch, ackedSeq + 1)
      } else {
        const why = chainBreak(end, record)
        if (why !== undefined) throw new PacsimileError('damage', `The journal is broken: ${why}`)
      }
      end = { epoch, seq: record.seq, time: record.time, hash: recordHash(bytes) }
    }
  }
  if ((end?.seq ?? 0) < ackedSeq) throw missingRecord(epoch, ackedSeq)
  return { end: end ?? chainStart(epoch), oldest }
}

export function missingRecord(epoch: number, seq: number): PacsimileError {
  return new PacsimileError('damage', `Journal record ${epoch}:${seq} is missing`)
}

/** Of a key's last 16 bytes. */
export function positionOf(key: ByteString): Position {
  const bytes = Buffer.from(key.slice(-2 * NUMBER_BYTES), 'latin1')
  return { epoch: bytes.readUInt32BE(0) * WORD + bytes.readUInt32BE(4), seq: bytes.readUInt32BE(8) * WORD + bytes.readUInt32BE(12) }
}

function recordKey(position: Position): ByteString {
  return `r${encodePosition(position)}`
}

function ackPrefix(repository: string): ByteString {
  return `a${repository}\0`
}

function ackKey(repository: string, position: Position): ByteString {
  return `${ackPrefix(repository)}${encodePosition(position)}`
}

function encodePosition({ epoch, seq }: Position): ByteString {
  const bytes = Buffer.allocUnsafe(2 * NUMBER_BYTES)
  for (const [at, value] of [epoch, seq].entries()) {
    bytes.writeUInt32BE(Math.floor(value / WORD), at * NUMBER_BYTES)
    bytes.writeUInt32BE(value % WORD, at * NUMBER_BYTES + 4)
  }
  return bytes.toString('latin1')
}
