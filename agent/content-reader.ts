/**
 * Reads a file's content as it was at one moment, cut into chunks and hashed; runs in a capture thread.
 *
 * A read lease (fcntl(2)) is granted only while nobody has the file open for writing, and is broken by whoever opens it:
 * what was read under an unbroken lease is `stable`. It is looked at between pieces and given up at once, so that a writer
 * never waits longer than it takes to read or ship one piece; small files give it up before they are even hashed. Without
 * a lease the file is read when it must be, and is `unverified` if its times and size stayed equal, else `torn`.
 * Invariant: the consistency that a version claims was observed. It prevents a half-written file from passing for a whole
 * one: "stat before equals stat after" alone was measured to accept torn copies.
 */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { Chunker, type ChunkSizes } from '../shared/chunker.ts'
import { DICOM_HEAD_BYTES, pixelDataOffset } from '../shared/dicom.ts'
import { type Digest, digestOf, StreamingDigest } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { LEASE_PIECE_BYTES, WHOLE_READ_BYTES_MAX } from '../shared/limits.ts'
import { pathBuffer } from '../shared/path.ts'
import type { ChunkRef, Consistency } from '../shared/version.ts'
import { holdingUp } from './priority.ts'

export interface ReadRequest {
  readonly absolute: ByteString
  /** What lstat(2) said: the file that is opened must be this one. */
  readonly expected: BigIntStats
  readonly asIs: boolean
  /** It was read before, so far as that goes: it is worth reading again under a lease only. */
  readonly isOnlyIfStable: boolean
  readonly sizes: ChunkSizes
  /** Takes a chunk that is complete; false means that it gave up because `isInterrupted` said so. */
  readonly take: (chunk: ChunkRef, plain: Uint8Array, isInterrupted: () => boolean) => boolean
}

export interface Content {
  readonly consistency: Consistency
  /** Of the file from which the content was read, before it was read. */
  readonly stats: BigIntStats
  readonly size: number
  readonly digest: Digest
  readonly chunks: readonly ChunkRef[]
}

/** Reads of a file that keeps changing, before its last one is kept as torn. */
const TRIES_MAX = 3
/** Where there are no leases only the times tell of a writer: files that changed this recently are left alone. */
const UNLEASED_QUIET_MS = 250

export class ContentReader {
  #buffer = Buffer.alloc(0)

  /** Undefined: it is being written, or is not that file any more; look again. @throws what open(2) and read(2) say */
  read(request: ReadRequest): Content | undefined {
    const fd = openForReading(request.absolute)
    try {
      const stats = fstatSync(fd, { bigint: true })
      if (!isSameState(stats, request.expected)) return undefined
      const lease = libc?.takeReadLease(fd) ?? 'unsupported'
      if (lease === 'granted') return holdingUp(() => this.#readLeased(fd, stats, request))
      const mayBeAsIs = !request.isOnlyIfStable && (request.asIs || (lease === 'unsupported' && isQuiet(stats)))
      return mayBeAsIs ? this.#readAsIs(fd, stats, request) : undefined
    } finally {
      // Closing gives up the lease, where one is held still.
      closeSync(fd)
    }
  }

  #readLeased(fd: number, stats: BigIntStats, request: ReadRequest): Content | undefined {
    const isBroken = (): boolean => libc?.holdsReadLease(fd) !== true
    const size = Number(stats.size)
    if (size > WHOLE_READ_BYTES_MAX) return this.#stream(fd, stats, request, 'stable', isBroken)
    const length = this.#fill(fd, size, request.sizes, isBroken)
    const isWhole = length === size && !isBroken()
    libc?.releaseLease(fd)
    return isWhole ? this.#cut(length, stats, request, 'stable') : undefined
  }

  #readAsIs(fd: number, first: BigIntStats, request: ReadRequest): Content | undefined {
    let stats = first
    if (Number(stats.size) > WHOLE_READ_BYTES_MAX) {
      const content = this.#stream(fd, stats, request, 'unverified', never)
      if (content === undefined || isSameState(stats, fstatSync(fd, { bigint: true }))) return content
      return { ...content, consistency: 'torn' }
    }
    for (let tries = 1; ; tries++) {
      const length = this.#fill(fd, WHOLE_READ_BYTES_MAX, request.sizes, never)
      const after = fstatSync(fd, { bigint: true })
      const isWhole = length === Number(stats.size) && isSameState(stats, after)
      if (isWhole || tries === TRIES_MAX) return this.#cut(length, stats, request, isWhole ? 'unverified' : 'torn')
      stats = after
    }
  }

  /** Reads from the start into the buffer, at most `bytesMax`; stops early when the lease breaks. */
  #fill(fd: number, bytesMax: number, sizes: ChunkSizes, isBroken: () => boolean): number {
    this.#reserve(sizes)
    let length = 0
    while (length < bytesMax) {
      const read = readSync(fd, this.#buffer, length, Math.min(LEASE_PIECE_BYTES, bytesMax - length), length)
      if (read === 0) break
      length += read
      if (length < bytesMax && isBroken()) break
    }
    return length
  }

  /** What is in the buffer, as content. */
  #cut(length: number, stats: BigIntStats, request: ReadRequest, consistency: Consistency): Content {
    const whole = this.#buffer.subarray(0, length)
    const chunker = new Chunker(request.sizes, forcedCuts(whole, length))
    const chunks: ChunkRef[] = []
    for (let start = 0; start < length; start = chunker.position) {
      const plain = whole.subarray(start, start + chunker.next(whole, start, length, true))
      const chunk = { digest: digestOf(plain), length: plain.length }
      chunks.push(chunk)
      request.take(chunk, plain, never)
    }
    const [only] = chunks
    const digest = only !== undefined && chunks.length === 1 ? only.digest : digestOf(whole)
    return { consistency, stats, size: length, digest, chunks }
  }

  /** Reads, cuts and hands over piece by piece. */
  #stream(fd: number, stats: BigIntStats, request: ReadRequest, consistency: Consistency, isBroken: () => boolean): Content | undefined {
    this.#reserve(request.sizes)
    const buffer = this.#buffer
    const hash = new StreamingDigest()
    const chunks: ChunkRef[] = []
    let chunker: Chunker | undefined
    let start = 0
    let end = 0
    let position = 0
    for (let isLast = false; !isLast; ) {
      if (buffer.length - end < LEASE_PIECE_BYTES) {
        buffer.copyWithin(0, start, end)
        end -= start
        start = 0
      }
      const read = readSync(fd, buffer, end, LEASE_PIECE_BYTES, position)
      if (isBroken()) return undefined
      isLast = read === 0
      end += read
      position += read
      if (end < DICOM_HEAD_BYTES && !isLast) continue
      chunker ??= new Chunker(request.sizes, forcedCuts(buffer.subarray(0, end), Number(stats.size)))
      for (let length = chunker.next(buffer, start, end, isLast); length > 0; length = chunker.next(buffer, start, end, isLast)) {
        const plain = buffer.subarray(start, start + length)
        const chunk = { digest: digestOf(plain), length }
        hash.update(plain)
        chunks.push(chunk)
        start += length
        if (!request.take(chunk, plain, isBroken) || isBroken()) return undefined
      }
    }
    return { consistency, stats, size: position, digest: hash.finish(), chunks }
  }

  /** First use of fresh memory is slow: one buffer serves all files. */
  #reserve(sizes: ChunkSizes): void {
    const needed = Math.max(WHOLE_READ_BYTES_MAX, sizes.max + DICOM_HEAD_BYTES) + 2 * LEASE_PIECE_BYTES
    if (this.#buffer.length < needed) this.#buffer = Buffer.allocUnsafeSlow(needed)
  }
}

const never = (): boolean => false

function forcedCuts(head: Uint8Array, fileSize: number): number[] {
  const offset = pixelDataOffset(head.subarray(0, DICOM_HEAD_BYTES), fileSize)
  return offset === undefined ? [] : [offset]
}

function openForReading(absolute: ByteString): number {
  const name = pathBuffer(absolute)
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  try {
    return openSync(name, flags | constants.O_NOATIME)
  } catch (error) {
    // Only the owner of a file and root may leave its access time alone.
    if (errnoOf(error) !== 'EPERM') throw error
    return openSync(name, flags)
  }
}

function isQuiet(stats: BigIntStats): boolean {
  return Date.now() - Number(stats.mtimeMs) > UNLEASED_QUIET_MS
}

/** Whether nothing that changes with content or metadata has changed between two looks. */
export function isSameState(a: BigIntStats, b: BigIntStats): boolean {
  return a.ino === b.ino && a.dev === b.dev && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs
}
