/**
 * The content of a mounted moment's files, read in pieces: from the replica where it is the same, from the packs where not, ahead of who
 * reads on.
 *
 * Invariant: no byte is given that was not held against its chunk's digest; a chunk that cannot be had is an error for those who read it, and
 * for nobody else. It prevents damage from being looked at as if it were an image, and one bad chunk from hiding the rest of a file.
 */
import { type Digest, digestOf } from '../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import type { RelativePath } from '../shared/path.ts'
import type { ChunkRef, FileVersion } from '../shared/version.ts'
import { ChunkThreads } from './chunk-threads.ts'
import type { HistorySource } from './history-source.ts'
import type { PackAccess } from './pack-reader.ts'
import type { FramePlace } from './repository/frame-file.ts'

/** Content that is kept in memory, behind and ahead of who reads. */
const KEPT_BYTES = 96 << 20
/** Asked for ahead of who reads on. */
const AHEAD_BYTES = 8 << 20
const OUT_OF_ORDER_BYTES = 512 << 10
/** Places asked for at once. */
const PLACES_AT_ONCE = 256

/** A file that is open. */
export interface OpenFile {
  readonly path: RelativePath
  readonly version: FileVersion
  /** Where each chunk begins, and the end of the last. */
  readonly starts: Float64Array
  /** Where each chunk is in a pack, as far as that was asked for. */
  readonly places: Map<Digest, FramePlace | undefined>
  /** Whether the replica may have it. */
  isNear: boolean
  /** Where the next read begins of who reads on. */
  nextOffset: number
}

interface Kept {
  readonly bytes: Promise<Buffer>
  readonly length: number
}

export class MountedContent implements AsyncDisposable {
  readonly #source: HistorySource
  readonly #packs: PackAccess | undefined
  readonly #hasReplica: boolean
  readonly #threads: ChunkThreads
  /** Those that were asked for longest ago come first. */
  readonly #kept = new Map<Digest, Kept>()
  #keptBytes = 0

  private constructor(source: HistorySource, packs: PackAccess | undefined, replica: string | undefined) {
    this.#source = source
    this.#packs = packs
    this.#hasReplica = replica !== undefined
    const opened = packs === undefined ? undefined : { directory: packs.directory, dataKey: packs.dataKey }
    this.#threads = new ChunkThreads({ replica, packs: opened })
  }

  /** `replica`: the directory of the volume's replica, where there is one on this host. */
  static async open(source: HistorySource, replica: string | undefined): Promise<MountedContent> {
    return new MountedContent(source, await source.packs?.(), replica)
  }

  file(path: RelativePath, version: FileVersion): OpenFile {
    const starts = new Float64Array(version.chunks.length + 1)
    let end = 0
    for (const [i, { length }] of version.chunks.entries()) {
      starts[i] = end
      end += length
    }
    starts[version.chunks.length] = end
    return { path, version, starts, places: new Map(), isNear: this.#hasReplica, nextOffset: 0 }
  }

  /** At most `length` bytes from `offset` on, in pieces; fewer at the end of the file. @throws damage, io, whatever the source throws */
  async read(file: OpenFile, offset: number, length: number): Promise<Buffer[]> {
    const end = Math.min(offset + length, file.version.size)
    if (offset >= end) return []
    // The first read may be all that there is of it: many look at headers only. The kernel's own reading ahead may come out of order.
    const isReadingOn = offset > 0 && Math.abs(offset - file.nextOffset) <= OUT_OF_ORDER_BYTES
    file.nextOffset = end
    const first = indexAt(file.starts, offset)
    const wanted: Promise<Buffer>[] = []
    let next = first
    for (; next < file.version.chunks.length && startOf(file, next) < end; next++) wanted.push(this.#chunk(file, next))
    if (isReadingOn) this.#readAhead(file, next)
    const chunks = await Promise.all(wanted)
    return chunks.map((bytes, i) => {
      const start = startOf(file, first + i)
      return bytes.subarray(Math.max(0, offset - start), Math.min(bytes.length, end - start))
    })
  }

  #readAhead(file: OpenFile, from: number): void {
    const until = startOf(file, from) + AHEAD_BYTES
    for (let i = from; i < file.version.chunks.length && startOf(file, i) < until; i++) {
      // Whoever comes to it is told of its error.
      this.#chunk(file, i).catch(() => {})
    }
  }

  #chunk(file: OpenFile, index: number): Promise<Buffer> {
    const ref = file.version.chunks[index]
    if (ref === undefined) throw new RangeError(`chunk ${index} of ${file.version.chunks.length}`)
    const known = this.#kept.get(ref.digest)
    if (known !== undefined) {
      this.#kept.delete(ref.digest)
      this.#kept.set(ref.digest, known)
      return known.bytes
    }
    const kept: Kept = { bytes: this.#load(file, index, ref), length: ref.length }
    this.#kept.set(ref.digest, kept)
    this.#keptBytes += ref.length
    // What failed is tried again by the next who asks: it may have been repaired.
    kept.bytes.catch(() => this.#drop(ref.digest, kept))
    for (const [oldest, { length }] of this.#kept) {
      if (this.#keptBytes <= KEPT_BYTES || oldest === ref.digest) break
      this.#kept.delete(oldest)
      this.#keptBytes -= length
    }
    return kept.bytes
  }

  #drop(name: Digest, kept: Kept): void {
    if (this.#kept.get(name) !== kept) return
    this.#kept.delete(name)
    this.#keptBytes -= kept.length
  }

  async #load(file: OpenFile, index: number, { digest, length }: ChunkRef): Promise<Buffer> {
    if (file.isNear) {
      const { size, mtimeNs } = file.version
      const place = { path: file.path, size, mtimeNs, offset: startOf(file, index) }
      const near = await this.#threads.read({ kind: 'near', name: digest, length, place })
      if (near !== undefined) return near
      // Not as recorded any more: the packs know.
      file.isNear = false
    }
    const place = await this.#placeOf(file, index, digest)
    const packed = place === undefined ? undefined : await this.#threads.read({ kind: 'packed', name: digest, place })
    return packed ?? (await this.#asked({ digest, length }))
  }

  async #placeOf(file: OpenFile, index: number, name: Digest): Promise<FramePlace | undefined> {
    if (this.#packs === undefined) return undefined
    if (!file.places.has(name)) {
      const names = file.version.chunks.slice(index, index + PLACES_AT_ONCE).map(({ digest }) => digest)
      const found = await this.#packs.places(names)
      for (const [i, each] of names.entries()) file.places.set(each, found[i])
    }
    return file.places.get(name)
  }

  /** From the history itself, which knows where it is by now, or why it is nowhere. */
  async #asked(ref: ChunkRef): Promise<Buffer> {
    for await (const result of this.#source.chunks([ref])) {
      if ('failure' in result) throw new PacsimileError('damage', result.failure)
      if (result.bytes.length === ref.length && digestOf(result.bytes) === ref.digest) return result.bytes
      throw new PacsimileError('damage', 'Content arrived that is not what its digest names')
    }
    throw asPacsimileError(new Error('nothing came'), 'Asking for content')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#threads[Symbol.asyncDispose]()
  }
}

function startOf({ starts }: OpenFile, index: number): number {
  return starts[index] ?? 0
}

/** The last chunk that begins at or before an offset within the file. */
function indexAt(starts: Float64Array, offset: number): number {
  let low = 0
  let high = starts.length - 2
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if ((starts[middle] ?? 0) <= offset) low = middle
    else high = middle - 1
  }
  return low
}
