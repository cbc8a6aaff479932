/**
 * An entry of the ledger: what the collector itself decided about its history, beside what agents sent (docs/format.md, "Ledger").
 *
 * Invariant: numbers are dense from 1 and each entry carries the hash of the one before, as the records of an agent do. It prevents
 * content from being removed without a trace of when, why and by which policy.
 */
import { isUtf8 } from 'node:buffer'
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { DIGEST_BYTES, type Digest, digest, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { CHUNK_BYTES_MAX, LABEL_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX } from '../../shared/limits.ts'
import { type Label, label } from '../../shared/path.ts'
import type { Position } from '../../shared/record.ts'

/** What is kept whatever the retention says, until it is released. */
export interface Hold {
  readonly name: Label
  readonly agent: Label
  readonly volume: Label
  /** A glob over paths, as bytes; everything where it is empty. */
  readonly pattern: string
  /** What existed at any moment of this span, in ms since 1970; undefined: from the beginning, to the end. */
  readonly fromMs: number | undefined
  readonly untilMs: number | undefined
}

export interface CheckpointFile {
  /** Without a directory. */
  readonly name: string
  /** Its content, in order. */
  readonly chunks: readonly CheckpointChunk[]
}

export interface CheckpointChunk {
  readonly digest: Digest
  readonly length: number
  /** Where it stood then. */
  readonly place: { readonly file: number; readonly offset: number; readonly storedLength: number }
}

export type LedgerBody =
  /** Time has passed. What every agent had sent by now is a point that retention may keep. */
  | { readonly kind: 'tick'; readonly newestPack: number }
  /** The retention that is in force from here on, as JSON. */
  | { readonly kind: 'policy'; readonly text: string }
  | { readonly kind: 'hold'; readonly hold: Hold }
  | { readonly kind: 'release'; readonly name: Label }
  /** The content of what these records put may go. Rising. */
  | { readonly kind: 'expired'; readonly agent: Label; readonly positions: readonly Position[] }
  /** Nothing is to be read from these packs any more. Rising. */
  | { readonly kind: 'retired'; readonly packs: readonly number[] }
  /** These are removed. */
  | { readonly kind: 'deleted'; readonly packs: readonly number[] }
  /** The files of a catalog that reflected less than stands before this entry, as chunks; made while that segment was written. */
  | { readonly kind: 'checkpoint'; readonly segment: number; readonly files: readonly CheckpointFile[] }
  /** The access log by now: so many bytes of that day's file (YYYY-MM-DD), and the hash of the line that ends there. */
  | { readonly kind: 'access'; readonly day: string; readonly bytes: number; readonly hash: Digest }
  /** Of a newer release. */
  | { readonly kind: 'unknown' }

export interface LedgerEntry {
  readonly previous: Digest
  readonly number: number
  /** The collector's clock, ms since 1970. */
  readonly wallMs: number
  /** How long the collector has run in all its life. No clock that is set moves it. */
  readonly ageMs: number
  readonly body: LedgerBody
}

export interface LedgerEnd {
  readonly number: number
  readonly hash: Digest
  readonly ageMs: number
}

export const LEDGER_START: LedgerEnd = { number: 0, hash: NO_DIGEST, ageMs: 0 }
/** Positions or packs of one entry. */
export const LEDGER_ITEMS_MAX = 65_536
const TEXT_MAX = 65_536
/** Nothing that could lead elsewhere. */
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/
const DAY = /^\d{4}-\d\d-\d\d$/
/** Everything before the body. */
export const LEDGER_HEADER_BYTES = DIGEST_BYTES + 3 * 8 + 1

const KINDS = { tick: 1, policy: 2, hold: 3, release: 4, expired: 5, retired: 6, deleted: 7, checkpoint: 8, access: 9 } as const
const KIND_NAMES = new Map<number, keyof typeof KINDS>(Object.entries(KINDS).map(([name, number]) => [number, name as keyof typeof KINDS]))

export function encodeLedgerEntry({ previous, number, wallMs, ageMs, body }: LedgerEntry): Buffer {
  if (body.kind === 'unknown') throw new Error('an entry of an unknown kind is never written')
  const to = new ByteWriter(256)
  to.rawString(previous).u64(number).u64(wallMs).u64(ageMs).u8(KINDS[body.kind])
  switch (body.kind) {
    case 'tick':
      to.u64(body.newestPack)
      break
    case 'policy':
      to.bytes(Buffer.from(body.text, 'utf8'))
      break
    case 'hold':
      encodeHold(body.hold, to)
      break
    case 'release':
      to.string(body.name)
      break
    case 'expired':
      to.string(body.agent)
      encodePositions(body.positions, to)
      break
    case 'checkpoint':
      to.u64(body.segment).varint(body.files.length)
      for (const file of body.files) encodeFile(file, to)
      break
    case 'access':
      to.string(body.day).u64(body.bytes).rawString(body.hash)
      break
    case 'retired':
    case 'deleted':
      to.varint(body.packs.length)
      body.packs.reduce((before, pack) => {
        to.varint(pack - before)
        return pack
      }, 0)
      break
  }
  return to.take()
}

export function encodeHold({ name, agent, volume, pattern, fromMs, untilMs }: Hold, to: ByteWriter): void {
  to.string(name).string(agent).string(volume).string(pattern)
  for (const ms of [fromMs, untilMs]) to.u8(ms === undefined ? 0 : 1).u64(ms ?? 0)
}

export function decodeHold(from: ByteReader): Hold {
  const [name, agent, volume] = [readLabel(from), readLabel(from), readLabel(from)]
  const pattern = from.string(PATH_BYTES_MAX)
  const moment = (): number | undefined => {
    const isGiven = from.u8() === 1
    const ms = from.u64()
    return isGiven ? ms : undefined
  }
  return { name, agent, volume, pattern, fromMs: moment(), untilMs: moment() }
}

/** Each by its distance from the one before: a few bytes. */
function encodePositions(positions: readonly Position[], to: ByteWriter): void {
  to.varint(positions.length)
  let before: Position = { epoch: 0, seq: 0 }
  for (const position of positions) {
    to.varint(position.epoch - before.epoch).varint(position.epoch === before.epoch ? position.seq - before.seq : position.seq)
    before = position
  }
}

function decodePositions(from: ByteReader): Position[] {
  let before: Position = { epoch: 0, seq: 0 }
  return Array.from({ length: from.varint(LEDGER_ITEMS_MAX) }, () => {
    const epochs = from.varint()
    const seq = from.varint()
    before = { epoch: before.epoch + epochs, seq: epochs === 0 ? before.seq + seq : seq }
    return before
  })
}

/** @throws format-invalid */
export function decodeLedgerEntry(bytes: Buffer): LedgerEntry {
  const from = new ByteReader(bytes, 'Ledger entry')
  const previous = digest(from.rawString(DIGEST_BYTES))
  const [number, wallMs, ageMs] = [from.u64(), from.u64(), from.u64()]
  return { previous, number, wallMs, ageMs, body: decodeBody(from) }
}

function decodeBody(from: ByteReader): LedgerBody {
  const kind = KIND_NAMES.get(from.u8())
  const body = kind === undefined ? ({ kind: 'unknown' } as const) : decodeKind(kind, from)
  if (kind !== undefined) from.end()
  return body
}

function decodeKind(kind: keyof typeof KINDS, from: ByteReader): LedgerBody {
  switch (kind) {
    case 'tick':
      return { kind, newestPack: from.u64() }
    case 'policy': {
      const bytes = from.bytes(TEXT_MAX)
      return { kind, text: isUtf8(bytes) ? bytes.toString('utf8') : from.fail('text that is not UTF-8') }
    }
    case 'hold':
      return { kind, hold: decodeHold(from) }
    case 'release':
      return { kind, name: readLabel(from) }
    case 'expired':
      return { kind, agent: readLabel(from), positions: decodePositions(from) }
    case 'checkpoint':
      return { kind, segment: from.u64(), files: Array.from({ length: from.varint(LEDGER_ITEMS_MAX) }, () => decodeFile(from)) }
    case 'access': {
      const day = from.string(LABEL_MAX)
      if (!DAY.test(day)) from.fail('no day')
      return { kind, day, bytes: from.u64(), hash: digest(from.rawString(DIGEST_BYTES)) }
    }
    case 'retired':
    case 'deleted': {
      let pack = 0
      return { kind, packs: Array.from({ length: from.varint(LEDGER_ITEMS_MAX) }, () => (pack += from.varint())) }
    }
  }
}

function encodeFile({ name, chunks }: CheckpointFile, to: ByteWriter): void {
  to.string(name).varint(chunks.length)
  for (const { digest: of, length, place } of chunks)
    to.rawString(of).varint(length).varint(place.file).varint(place.offset).varint(place.storedLength)
}

function decodeFile(from: ByteReader): CheckpointFile {
  const name = from.string(NAME_BYTES_MAX)
  if (!FILE_NAME.test(name)) from.fail('no name of a file')
  const chunks = Array.from({ length: from.varint(LEDGER_ITEMS_MAX) }, (): CheckpointChunk => {
    const of = digest(from.rawString(DIGEST_BYTES))
    const length = from.varint(CHUNK_BYTES_MAX)
    return { digest: of, length, place: { file: from.varint(), offset: from.varint(), storedLength: from.varint() } }
  })
  return { name, chunks }
}

function readLabel(from: ByteReader): Label {
  const text = from.string(LABEL_MAX)
  try {
    return label(text, 'Name')
  } catch {
    return from.fail('bad name')
  }
}

/** Why an entry cannot follow; undefined where it does. */
export function ledgerBreak(end: LedgerEnd, entry: LedgerEntry): string | undefined {
  if (entry.number !== end.number + 1) return `entry ${entry.number} of the ledger follows entry ${end.number}`
  return entry.previous === end.hash ? undefined : `entry ${entry.number} of the ledger does not name the hash of the one before`
}

export function ledgerEnd({ number, ageMs }: LedgerEntry, encoded: Uint8Array): LedgerEnd {
  return { number, hash: digestOf(encoded), ageMs }
}
