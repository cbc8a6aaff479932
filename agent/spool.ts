/**
 * The spool: content on the agent's own disk, for when it cannot be delivered at once.
 *
 * Order: frames appended, then one fdatasync, then `append` answers; the record that needs the content is journalled after
 * that. A crash leaves content that nobody needs, never a record whose content was promised and is not there.
 * Invariant: it never grows beyond its quota, nor into the last free share of the filesystem; there `append` answers
 * false. It prevents the protection from filling the disk of what it protects. A file whose write or sync failed is never
 * appended to again: after an error the kernel may have dropped what it called written.
 */
import { readdirSync, rmSync } from 'node:fs'
import { type FileHandle, open, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, type PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, syncDirectory } from '../shared/files.ts'
import { SPOOL_FREE_FLOOR, SPOOL_SEGMENT_BYTES } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import { Batches } from './batches.ts'
import type { StoredChunk } from './capture-thread.ts'
import { encodeFrameHeader, readSegment, SPOOL_FRAME_HEADER_BYTES, SPOOL_HEADER, type SpoolFrame } from './spool-segment.ts'

interface Segment {
  readonly file: string
  size: number
  /** Chunks in it that are needed. */
  live: number
  /** Opened when it is first used. */
  handle: Promise<FileHandle> | undefined
}

interface Spooled {
  readonly segment: Segment
  readonly frame: SpoolFrame
}

interface Append {
  readonly digest: Digest
  readonly chunk: StoredChunk
}

/** Stands in the queue of appends for: delete the file that is written, if nothing in it is needed. */
const TIDY = 'tidy'

const GROUP_MAX = 64
const FILE_NAME = /^(\d{10})\.spool$/

export class Spool {
  readonly #directory: string
  readonly #quotaBytes: number
  readonly #log: Log
  readonly #index = new Map<Digest, Spooled>()
  readonly #segments = new Set<Segment>()
  readonly #appends: Batches<Append | typeof TIDY, boolean>
  #current: Segment | undefined
  #nextNumber = 1
  #bytes = 0
  #failure: PacsimileError | undefined
  #isFull = false
  #isClosed = false

  private constructor(directory: string, quotaBytes: number, log: Log) {
    this.#directory = directory
    this.#quotaBytes = quotaBytes
    this.#log = log
    this.#appends = new Batches(GROUP_MAX, (batch) => this.#commit(batch))
  }

  static open(directory: string, quotaBytes: number, log: Log): Spool {
    makeDirectory(directory)
    const spool = new Spool(directory, quotaBytes, log)
    for (const name of readdirSync(directory).sort()) {
      const number = FILE_NAME.exec(name)?.[1]
      if (number !== undefined) spool.#adopt(join(directory, name), Number(number))
    }
    return spool
  }

  #adopt(file: string, number: number): void {
    const { frames, size } = readSegment(file)
    const segment: Segment = { file, size, live: 0, handle: undefined }
    this.#segments.add(segment)
    this.#bytes += size
    this.#nextNumber = Math.max(this.#nextNumber, number + 1)
    for (const frame of frames) this.#place(segment, frame)
    if (segment.live === 0) void this.#retire(segment)
  }

  #place(segment: Segment, frame: SpoolFrame): void {
    if (this.#index.has(frame.digest)) return
    this.#index.set(frame.digest, { segment, frame })
    segment.live += 1
  }

  /** Bytes on disk. */
  get bytes(): number {
    return this.#bytes
  }

  get quotaBytes(): number {
    return this.#quotaBytes
  }

  /** Whether the last append was refused for want of room, or failed. */
  get isFull(): boolean {
    return this.#isFull || this.#failure !== undefined
  }

  /** Why the disk refused, if it did. */
  get failure(): PacsimileError | undefined {
    return this.#failure
  }

  has(digest: Digest): boolean {
    return this.#index.has(digest)
  }

  digests(): Iterable<Digest> {
    return this.#index.keys()
  }

  /** True when the chunk is durable here; false when there is no room for it. */
  async append(digest: Digest, chunk: StoredChunk): Promise<boolean> {
    if (this.#index.has(digest)) return true
    if (this.#isClosed) return false
    const [isKept = false] = await this.#appends.add([{ digest, chunk }])
    return isKept
  }

  async #commit(batch: readonly (Append | typeof TIDY)[]): Promise<boolean[]> {
    try {
      const wanted = batch.filter((item) => item !== TIDY).filter(({ digest }) => !this.#index.has(digest))
      const fitting = await this.#fitting(wanted)
      this.#isFull = fitting.length < wanted.length
      if (fitting.length > 0) await this.#write(fitting)
      this.#failure = undefined
      if (batch.includes(TIDY) && this.#current?.live === 0) await this.#rotate()
    } catch (error) {
      const failure = asPacsimileError(error, `Writing to the spool ${this.#directory}`)
      if (this.#failure === undefined) this.#log.error('the spool cannot be written', { code: failure.code, reason: failure.message })
      this.#failure = failure
      this.#current = undefined
    }
    return batch.map((item) => item !== TIDY && this.#index.has(item.digest))
  }

  /** Bytes that it may still take: of its quota, and of what the filesystem has above its floor. */
  async room(): Promise<number> {
    const { bavail, blocks, bsize } = await statfs(this.#directory)
    return Math.min(this.#quotaBytes - this.#bytes, (bavail - blocks * SPOOL_FREE_FLOOR) * bsize)
  }

  async #fitting(wanted: readonly Append[]): Promise<Append[]> {
    let room = await this.room()
    return wanted.filter(({ chunk }) => {
      room -= SPOOL_FRAME_HEADER_BYTES + chunk.bytes.length
      return room >= 0
    })
  }

  async #write(appends: readonly Append[]): Promise<void> {
    const segment = await this.#writable()
    const handle = await this.#handle(segment)
    const parts: Uint8Array[] = []
    const frames: SpoolFrame[] = []
    let at = segment.size
    for (const { digest, chunk } of appends) {
      const header = encodeFrameHeader(digest, chunk)
      const { length, filtered, compressed, bytes } = chunk
      frames.push({ digest, length, filtered, compressed, checksum: crc32(bytes), offset: at + header.length, storedLength: bytes.length })
      parts.push(header, bytes)
      at += header.length + bytes.length
    }
    // What a failed write leaves behind counts as well.
    this.#bytes += at - segment.size
    const start = segment.size
    segment.size = at
    await writeAll(handle, parts, start)
    await handle.datasync()
    for (const frame of frames) this.#place(segment, frame)
  }

  async #writable(): Promise<Segment> {
    const current = this.#current
    if (current !== undefined && current.size < SPOOL_SEGMENT_BYTES) return current
    await this.#rotate()
    const file = join(this.#directory, `${String(this.#nextNumber++).padStart(10, '0')}.spool`)
    const handle = await open(file, 'wx+', 0o600)
    const segment: Segment = { file, size: SPOOL_HEADER.length, live: 0, handle: Promise.resolve(handle) }
    this.#segments.add(segment)
    this.#bytes += segment.size
    await writeAll(handle, [SPOOL_HEADER], 0)
    syncDirectory(this.#directory)
    this.#current = segment
    return segment
  }

  /** Nothing more is appended to the file that was written. */
  async #rotate(): Promise<void> {
    const current = this.#current
    this.#current = undefined
    if (current?.live === 0) await this.#retire(current)
  }

  #handle(segment: Segment): Promise<FileHandle> {
    segment.handle ??= open(segment.file, 'r')
    return segment.handle
  }

  /** Undefined where it is not here, or not what was written. */
  async read(digest: Digest): Promise<StoredChunk | undefined> {
    const spooled = this.#index.get(digest)
    if (spooled === undefined) return undefined
    const { length, filtered, compressed, checksum, offset, storedLength } = spooled.frame
    const bytes = Buffer.allocUnsafe(storedLength)
    try {
      const handle = await this.#handle(spooled.segment)
      const { bytesRead } = await handle.read(bytes, 0, storedLength, offset)
      if (bytesRead === storedLength && crc32(bytes) === checksum) return { length, filtered, compressed, bytes }
      this.#log.error('spooled content is damaged', { file: spooled.segment.file, offset })
    } catch (error) {
      this.#log.error('spooled content cannot be read', { file: spooled.segment.file, reason: reasonOf(error) })
    }
    await this.drop(digest)
    return undefined
  }

  /** The chunk is not needed any more; a file in which nothing is needed is deleted. */
  async drop(digest: Digest): Promise<void> {
    const spooled = this.#index.get(digest)
    if (spooled === undefined) return
    this.#index.delete(digest)
    const { segment } = spooled
    segment.live -= 1
    if (segment.live > 0) return
    // What is being written may be needed in a moment; only the writer knows.
    if (segment !== this.#current) await this.#retire(segment)
    else if (!this.#isClosed) await this.#appends.add([TIDY])
  }

  async #retire(segment: Segment): Promise<void> {
    if (!this.#segments.delete(segment)) return
    this.#bytes -= segment.size
    this.#isFull = false
    try {
      rmSync(segment.file, { force: true })
    } catch (error) {
      this.#log.error('a spool file that is not needed cannot be deleted', { file: segment.file, reason: reasonOf(error) })
    }
    const handle = await segment.handle?.catch(() => undefined)
    await handle?.close()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#appends.close()
    for (const { handle } of this.#segments) {
      const opened = await handle?.catch(() => undefined)
      await opened?.close()
    }
  }
}

async function writeAll(handle: FileHandle, parts: readonly Uint8Array[], position: number): Promise<void> {
  let at = position
  let rest = parts
  while (rest.length > 0) {
    const { bytesWritten } = await handle.writev(rest, at)
    at += bytesWritten
    rest = after(rest, bytesWritten)
  }
}

/** What is left of `parts` without their first `bytes`. */
function after(parts: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let skip = bytes
  for (const [i, part] of parts.entries()) {
    if (skip < part.length) return [part.subarray(skip), ...parts.slice(i + 1)]
    skip -= part.length
  }
  return []
}
