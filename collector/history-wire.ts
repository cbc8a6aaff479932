/**
 * How history crosses the admin socket: trees, logs and contents as streams of length-prefixed items.
 *
 * Both halves stand here side by side, so that they cannot drift apart. The socket is local and not a contract.
 */
import { ByteReader, ByteWriter } from '../shared/bytes.ts'
import { PacsimileError } from '../shared/errors.ts'
import { CHUNK_BYTES_MAX, PATH_BYTES_MAX, RECORD_BYTES_MAX } from '../shared/limits.ts'
import { relativePath } from '../shared/path.ts'
import { decodeSummary, encodeSummary } from '../shared/record.ts'
import { decodeVersion, encodeVersion } from '../shared/version.ts'
import type { Absence } from './absent-content.ts'
import { type ChunkResult, type ListedEntry, type LogEntry, oneByOne, type StoredListing } from './history-source.ts'

/** Items gathered into one write. */
const GATHER_BYTES = 256 << 10
const LENGTH_BYTES = 4
const NOTHING: readonly Uint8Array[] = []
const ITEM_BYTES_MAX = RECORD_BYTES_MAX + CHUNK_BYTES_MAX

/** Joins items into pieces, each item behind its length. */
class Gathered {
  #bytes = Buffer.allocUnsafe(GATHER_BYTES)
  #length = 0

  /** Copies the item. @returns pieces that are full */
  add(item: Uint8Array): readonly Uint8Array[] {
    const length = LENGTH_BYTES + item.length
    const full = this.#length > 0 && this.#length + length > GATHER_BYTES ? this.take() : NOTHING
    const isLarge = length > GATHER_BYTES
    const to = isLarge ? Buffer.allocUnsafe(length) : this.#bytes
    to.writeUInt32LE(item.length, this.#length)
    to.set(item, this.#length + LENGTH_BYTES)
    if (isLarge) return [...full, to]
    this.#length += length
    return full
  }

  /** What is left. */
  take(): readonly Uint8Array[] {
    if (this.#length === 0) return NOTHING
    const full = this.#bytes.subarray(0, this.#length)
    this.#bytes = Buffer.allocUnsafe(GATHER_BYTES)
    this.#length = 0
    return [full]
  }
}

/** The inverse, in groups as they come. @throws protocol when the stream ends within an item */
async function* unframed<Item>(stream: AsyncIterable<Buffer>, decode: (bytes: Buffer) => Item): AsyncGenerator<readonly Item[], void> {
  let parts: Buffer[] = []
  let have = 0
  let need = LENGTH_BYTES
  for await (const part of stream) {
    parts.push(part)
    have += part.length
    if (have < need) continue
    const bytes = parts.length === 1 ? part : Buffer.concat(parts)
    const items: Item[] = []
    let at = 0
    for (need = LENGTH_BYTES; bytes.length - at >= LENGTH_BYTES; need = LENGTH_BYTES) {
      const length = bytes.readUInt32LE(at)
      if (length > ITEM_BYTES_MAX) throw new PacsimileError('protocol', `An item of ${length} bytes is too large`)
      need = LENGTH_BYTES + length
      if (bytes.length - at < need) break
      items.push(decode(bytes.subarray(at + LENGTH_BYTES, at + need)))
      at += need
    }
    parts = at < bytes.length ? [bytes.subarray(at)] : []
    have = bytes.length - at
    yield items
  }
  if (have > 0) throw new PacsimileError('protocol', 'The answer was cut off')
}

const ABSENCES: readonly (Absence | undefined)[] = [undefined, 'lost', 'expired']

function absenceNumber(absent: Absence | undefined): number {
  return ABSENCES.indexOf(absent)
}

export async function* encodeEntries(groups: AsyncIterable<readonly StoredListing[]>): AsyncGenerator<Uint8Array> {
  const gathered = new Gathered()
  const to = new ByteWriter()
  for await (const entries of groups) {
    for (const { path, position, absent, version } of entries) {
      to.reset()
      to.string(path).u64(position.epoch).u64(position.seq).u8(absenceNumber(absent)).raw(version)
      for (const piece of gathered.add(to.view())) yield piece
    }
  }
  yield* gathered.take()
}

export function decodeEntries(stream: AsyncIterable<Buffer>): AsyncIterable<readonly ListedEntry[]> {
  return unframed(stream, (bytes) => {
    const from = new ByteReader(bytes, 'Tree entry')
    const path = relativePath(from.string(PATH_BYTES_MAX))
    const position = { epoch: from.u64(), seq: from.u64() }
    const absent = ABSENCES[from.u8()]
    return { path, position, absent, version: decodeVersion(from) }
  })
}

export async function* encodeLog(entries: AsyncIterable<LogEntry>): AsyncGenerator<Uint8Array> {
  const gathered = new Gathered()
  const to = new ByteWriter()
  for await (const entry of entries) {
    to.reset()
    to.u8(absenceNumber(entry.absent)).bytes(encodeSummary(entry.record))
    to.u8(entry.version === undefined ? 0 : 1)
    if (entry.version !== undefined) encodeVersion(entry.version, to)
    for (const piece of gathered.add(to.view())) yield piece
  }
  yield* gathered.take()
}

export function decodeLog(stream: AsyncIterable<Buffer>): AsyncIterable<LogEntry> {
  const groups = unframed(stream, (bytes): LogEntry => {
    const from = new ByteReader(bytes, 'Log entry')
    const absent = ABSENCES[from.u8()]
    const record = decodeSummary(from.bytes(RECORD_BYTES_MAX))
    return { record, absent, version: from.u8() === 1 ? decodeVersion(from) : undefined }
  })
  return oneByOne(groups)
}

const [CONTENT, FAILURE] = [0, 1]
/** Of an item: its length, and which of the two it is. */
const CHUNK_HEAD_BYTES = 5

/** Large contents are passed on as they are: to copy them costs more than all else here. */
export async function* encodeChunks(results: AsyncIterable<ChunkResult>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = []
  let bytes = 0
  for await (const result of results) {
    const body = 'bytes' in result ? result.bytes : Buffer.from(result.failure, 'utf8')
    const head = Buffer.allocUnsafe(CHUNK_HEAD_BYTES)
    head.writeUInt32LE(body.length + 1, 0)
    head.writeUInt8('bytes' in result ? CONTENT : FAILURE, CHUNK_HEAD_BYTES - 1)
    parts.push(head)
    bytes += head.length
    const isLarge = body.length >= GATHER_BYTES
    if (!isLarge) {
      parts.push(body)
      bytes += body.length
    }
    if (isLarge || bytes >= GATHER_BYTES) {
      yield Buffer.concat(parts)
      parts = []
      bytes = 0
    }
    if (isLarge) yield body
  }
  if (bytes > 0) yield Buffer.concat(parts)
}

/** The inverse; each content has memory of its own. @throws protocol when the stream ends within an item */
export async function* decodeChunks(stream: AsyncIterable<Buffer>): AsyncGenerator<ChunkResult, void> {
  const head = Buffer.allocUnsafe(CHUNK_HEAD_BYTES)
  let headBytes = 0
  let body: Buffer<ArrayBuffer> | undefined
  let bodyBytes = 0
  for await (const part of stream) {
    for (let at = 0; at < part.length; ) {
      if (body === undefined) {
        const copied = part.copy(head, headBytes, at)
        headBytes += copied
        at += copied
        if (headBytes < CHUNK_HEAD_BYTES) continue
        const length = head.readUInt32LE(0) - 1
        if (length < 0 || length > CHUNK_BYTES_MAX) throw new PacsimileError('protocol', `An item of ${length} bytes is no chunk`)
        body = Buffer.allocUnsafeSlow(length)
        bodyBytes = 0
      }
      const copied = part.copy(body, bodyBytes, at)
      bodyBytes += copied
      at += copied
      if (bodyBytes < body.length) continue
      yield head[CHUNK_HEAD_BYTES - 1] === CONTENT ? { bytes: body, isOwn: true } : { failure: body.toString('utf8') }
      body = undefined
      headBytes = 0
    }
  }
  if (headBytes > 0) throw new PacsimileError('protocol', 'The answer was cut off')
}
