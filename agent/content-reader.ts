/**
 * Reads a file's content as it was at one moment, cut into chunks and hashed; runs in a capture thread.
 *
 * What is read under an unbroken lease (lease.ts) is `stable`; small files give it up before they are even hashed, and
 * large ones as soon as they are cloned (reflink.ts), where that is possible. A clone without a lease is
 * `crash-consistent`. Without either the file is read when it must be: it is `unverified` if its times, its size and, of
 * small files, a second reading stayed equal, else `torn`.
 * Invariant: the consistency that a version claims was observed. It prevents a half-written file from passing for a whole
 * one: "stat before equals stat after" alone was measured to accept torn copies.
 */
import { closeSync } from 'node:fs'
import { Chunker, type ChunkSizes } from '../shared/chunker.ts'
import { DICOM_HEAD_BYTES, type PixelData, pixelData, samplesFrom } from '../shared/dicom.ts'
import { type Digest, digestOf, StreamingDigest } from '../shared/digest.ts'
import { LEASE_PIECE_BYTES, WHOLE_READ_BYTES_MAX } from '../shared/limits.ts'
import type { Samples } from '../shared/sample-filter.ts'
import type { ChunkRef, Consistency } from '../shared/version.ts'
import type { Hole } from '../shared/version-extensions.ts'
import { linuxCalls } from './beneath.ts'
import { isSameState } from './file-stat.ts'
import type { Lease } from './lease.ts'
import { holdingUp } from './priority.ts'
import type { Reflinks } from './reflink.ts'
import { SparseFile } from './sparse-file.ts'
import type { Stat } from './system-calls.ts'

export interface ReadRequest {
  /** Open for reading; stays so. */
  readonly fd: number
  /** Of `fd`, before anything is read. */
  readonly stat: Stat
  /** Undefined: it is read though somebody may write it. */
  readonly lease: Lease | undefined
  /** A directory of its filesystem. */
  readonly root: number
  readonly sizes: ChunkSizes
  /** Looks at the first bytes before anything is cut; true refuses the file. */
  readonly isRefused: (head: Uint8Array) => boolean
  readonly take: TakeChunk
}

/** Takes a chunk that is complete; false means that it gave up because `isInterrupted` said so. */
export type TakeChunk = (chunk: ChunkRef, plain: Uint8Array, samples: Samples | undefined, isInterrupted: () => boolean) => boolean

interface Body {
  readonly size: number
  readonly digest: Digest
  readonly chunks: readonly ChunkRef[]
  readonly holes: readonly Hole[]
}

/** A small file's bytes. */
export interface Copy {
  readonly bytes: Buffer
  readonly holes: readonly Hole[]
}

export interface Content extends Body {
  readonly consistency: Consistency
  /** Of the file from which the content was read, before it was read. */
  readonly stat: Stat
}

/** A writer came, or `isRefused` said so. */
export type Failure = 'broken' | 'refused'

const NOTHING = Buffer.alloc(0)

/** Reads of a file that keeps changing, before its last one is kept as torn. */
const TRIES_MAX = 3

export class ContentReader {
  readonly #calls = linuxCalls()
  readonly #reflinks: Reflinks
  #buffer = NOTHING

  constructor(reflinks: Reflinks) {
    this.#reflinks = reflinks
  }

  /** @throws what read(2) says */
  read(request: ReadRequest): Content | Failure {
    const { lease } = request
    return lease === undefined ? this.#readUnleased(request) : holdingUp(() => this.#readLeased(request, lease))
  }

  #readLeased(request: ReadRequest, lease: Lease): Content | Failure {
    const { stat } = request
    if (Number(stat.size) > WHOLE_READ_BYTES_MAX) {
      const cloned = this.#throughClone(request, () => {
        const isWhole = !lease.isBroken()
        lease.release()
        return isWhole
      })
      const body = cloned ?? this.#stream(new SparseFile(request.fd, stat, true), stat, request, lease.isBroken)
      return typeof body === 'string' ? body : { ...body, consistency: 'stable', stat }
    }
    const file = new SparseFile(request.fd, stat, true)
    const length = this.#fill(file, Number(stat.size), request.sizes, lease.isBroken)
    const isWhole = length === Number(stat.size) && !lease.isBroken()
    lease.release()
    if (!isWhole) return 'broken'
    const whole = this.#buffer.subarray(0, length)
    return request.isRefused(whole) ? 'refused' : { ...this.#cut(whole, file.holes, request), consistency: 'stable', stat }
  }

  #readUnleased(request: ReadRequest): Content | Failure {
    const cloned = this.#throughClone(request, () => true)
    if (cloned !== undefined)
      return typeof cloned === 'string' ? cloned : { ...cloned, consistency: 'crash-consistent', stat: request.stat }
    return Number(request.stat.size) > WHOLE_READ_BYTES_MAX ? this.#streamUnleased(request) : this.#readTwice(request)
  }

  /** Undefined: there are no clones. `isWhole` is asked when the clone has been made. */
  #throughClone(request: ReadRequest, isWhole: () => boolean): Body | Failure | undefined {
    const clone = this.#reflinks.clone(request.fd, request.root, request.stat.dev)
    if (clone === undefined) return undefined
    try {
      return isWhole() ? this.readFixed(clone, request) : 'broken'
    } finally {
      closeSync(clone)
    }
  }

  /** Reads, in place of the request's file, a file that nobody can write. */
  readFixed(fd: number, request: ReadRequest): Body | Failure {
    const stat = this.#statOf(fd)
    return this.#stream(new SparseFile(fd, stat, true), stat, request, never)
  }

  /** Reads it from the start to the end, whatever becomes of it meanwhile: the caller knows what that is worth. */
  readOnce(request: ReadRequest): Body | Failure {
    return this.#stream(new SparseFile(request.fd, request.stat, false), request.stat, request, never)
  }

  /** Reads it into memory of its own, whatever becomes of it meanwhile, to be cut later. */
  copyOnce(request: ReadRequest): Copy | 'broken' {
    const file = new SparseFile(request.fd, request.stat, false)
    const length = this.#fill(file, WHOLE_READ_BYTES_MAX, request.sizes, never)
    // It has grown beyond what can be held.
    if (length === WHOLE_READ_BYTES_MAX) return 'broken'
    return { bytes: Buffer.from(this.#buffer.subarray(0, length)), holes: file.holes }
  }

  cutCopy({ bytes, holes }: Copy, request: ReadRequest): Body {
    return this.#cut(bytes, holes, request)
  }

  #streamUnleased(request: ReadRequest): Content | Failure {
    const { fd, stat } = request
    const body = this.readOnce(request)
    if (typeof body === 'string') return body
    return { ...body, consistency: isSameState(stat, this.#statOf(fd)) ? 'unverified' : 'torn', stat }
  }

  #readTwice(request: ReadRequest): Content | Failure {
    const { fd, sizes } = request
    let { stat } = request
    for (let tries = 1; ; tries++) {
      const firstLength = this.#fill(new SparseFile(fd, stat, false), WHOLE_READ_BYTES_MAX, sizes, never)
      if (request.isRefused(this.#buffer.subarray(0, firstLength))) return 'refused'
      const firstDigest = digestOf(this.#buffer.subarray(0, firstLength))
      const file = new SparseFile(fd, stat, false)
      const length = this.#fill(file, WHOLE_READ_BYTES_MAX, sizes, never)
      const after = this.#statOf(fd)
      const whole = this.#buffer.subarray(0, length)
      const isSame = firstDigest === digestOf(whole)
      const isWhole = isSame && length === Number(stat.size) && isSameState(stat, after)
      if (isWhole || tries === TRIES_MAX) {
        return { ...this.#cut(whole, file.holes, request), consistency: isWhole ? 'unverified' : 'torn', stat }
      }
      stat = after
    }
  }

  #statOf(fd: number): Stat {
    const stat = this.#calls.statAt(fd, '')
    if (stat === undefined) throw new TypeError('an open file has a state')
    return stat
  }

  /** Reads from the start into the buffer, at most `bytesMax`; stops early when the lease breaks. */
  #fill(file: SparseFile, bytesMax: number, sizes: ChunkSizes, isBroken: () => boolean): number {
    this.#reserve(sizes)
    let length = 0
    while (length < bytesMax) {
      const read = file.read(this.#buffer, length, Math.min(LEASE_PIECE_BYTES, bytesMax - length), length)
      if (read === 0) break
      length += read
      if (length < bytesMax && isBroken()) break
    }
    return length
  }

  /** Bytes that are a whole file, as content. */
  #cut(whole: Buffer, holes: readonly Hole[], request: ReadRequest): Body {
    const { length } = whole
    const pixels = pixelData(whole.subarray(0, DICOM_HEAD_BYTES), length)
    const chunker = new Chunker(request.sizes, forcedCuts(pixels))
    const chunks: ChunkRef[] = []
    for (let start = 0; start < length; start = chunker.position) {
      const plain = whole.subarray(start, start + chunker.next(whole, start, length, true))
      const chunk = { digest: digestOf(plain), length: plain.length }
      chunks.push(chunk)
      request.take(chunk, plain, pixels && samplesFrom(pixels, start), never)
    }
    const [only] = chunks
    const digest = only !== undefined && chunks.length === 1 ? only.digest : digestOf(whole)
    return { size: length, digest, chunks, holes }
  }

  /** Reads, cuts and hands over piece by piece. */
  #stream(file: SparseFile, stat: Stat, request: ReadRequest, isBroken: () => boolean): Body | Failure {
    this.#reserve(request.sizes)
    const buffer = this.#buffer
    const hash = new StreamingDigest()
    const chunks: ChunkRef[] = []
    let chunker: Chunker | undefined
    let pixels: PixelData | undefined
    let start = 0
    let end = 0
    let position = 0
    for (let isLast = false; !isLast; ) {
      if (buffer.length - end < LEASE_PIECE_BYTES) {
        buffer.copyWithin(0, start, end)
        end -= start
        start = 0
      }
      const read = file.read(buffer, end, LEASE_PIECE_BYTES, position)
      if (isBroken()) return 'broken'
      isLast = read === 0
      end += read
      position += read
      if (end < DICOM_HEAD_BYTES && !isLast) continue
      if (chunker === undefined) {
        const head = buffer.subarray(0, end)
        if (request.isRefused(head)) return 'refused'
        pixels = pixelData(head.subarray(0, DICOM_HEAD_BYTES), Number(stat.size))
        chunker = new Chunker(request.sizes, forcedCuts(pixels))
      }
      for (let length = chunker.next(buffer, start, end, isLast); length > 0; length = chunker.next(buffer, start, end, isLast)) {
        const plain = buffer.subarray(start, start + length)
        const chunk = { digest: digestOf(plain), length }
        hash.update(plain)
        chunks.push(chunk)
        start += length
        const samples = pixels && samplesFrom(pixels, chunker.position - length)
        if (!request.take(chunk, plain, samples, isBroken) || isBroken()) return 'broken'
      }
    }
    return { size: position, digest: hash.finish(), chunks, holes: file.holes }
  }

  /** Its memory is given back; the next file takes as much again. */
  rest(): void {
    this.#buffer = NOTHING
  }

  /** First use of fresh memory is slow: one buffer serves all files. */
  #reserve(sizes: ChunkSizes): void {
    const needed = Math.max(WHOLE_READ_BYTES_MAX, sizes.max + DICOM_HEAD_BYTES) + 2 * LEASE_PIECE_BYTES
    if (this.#buffer.length < needed) this.#buffer = Buffer.allocUnsafeSlow(needed)
  }
}

const never = (): boolean => false

function forcedCuts(pixels: PixelData | undefined): number[] {
  return pixels === undefined ? [] : [pixels.offset]
}
