/**
 * Writing files of a plan, in a thread of its own: content from the replica where it is the same, from the packs where not.
 *
 * The replica is near and plain, but nobody's word is taken: what is written of it is held against the digest of the file, and where that differs the
 * packs are asked. What a run before this one has written is kept when every byte of it is right. Invariant: a file that is
 * counted as done has exactly the content that its record names. It prevents a restore that is fast because it trusted a copy that decayed.
 */
import { closeSync, constants, fstatSync, readSync } from 'node:fs'
import { type Digest, digestOf } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { type RelativePath, showPath } from '../shared/path.ts'
import type { ChunkRef, FileVersion } from '../shared/version.ts'
import { ContentCheck } from './content-check.ts'
import type { ChunkResult } from './history-source.ts'
import { type GiveContent, Materializer, type TakePiece } from './materialize.ts'
import type { Shortcoming } from './metadata-writer.ts'
import { Pace } from './pace.ts'
import { SafeDirectory } from './safe-directory.ts'

export interface FileTask {
  /** In the volume, which is where it is in the replica. */
  readonly path: RelativePath
  /** In the target. */
  readonly at: RelativePath
  readonly version: FileVersion
}

export interface FilesPlace {
  readonly to: string
  /** Directory of the volume's replica, if there is one here. */
  readonly replica: string | undefined
  readonly setuid: boolean
  /** Whether some of the files may be there already. */
  readonly isResumed: boolean
  readonly owner?: 'none' | undefined
  /** Of content, at most, in one thread. */
  readonly bytesPerSecond?: number | undefined
}

/** What became of a batch; files that are not named are done. */
export interface FilesDone {
  readonly failed: readonly { readonly path: RelativePath; readonly reason: string; readonly isDamaged: boolean }[]
  readonly shortcomings: readonly Shortcoming[]
  /** Files that an earlier run had done. */
  readonly kept: readonly RelativePath[]
  /** How many have their content from the replica. */
  readonly near: number
}

/** Of one batch: content of chunks, one result for each, in the order asked for. */
export type FetchChunks = (refs: readonly ChunkRef[]) => AsyncIterator<ChunkResult>

/** Errors after which no later file can succeed either. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])
const OPEN_FILE = constants.O_RDONLY | constants.O_NONBLOCK

/** What is read, hashed and written of a file at once. */
const PIECE_BYTES = 1 << 20
/** Chunks of a file that is no larger are written as one. */
const SMALL_BYTES = 64 << 10

export class FilesWriter implements Disposable {
  readonly #place: FilesPlace
  readonly #target: Materializer
  readonly #own: SafeDirectory
  readonly #replica: SafeDirectory | undefined
  readonly #onWritten: (bytes: number) => void
  readonly #pace: Pace
  /** All files are read through it: memory that is new each time is cleared by the kernel first. */
  readonly #piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
  #shortcomings: Shortcoming[] = []

  constructor(place: FilesPlace, onWritten: (bytes: number) => void) {
    this.#place = place
    this.#onWritten = onWritten
    this.#pace = new Pace(place.bytesPerSecond)
    const noChunks = (): never => {
      throw new PacsimileError('internal', 'Content is given with the file')
    }
    this.#target = new Materializer(place.to, noChunks, {
      setuid: place.setuid,
      owner: place.owner,
      special: false,
      isNew: true,
      onShortcoming: (shortcoming) => this.#shortcomings.push(shortcoming),
    })
    this.#own = new SafeDirectory(place.to)
    this.#replica = replicaAt(place.replica)
  }

  /** @throws space, io: no later file can succeed either; whatever `fetch` throws */
  async write(tasks: readonly FileTask[], fetch: FetchChunks): Promise<FilesDone> {
    this.#shortcomings = []
    const failed: { path: RelativePath; reason: string; isDamaged: boolean }[] = []
    const kept: RelativePath[] = []
    let near = 0
    const far: FileTask[] = []
    for (const task of tasks) {
      if (this.#place.isResumed && this.#keep(task)) {
        kept.push(task.path)
        continue
      }
      const putting = this.#putNear(task)
      if (putting instanceof Promise ? await putting : putting) near += 1
      else far.push(task)
    }
    const contents = fetch(far.flatMap(({ version }) => version.chunks))
    for (const task of far) {
      const reason = await this.#putFar(task, contents)
      if (reason !== undefined) failed.push({ path: task.path, ...reason })
    }
    await contents.return?.()
    return { failed, shortcomings: this.#shortcomings, kept, near }
  }

  /**
   * Whether the file is there already, to the last byte, on the disk: what a run before could not bring to it stays in memory, and looks whole there.
   * Its metadata is set in any case.
   */
  #keep({ at, version }: FileTask): boolean {
    this.#own.trim()
    const found = openPlain(this.#own, at)
    if (found === undefined) return false
    try {
      libc?.forgetCached(found.file)
      if (found.size !== BigInt(version.size)) return false
      const content = new ContentCheck(version)
      for (let offset = 0; offset < version.size; ) offset += this.#read(found.file, offset, version.size, (piece) => content.add(piece))
      content.end()
    } catch (error) {
      if (isFatal(error) && errnoOf(error) === undefined) throw error
      return false
    } finally {
      closeSync(found.file)
    }
    this.#target.putMetadata(at, version)
    this.#onWritten(version.size)
    return true
  }

  /** False where the replica does not have it. */
  #putNear(task: FileTask): boolean | Promise<boolean> {
    if (this.#replica === undefined) return false
    this.#replica.trim()
    const file = this.#openNear(this.#replica, task)
    if (file === undefined) return false
    const shortcomings = this.#shortcomings.length
    const end = (failure?: { readonly error: unknown }): boolean => {
      closeSync(file)
      if (failure === undefined) {
        this.#onWritten(task.version.size)
        return true
      }
      // Not as recorded any more, or not to be read: the packs know.
      if (isFatal(failure.error)) throw this.#fatal(task.path, failure.error)
      this.#shortcomings.length = shortcomings
      return false
    }
    let putting: void | Promise<void>
    try {
      putting = this.#target.putFile(task.at, task.version, (take) => this.#giveNear(file, task.version.size, take))
    } catch (error) {
      return end({ error })
    }
    return putting === undefined
      ? end()
      : putting.then(
          () => end(),
          (error: unknown) => end({ error }),
        )
  }

  /** The descriptor of what the replica has there, where that may be the version: of what is read at once, its digest says so soon enough. */
  #openNear(replica: SafeDirectory, { path, version }: FileTask): number | undefined {
    if (version.size > 0 && version.size <= PIECE_BYTES) return openNamed(replica, path)
    const found = openPlain(replica, path)
    if (found === undefined) return undefined
    if (found.size === BigInt(version.size) && found.mtimeNs === version.mtimeNs) return found.file
    closeSync(found.file)
    return undefined
  }

  #giveNear(file: number, size: number, take: TakePiece): void | Promise<void> {
    if (this.#pace.isLimited) return this.#givePaced(file, size, take)
    for (let offset = 0; offset < size; ) offset += this.#read(file, offset, size, take)
  }

  async #givePaced(file: number, size: number, take: TakePiece): Promise<void> {
    for (let offset = 0; offset < size; )
      offset += await this.#pace.take(Math.min(PIECE_BYTES, size - offset), () => this.#read(file, offset, size, take))
  }

  /** The next piece of a file; says how long it was. @throws Differs where the file ends before */
  #read(file: number, offset: number, size: number, take: TakePiece): number {
    const wanted = Math.min(PIECE_BYTES, size - offset)
    for (let done = 0; done < wanted; ) {
      const read = readSync(file, this.#piece, done, wanted - done, offset + done)
      if (read === 0) throw new Differs()
      done += read
    }
    take(this.#piece.subarray(0, wanted))
    return wanted
  }

  /** Why it could not be written; undefined where it was. */
  async #putFar(
    { path, at, version }: FileTask,
    contents: AsyncIterator<ChunkResult>,
  ): Promise<{ reason: string; isDamaged: boolean } | undefined> {
    let left = version.chunks.length
    const isSmall = version.size <= SMALL_BYTES
    const give: GiveContent = async (take) => {
      let gathered = 0
      for (const { digest, length } of version.chunks) {
        left -= 1
        const { done, value } = await this.#pace.take(length, () => contents.next())
        if (done === true) throw new PacsimileError('internal', 'The stream of content ended early')
        if ('failure' in value) throw new PacsimileError('damage', value.failure)
        if (value.bytes.length !== length || (value.isVerified !== true && digestOf(value.bytes) !== digest))
          throw new PacsimileError('damage', 'Content arrived that is not what its digest names')
        if (isSmall && left > 0) gathered += value.bytes.copy(this.#piece, gathered)
        else if (gathered > 0) take(this.#piece.subarray(0, gathered + value.bytes.copy(this.#piece, gathered)))
        else take(value.bytes, digest)
      }
    }
    try {
      await this.#target.putFile(at, version, give)
      this.#onWritten(version.size)
      return undefined
    } catch (error) {
      if (isFatal(error)) throw this.#fatal(path, error)
      return { reason: reasonOf(error), isDamaged: error instanceof PacsimileError && error.code === 'damage' }
    } finally {
      // A file that failed in its middle leaves chunks in the stream.
      for (; left > 0; left--) await contents.next()
    }
  }

  #fatal(path: RelativePath, error: unknown): PacsimileError {
    return asPacsimileError(error, `Writing ${showPath(path)} to ${this.#place.to}`)
  }

  [Symbol.dispose](): void {
    this.#target.close()
    this.#own.close()
    this.#replica?.close()
  }
}

/** What the replica has is not what was recorded. */
class Differs extends Error {}

/** Whether no later file can succeed: the target takes nothing, the source is gone, or we are wrong. */
function isFatal(error: unknown): boolean {
  if (error instanceof Differs) return false
  if (error instanceof PacsimileError) return error.code !== 'damage' && error.code !== 'io' && error.code !== 'format-invalid'
  const errno = errnoOf(error)
  return errno === undefined || FATAL.has(errno)
}

export interface OpenFile {
  /** Descriptor; whoever asked for it closes it. */
  readonly file: number
  readonly size: bigint
  readonly mtimeNs: bigint
}

export function replicaAt(directory: string | undefined): SafeDirectory | undefined {
  if (directory === undefined) return undefined
  try {
    return new SafeDirectory(directory)
  } catch {
    // It was an offer: without it all content comes from the packs.
    return undefined
  }
}

/** A regular file of the tree, opened, and what it is, or undefined. The name is not followed. */
export function openPlain(tree: SafeDirectory, path: RelativePath): OpenFile | undefined {
  const file = openNamed(tree, path)
  if (file === undefined) return undefined
  try {
    const stat = fstatSync(file, { bigint: true })
    if (stat.isFile()) return { file, size: stat.size, mtimeNs: stat.mtimeNs }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
  closeSync(file)
  return undefined
}

/** A descriptor of whatever has that name, or undefined. The name is not followed, and whoever reads of it does not wait for others. */
function openNamed(tree: SafeDirectory, path: RelativePath): number | undefined {
  try {
    return tree.open(path, OPEN_FILE)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
}

/** Undefined where the file does not have that content there. */
export function readChunk(file: number, offset: number, length: number, digest: Digest): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const read = readSync(file, bytes, done, length - done, offset + done)
    if (read === 0) return undefined
    done += read
  }
  return digestOf(bytes) === digest ? bytes : undefined
}
