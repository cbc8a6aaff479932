/**
 * A copy in a directory: a repository as any other, which `--repository` reads as it is.
 *
 * Files grow by appending and fdatasync; one that is finished has mode 0400. Invariant: before and after every write
 * `writer.json` is what it was when the writer began, so that what another one finds once it has written its name there is all
 * that ever counted. A directory without `repository.json` is none. It prevents the empty mount point of a disk that is away
 * from being taken for a copy that is to be begun anew. Nothing here is synchronous: a disk that hangs holds up nobody else.
 */
import { createHash, randomBytes } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { type FileHandle, link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { asPacsimileError, errnoOf, PacsimileError } from '../../shared/errors.ts'
import { TEMPORARY_PREFIX } from '../../shared/files.ts'
import {
  type ByteSource,
  COPIED_KINDS,
  type CopiedFile,
  type Copy,
  commonBytes,
  DESCRIPTION_NAME,
  fenced,
  KEYS_PREFIX,
  piecesOf,
  prefixOf,
  requireSmall,
  type SmallFile,
  sourceOf,
} from './copy.ts'
import { withLockFile } from './copy-lock.ts'
import { LocalFile } from './local-file.ts'

const FINISHED_MODE = 0o400
const WRITABLE_BITS = 0o222
const WRITER_NAME = 'writer.json'
/** What may stand where a copy was being begun. */
const OWN_NAMES = new Set(['packs', 'segments', 'keys', WRITER_NAME, 'lost+found'])
/** Tells what this process has on its way from what another one has left. */
const SESSION = randomBytes(3).toString('hex')

export class FsCopy implements Copy {
  readonly url: string
  readonly #directory: string
  /** What `writer.json` was when this one wrote it. */
  #writer: string | undefined
  readonly #isNew: boolean

  private constructor(directory: string, isNew: boolean) {
    this.url = `fs:${directory}`
    this.#directory = directory
    this.#isNew = isNew
  }

  /** @throws not-found where there is no copy, or its disk is away */
  static async open(directory: string): Promise<FsCopy> {
    const copy = new FsCopy(directory, false)
    await copy.#requireRepository()
    return copy
  }

  /** To begin a copy there, or to go on with one. @throws target-not-empty */
  static async begin(directory: string): Promise<FsCopy> {
    const copy = new FsCopy(directory, true)
    const others = (await copy.#entries()).filter((name) => !OWN_NAMES.has(name) && !name.startsWith(TEMPORARY_PREFIX))
    if (others[0] !== undefined && (await copy.#stat(DESCRIPTION_NAME)) === undefined)
      throw new PacsimileError('target-not-empty', `${directory} is no copy, and holds ${others.slice(0, 3).join(', ')}`)
    for (const below of ['', KEYS_PREFIX, ...COPIED_KINDS.map(prefixOf)]) await makeDirectory(join(directory, below), true)
    return copy
  }

  async #requireRepository(): Promise<void> {
    if ((await this.#stat(DESCRIPTION_NAME)) !== undefined) return
    throw new PacsimileError('not-found', `There is no copy in ${this.#directory}: it has no ${DESCRIPTION_NAME}. Is its disk mounted?`)
  }

  #path(name: string): string {
    return join(this.#directory, name)
  }

  /** A file that was being written may be as large as any, and a key slot opens under whatever name. */
  async clear(): Promise<void> {
    const isLeft = (name: string): boolean => /-[0-9a-f]{12}$/.test(name) && !name.slice(-12).startsWith(SESSION)
    try {
      const entries = await readdir(this.#directory, { recursive: true, withFileTypes: true })
      const left = entries.filter((entry) => entry.isFile() && entry.name.startsWith(TEMPORARY_PREFIX) && isLeft(entry.name))
      for (const { parentPath, name } of left) await unlink(join(parentPath, name))
      for (const directory of new Set(left.map(({ parentPath }) => parentPath))) await syncDirectory(directory)
    } catch (error) {
      throw asPacsimileError(error, `Removing what was left in ${this.#directory}`)
    }
  }

  localPath(name: string): string {
    return this.#path(name)
  }

  async #stat(name: string): Promise<Stats | undefined> {
    try {
      return await stat(this.#path(name))
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined
      throw asPacsimileError(error, `Looking for ${this.#path(name)}`)
    }
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<CopiedFile> {
    const names = prefix.endsWith('/') ? await this.#below(prefix) : [prefix]
    // A disk that went away meanwhile is not empty.
    if (!this.#isNew) await this.#requireRepository()
    for (const name of names) {
      signal?.throwIfAborted()
      const found = await this.#stat(name)
      if (found?.isFile() !== true) continue
      yield { name, bytes: found.size, isFinished: isFinished(found), isFenced: false, modifiedMs: found.mtimeMs }
    }
  }

  async #entries(): Promise<string[]> {
    try {
      return await readdir(this.#directory)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw asPacsimileError(error, `Looking into ${this.#directory}`)
    }
  }

  async #below(prefix: string): Promise<string[]> {
    try {
      const entries = await readdir(this.#path(prefix), { recursive: true, withFileTypes: true })
      return entries
        .filter((entry) => entry.isFile() && !entry.name.startsWith(TEMPORARY_PREFIX))
        .map((entry) => join(entry.parentPath, entry.name).slice(this.#directory.length + 1))
        .sort()
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw asPacsimileError(error, `Listing ${this.url}`)
    }
  }

  async read(name: string, offset: number, length: number): Promise<Buffer> {
    await using file = await LocalFile.open(this.#path(name))
    return offset >= file.bytes ? Buffer.alloc(0) : await file.read(offset, length)
  }

  async #requireWriter(): Promise<void> {
    const found = await this.find(WRITER_NAME)
    if (found === undefined) throw new PacsimileError('io', `There is no ${WRITER_NAME} in ${this.#directory}. Is its disk mounted?`)
    if (this.#writer !== undefined && found.version !== this.#writer) throw fenced(this.url, `its ${WRITER_NAME} is another one now`)
  }

  /** A write, between two looks at who the writer is. */
  async #written(name: string, write: () => Promise<void>): Promise<void> {
    if (name !== WRITER_NAME) await this.#requireWriter()
    try {
      await write()
    } catch (error) {
      throw asPacsimileError(error, `Writing ${this.#path(name)}`)
    }
    if (name !== WRITER_NAME) await this.#requireWriter()
  }

  append(name: string, offset: number, bytes: Buffer): Promise<void> {
    if (offset === 0) return this.#written(name, () => this.#begin(name, 0o600, sourceOf(bytes)))
    return this.#written(name, () => this.#append(name, offset, (file) => writeFully(file, bytes, offset)))
  }

  /** A file has its name only with what it begins with: whoever reads the copy meets none without a header. */
  async #begin(name: string, mode: number, source: ByteSource, signal?: AbortSignal): Promise<void> {
    // Only the last level: where the copy is away, nothing is to be made in its place.
    await makeDirectory(dirname(this.#path(name)), false)
    const found = await this.#stat(name)
    if (found !== undefined && found.size > 0) throw fenced(this.url, `${name} has ${found.size} bytes instead of 0`)
    const place = found === undefined ? link : rename
    await this.#withTemporary(name, mode, source, (temporary) => place(temporary, this.#path(name)), signal)
  }

  async #append(name: string, offset: number, write: (file: FileHandle) => Promise<void>): Promise<void> {
    const path = this.#path(name)
    const file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW)
    try {
      const found = await file.stat()
      if (found.size !== offset || isFinished(found)) throw fenced(this.url, `${name} has ${found.size} bytes instead of ${offset}`)
      await write(file)
      await file.datasync()
    } finally {
      await file.close()
    }
  }

  async finish(name: string, source: ByteSource, signal?: AbortSignal): Promise<void> {
    const found = await this.#stat(name)
    if (found !== undefined && isFinished(found)) {
      await using present = await LocalFile.open(this.#path(name))
      if (present.bytes === source.bytes && (await commonBytes(present, source)) === source.bytes) return
      throw fenced(this.url, `${name} is finished there, and another one`)
    }
    const from = found?.size ?? 0
    if (from > source.bytes) throw fenced(this.url, `${name} has ${from} bytes instead of ${source.bytes}`)
    if (from === 0) {
      await this.#written(name, () => this.#begin(name, FINISHED_MODE, source, signal))
      return
    }
    await this.#written(name, () =>
      this.#append(name, from, async (file) => {
        await writePieces(file, source, from, signal)
        await file.datasync()
        await file.chmod(FINISHED_MODE)
        await file.sync()
      }),
    )
  }

  /** To nothing: the file goes, so that whoever reads the copy meets none without a header. */
  async cut(name: string, bytes: number): Promise<number> {
    if (bytes === 0) {
      await this.remove(name)
      return 0
    }
    await this.#written(name, async () => {
      const file = await open(this.#path(name), constants.O_WRONLY | constants.O_NOFOLLOW)
      try {
        if ((await file.stat()).size > bytes) await file.truncate(bytes)
        await file.sync()
      } finally {
        await file.close()
      }
    })
    return bytes
  }

  replace(name: string, source: ByteSource): Promise<void> {
    return this.#written(name, async () => {
      await makeDirectory(dirname(this.#path(name)), false)
      await this.#withTemporary(name, FINISHED_MODE, source, (temporary) => rename(temporary, this.#path(name)))
    })
  }

  /** Whoever is writing still does so into a file that is nobody's any more, and finds another `writer.json` then. */
  async fence(name: string, offset: number): Promise<boolean> {
    if (offset === 0) return true
    await using present = await LocalFile.open(this.#path(name), offset)
    await this.#written(name, () => this.#withTemporary(name, 0o600, present, (temporary) => rename(temporary, this.#path(name))))
    return true
  }

  async find(name: string): Promise<SmallFile | undefined> {
    try {
      requireSmall(this.#path(name), (await this.#stat(name))?.size ?? 0)
      const bytes = await readFile(this.#path(name))
      return { bytes, version: versionOf(bytes) }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw asPacsimileError(error, `Reading ${this.#path(name)}`)
    }
  }

  async write(name: string, bytes: Buffer, over: SmallFile | 'nothing' | 'anything'): Promise<void> {
    const put = (place: (temporary: string) => Promise<void>): Promise<void> => this.#withTemporary(name, 0o600, sourceOf(bytes), place)
    await this.#written(name, async () => {
      if (over === 'nothing') await put((temporary) => this.#linkNew(temporary, name, bytes))
      else if (over === 'anything') await put((temporary) => rename(temporary, this.#path(name)))
      else await this.#locked(name, over, () => put((temporary) => rename(temporary, this.#path(name))))
    })
    if (name === WRITER_NAME) this.#writer = versionOf(bytes)
  }

  /** Writes a file beside, durably, and then gives it its name. */
  async #withTemporary(
    name: string,
    mode: number,
    source: ByteSource,
    place: (temporary: string) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    const path = this.#path(name)
    const temporary = join(dirname(path), `${TEMPORARY_PREFIX}${basename(path)}-${SESSION}${randomBytes(3).toString('hex')}`)
    try {
      const file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
      try {
        await writePieces(file, source, 0, signal)
        await file.chmod(mode)
        await file.sync()
      } finally {
        await file.close()
      }
      await place(temporary)
    } finally {
      await rm(temporary, { force: true })
    }
    await syncDirectory(dirname(path))
  }

  /** link(2) fails where the name exists; rename(2) would replace it. */
  async #linkNew(temporary: string, name: string, bytes: Buffer): Promise<void> {
    try {
      await link(temporary, this.#path(name))
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
      if ((await this.find(name))?.bytes.equals(bytes) !== true) throw fenced(this.url, `${name} was made there meanwhile`)
    }
  }

  /** Of several that saw the same version, one may replace it. */
  #locked(name: string, over: SmallFile, replace: () => Promise<void>): Promise<void> {
    const draft = this.#path(`${TEMPORARY_PREFIX}${basename(name)}-${SESSION}`)
    const lock = this.#path(`${TEMPORARY_PREFIX}${basename(name)}-lock`)
    return withLockFile(lock, draft, `${this.url}: ${name}`, async () => {
      if ((await this.find(name))?.version !== over.version) throw fenced(this.url, `${name} is another one than it was`)
      await replace()
    })
  }

  remove(name: string): Promise<void> {
    return this.#written(name, async () => {
      await rm(this.#path(name), { force: true })
      if ((await this.#stat(dirname(name))) !== undefined) await syncDirectory(dirname(this.#path(name)))
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve()
  }
}

function isFinished({ mode }: Stats): boolean {
  return (mode & WRITABLE_BITS) === 0
}

function versionOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function writePieces(file: FileHandle, source: ByteSource, from: number, signal?: AbortSignal): Promise<void> {
  let at = from
  for await (const piece of piecesOf(source, from)) {
    signal?.throwIfAborted()
    await writeFully(file, piece, at)
    at += piece.length
  }
}

async function writeFully(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Durably; with its parents only where that is asked for, and not by Node's recursive mkdir (shared/files.ts, `makeDirectories`). */
async function makeDirectory(directory: string, withParents: boolean): Promise<void> {
  const parent = dirname(directory)
  try {
    await mkdir(directory, { mode: 0o700 })
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'EEXIST') return
    if (errno !== 'ENOENT' || !withParents || parent === directory) throw asPacsimileError(error, `Making the directory ${directory}`)
    await makeDirectory(parent, true)
    await makeDirectory(directory, false)
    return
  }
  await syncDirectory(parent)
}
