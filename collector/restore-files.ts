/**
 * Writing files of a plan, in a thread of its own: content from the replica where it is the same, from the packs where not.
 *
 * The replica is near and plain, but nobody's word is taken: every chunk is held against its digest, and where one differs the
 * packs are asked. What a run before this one has written is kept when every byte of it is right. Invariant: a file that is
 * counted as done has exactly the content that its record names. It prevents a restore that is fast because it trusted a copy that decayed.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { release } from '../shared/bytes.ts'
import { type Digest, digestOf } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { pathBuffer, type RelativePath, showPath } from '../shared/path.ts'
import type { ChunkRef, FileVersion } from '../shared/version.ts'
import type { ChunkResult } from './history-source.ts'
import { Materializer, type Shortcoming } from './materialize.ts'
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
  /** Files that an earlier run had done, and those whose content came from the replica. */
  readonly kept: readonly RelativePath[]
  readonly near: readonly RelativePath[]
}

/** Of one batch: content of chunks, one result for each, in the order asked for. */
export type FetchChunks = (refs: readonly ChunkRef[]) => AsyncIterator<ChunkResult>

/** Errors after which no later file can succeed either. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

type NextChunk = (digest: Digest, length: number) => Buffer | Promise<Buffer>

export class FilesWriter implements Disposable {
  readonly #place: FilesPlace
  readonly #target: Materializer
  readonly #own: SafeDirectory
  readonly #replica: SafeDirectory | undefined
  readonly #onWritten: (bytes: number) => void
  #next: NextChunk = () => {
    throw new PacsimileError('internal', 'No file is being written')
  }
  #shortcomings: Shortcoming[] = []

  constructor(place: FilesPlace, onWritten: (bytes: number) => void) {
    this.#place = place
    this.#onWritten = onWritten
    const pace = new Pace(place.bytesPerSecond)
    const next: NextChunk = (digest, length) => pace.take(length, () => this.#next(digest, length))
    this.#target = new Materializer(place.to, next, {
      setuid: place.setuid,
      owner: place.owner,
      special: false,
      onShortcoming: (shortcoming) => this.#shortcomings.push(shortcoming),
    })
    this.#own = new SafeDirectory(place.to)
    this.#replica = replicaAt(place.replica)
  }

  /** @throws space, io: no later file can succeed either; whatever `fetch` throws */
  async write(tasks: readonly FileTask[], fetch: FetchChunks): Promise<FilesDone> {
    this.#shortcomings = []
    const failed: { path: RelativePath; reason: string; isDamaged: boolean }[] = []
    const done: { kept: RelativePath[]; near: RelativePath[] } = { kept: [], near: [] }
    const far: FileTask[] = []
    for (const task of tasks) {
      if (this.#place.isResumed && this.#keep(task)) done.kept.push(task.path)
      else if (await this.#putNear(task)) done.near.push(task.path)
      else far.push(task)
    }
    const contents = fetch(far.flatMap(({ version }) => version.chunks))
    for (const task of far) {
      const reason = await this.#putFar(task, contents)
      if (reason !== undefined) failed.push({ path: task.path, ...reason })
    }
    await contents.return?.()
    return { failed, shortcomings: this.#shortcomings, ...done }
  }

  /** Whether the file is there already, to the last byte; its metadata is set in any case. */
  #keep({ at, version }: FileTask): boolean {
    this.#own.trim()
    const file = openPlain(this.#own, at)
    if (file === undefined) return false
    try {
      if (fstatSync(file).size !== version.size) return false
      let offset = 0
      for (const { digest, length } of version.chunks) {
        if (readChunk(file, offset, length, digest) === undefined) return false
        offset += length
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false
    } finally {
      closeSync(file)
    }
    this.#target.putMetadata(at, version)
    this.#onWritten(version.size)
    return true
  }

  /** False where the replica does not have it. */
  async #putNear({ path, at, version }: FileTask): Promise<boolean> {
    if (this.#replica === undefined) return false
    this.#replica.trim()
    const file = openPlain(this.#replica, path)
    if (file === undefined) return false
    const shortcomings = this.#shortcomings.length
    try {
      const { size, mtimeNs } = fstatSync(file, { bigint: true })
      if (size !== BigInt(version.size) || mtimeNs !== version.mtimeNs) return false
      let offset = 0
      let last: Buffer | undefined
      this.#next = (digest, length) => {
        // Whoever asks for the next chunk is done with the one before.
        if (last !== undefined) release(last)
        last = readChunk(file, offset, length, digest)
        if (last === undefined) throw new Differs()
        offset += length
        return last
      }
      await this.#target.put(at, version)
      this.#onWritten(version.size)
      return true
    } catch (error) {
      // Not as recorded any more, or not to be read: the packs know.
      if (isFatal(error)) throw this.#fatal(path, error)
      this.#shortcomings.length = shortcomings
      return false
    } finally {
      closeSync(file)
    }
  }

  /** Why it could not be written; undefined where it was. */
  async #putFar(
    { path, at, version }: FileTask,
    contents: AsyncIterator<ChunkResult>,
  ): Promise<{ reason: string; isDamaged: boolean } | undefined> {
    let left = version.chunks.length
    this.#next = async (digest, length) => {
      left -= 1
      const { done, value } = await contents.next()
      if (done === true) throw new PacsimileError('internal', 'The stream of content ended early')
      if ('failure' in value) throw new PacsimileError('damage', value.failure)
      if (value.bytes.length !== length || digestOf(value.bytes) !== digest)
        throw new PacsimileError('damage', 'Content arrived that is not what its digest names')
      return value.bytes
    }
    try {
      await this.#target.put(at, version)
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

export function replicaAt(directory: string | undefined): SafeDirectory | undefined {
  if (directory === undefined) return undefined
  try {
    return new SafeDirectory(directory)
  } catch {
    // It was an offer: without it all content comes from the packs.
    return undefined
  }
}

/** A regular file of the tree, or undefined. The name is not followed. */
export function openPlain(tree: SafeDirectory, path: RelativePath): number | undefined {
  let file: number | undefined
  try {
    file = openSync(pathBuffer(tree.at(path)), OPEN_FILE)
    if (fstatSync(file).isFile()) return file
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
  if (file !== undefined) closeSync(file)
  return undefined
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
