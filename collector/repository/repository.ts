/**
 * One place of the repository on a filesystem: packs of chunks and segments of records, the truth.
 *
 *     repository.json          what it is: format, id, chunk sizes
 *     keys/ID.json             the data key, wrapped (keys.ts)
 *     packs/XX/NUMBER.pack     chunks; XX are the last two hex digits of the number
 *     segments/XX/NUMBER.seg   records of all agents, in the order in which they became durable
 *
 * Invariant: `commit` makes chunks durable before the records that name them are written. A crash may leave a phantom
 * (a chunk that no record names, records that nobody was told of), never a hole (a record without its chunks).
 */

import { createSecretKey, type KeyObject } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'

import type { ChunkSizes } from '../../shared/chunker.ts'
import type { Digest } from '../../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../../shared/errors.ts'
import { createFileDurably, makeDirectory, syncDirectory } from '../../shared/files.ts'
import { CHUNK_BYTES_MAX, PACK_BYTES_TARGET, SEGMENT_BYTES_TARGET } from '../../shared/limits.ts'
import { type Label } from '../../shared/path.ts'
import { nameOf } from './copy.ts'
import { type FrameFileKind } from './file-header.ts'
import { type Payload, packPayload } from './frame.ts'
import { FrameFile, type FramePlace } from './frame-file.ts'
import { reopenFull } from './full-file.ts'
import type { ParityShape } from './parity.ts'
import { parityOf } from './parity-thread.ts'
import { encodeRecordGroup, type RecordGroup } from './record-group.ts'

const FORMAT_NAME = 'pacsimile repository'
const FORMAT_VERSION = 1
/** Files kept open for reading. */
const OPEN_FILES_MAX = 64
/** Full files that may wait to be sealed. */
const UNSEALED_MAX = 4

/** Looked at first: what else a later version says is not ours to judge. */
const formatOf = z.object({ format: z.literal(FORMAT_NAME), version: z.number().int() })

const description = z.object({
  format: z.literal(FORMAT_NAME),
  version: z.number().int(),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  created: z.string(),
  chunkSizes: z.object({
    min: z.number().int().min(1024),
    average: z.number().int().min(1024),
    max: z.number().int().max(CHUNK_BYTES_MAX),
  }),
})

export type RepositoryDescription = z.output<typeof description>

/** A place up to which a reader has read one kind of file. */
export interface ReadPosition {
  readonly file: number
  readonly offset: number
}

/** `ended`: it was given up and will not be sealed. */
export interface FileExtent {
  readonly bytes: number
  readonly state: 'sealing' | 'sealed' | 'ended'
}

/** How full files are sealed. */
export interface Sealing {
  /** None without. */
  readonly parity?: ParityShape | undefined
  /** A file could not be sealed; it holds what it holds. */
  readonly onUnsealed?: (path: string, error: PacsimileError) => void
}

export const READ_FROM_START: ReadPosition = { file: 0, offset: 0 }

/** @throws not-found, format-unknown, format-invalid */
export function readDescription(directory: string): RepositoryDescription {
  const file = join(directory, 'repository.json')
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT')
      throw new PacsimileError('not-found', `${directory} is not a repository: it has no repository.json`, { cause: error })
    throw asPacsimileError(error, `Reading ${file}`)
  }
  try {
    const value: unknown = JSON.parse(text)
    const { version } = formatOf.parse(value)
    if (version !== FORMAT_VERSION)
      throw new PacsimileError(
        'format-unknown',
        `${directory} is a repository of format ${version}; this release reads format ${FORMAT_VERSION}`,
      )
    return description.parse(value)
  } catch (error) {
    if (error instanceof PacsimileError) throw error
    throw new PacsimileError('format-invalid', `${file} does not describe a repository: ${reasonOf(error)}`, { cause: error })
  }
}

export class Repository {
  readonly directory: string
  readonly description: RepositoryDescription
  readonly #dataKey: KeyObject
  readonly #readers = new Map<string, FrameFile>()
  #pack: FrameFile | undefined
  #segment: FrameFile | undefined
  #isEnding = false
  readonly #sealAs: Sealing
  /** Files that are full, sealed one after the other while others are written. */
  #sealing: Promise<void> = Promise.resolve()
  readonly #unsealed = new Set<string>()
  /** Files that were closed and are not sealed: how far each is durable. */
  readonly #ended = new Map<string, number>()

  private constructor(directory: string, about: RepositoryDescription, dataKey: Buffer, sealAs: Sealing = {}) {
    this.directory = directory
    this.#sealAs = sealAs
    this.description = about
    this.#dataKey = createSecretKey(dataKey)
  }

  /** Makes an empty repository; its key slots are made beside it (keys.ts). */
  static create(directory: string, about: { readonly id: string; readonly chunkSizes: ChunkSizes }): void {
    makeDirectory(directory)
    for (const kind of ['packs', 'segments', 'keys']) makeDirectory(join(directory, kind))
    const value: RepositoryDescription = {
      format: FORMAT_NAME,
      version: FORMAT_VERSION,
      id: about.id,
      created: new Date().toISOString(),
      chunkSizes: { ...about.chunkSizes },
    }
    createFileDurably(join(directory, 'repository.json'), `${JSON.stringify(value, null, 2)}\n`, 0o644)
  }

  /** Opens for reading; beside a running collector too. */
  static open(directory: string, dataKey: Buffer): Repository {
    return new Repository(directory, readDescription(directory), dataKey)
  }

  /**
   * Opens for reading and appending; the caller holds the lock of its data directory. Cuts torn tails, but nothing before
   * the places in `durable`, up to which the files are known to have been durable. Full files are sealed as `sealAs`
   * says.
   */
  static openForAppending(
    directory: string,
    dataKey: Buffer,
    durable: { readonly packs: ReadPosition; readonly segments: ReadPosition } = { packs: READ_FROM_START, segments: READ_FROM_START },
    sealAs: Sealing = {},
  ): Repository {
    const repository = new Repository(directory, readDescription(directory), dataKey, sealAs)
    repository.#sealFull('pack', PACK_BYTES_TARGET)
    repository.#sealFull('segment', SEGMENT_BYTES_TARGET)
    repository.#pack = repository.#reopenNewest('pack', durable.packs)
    repository.#segment = repository.#reopenNewest('segment', durable.segments)
    return repository
  }

  get id(): string {
    return this.description.id
  }

  // ---- files -------------------------------------------------------------------------------------------------------

  pathOf(kind: FrameFileKind, number: number): string {
    return join(this.directory, nameOf(kind, number))
  }

  /** The numbers of the files of a kind, rising. */
  numbers(kind: FrameFileKind): number[] {
    const root = join(this.directory, `${kind}s`)
    const found: number[] = []
    for (const shelf of readdirSync(root)) {
      if (!/^[0-9a-f]{2}$/.test(shelf)) continue
      for (const name of readdirSync(join(root, shelf))) {
        const match = /^([0-9a-f]{12})\.(pack|seg)$/.exec(name)
        if (match?.[1] !== undefined) found.push(Number.parseInt(match[1], 16))
      }
    }
    return found.sort((a, b) => a - b)
  }

  /** In bytes; 0 where it is not there any more. */
  sizeOf(kind: FrameFileKind, number: number): number {
    return statSync(this.pathOf(kind, number), { throwIfNoEntry: false })?.size ?? 0
  }

  /** Another file is at its path now. */
  forget(kind: FrameFileKind, number: number): void {
    const path = this.pathOf(kind, number)
    this.#readers.get(path)?.close()
    this.#readers.delete(path)
  }

  /** A file opened for reading. Kept open; closed by `close` or when many others were used since. @throws io, damage */
  file(kind: FrameFileKind, number: number): FrameFile {
    const path = this.pathOf(kind, number)
    const known = this.#readers.get(path)
    if (known !== undefined) {
      this.#readers.delete(path)
      this.#readers.set(path, known)
      return known
    }
    const opened = FrameFile.open(path, { kind, repository: this.id, number }, this.#dataKey)
    this.#readers.set(path, opened)
    const oldest = this.#readers.size > OPEN_FILES_MAX ? this.#readers.entries().next().value : undefined
    if (oldest !== undefined) {
      this.#readers.delete(oldest[0])
      oldest[1].close()
    }
    return opened
  }

  #reopenNewest(kind: FrameFileKind, durable: ReadPosition): FrameFile | undefined {
    const number = this.numbers(kind).at(-1)
    if (number === undefined) return undefined
    try {
      const [about, from] = [{ kind, repository: this.id, number }, number === durable.file ? durable.offset : 0]
      if (number >= durable.file) return FrameFile.reopen(this.pathOf(kind, number), about, this.#dataKey, from)
      // It was full, and what is appended to it would not be read again: only its sealing was cut short.
      this.#sealCutShort(kind, number)
      return undefined
    } catch (error) {
      // A file whose very header is damaged, or was never completed: nothing is appended to it, `check` reports it.
      if (error instanceof PacsimileError && error.code === 'damage') return undefined
      throw error
    }
  }

  /** Others were begun behind these before their sealing was cut short, or failed. */
  #sealFull(kind: FrameFileKind, target: number): void {
    for (const number of this.numbers(kind).slice(0, -1)) {
      const extent = this.extentOf(kind, number)
      if (extent?.state === 'ended' && extent.bytes >= target) this.#sealCutShort(kind, number)
    }
  }

  #sealCutShort(kind: FrameFileKind, number: number): void {
    const full = reopenFull(this.pathOf(kind, number), { kind, repository: this.id, number }, this.#dataKey)
    if (full !== undefined) this.#sealLater(full)
  }

  #begin(kind: FrameFileKind): FrameFile {
    const number = (this.numbers(kind).at(-1) ?? 0) + 1
    const path = this.pathOf(kind, number)
    const shelf = join(path, '..')
    if (!existsSync(shelf)) {
      mkdirSync(shelf, { mode: 0o700 })
      syncDirectory(join(shelf, '..'))
    }
    return FrameFile.create(path, { kind, repository: this.id, number }, this.#dataKey)
  }

  // ---- writing -----------------------------------------------------------------------------------------------------

  /** Queues a chunk; durable after the next `commit`. */
  appendChunk(payload: Payload): FramePlace {
    this.#pack ??= this.#begin('pack')
    return this.#pack.append('chunk', payload)
  }

  /**
   * The commit: chunks queued before become durable, then the given records are written and made durable, then the entries of the
   * ledger, which stand behind all that they speak of.
   */
  async commit(groups: readonly RecordGroup[], ledger: readonly Uint8Array[] = []): Promise<void> {
    if (this.#pack !== undefined) await this.#pack.sync()
    if (groups.length > 0) {
      this.#segment ??= this.#begin('segment')
      // A power cut may lose any frame that was not synced and keep a later one: of one agent, that would leave a hole.
      const unsynced = new Set<Label>()
      for (const group of groups) {
        if (unsynced.has(group.agent)) {
          await this.#segment.sync()
          unsynced.clear()
        }
        unsynced.add(group.agent)
        this.#segment.append('records', packPayload(encodeRecordGroup(group)))
      }
      await this.#segment.sync()
    }
    if (ledger.length > 0) {
      this.#segment ??= this.#begin('segment')
      for (const entry of ledger) this.#segment.append('ledger', packPayload(entry))
      await this.#segment.sync()
    }
    this.#rollOver()
    if (this.#isEnding) this.abandonOpenFiles()
    // More is not taken than can be sealed: each file that waits is held open, with its index.
    if (this.#unsealed.size > UNSEALED_MAX) await this.#sealing
  }

  /** With the next commit the files that are being written end as they are, and others are begun: they are to be repaired. */
  endOpenFiles(): void {
    this.#isEnding = true
  }

  /**
   * After a failed commit: what was being written is left as it is and never written to again (after a failed fsync the
   * kernel may have dropped what it reports as written); the next append begins new files.
   */
  abandonOpenFiles(): void {
    for (const file of [this.#pack, this.#segment]) {
      if (file !== undefined) this.#ended.set(file.path, file.durable)
      file?.close()
    }
    this.#pack = undefined
    this.#segment = undefined
    this.#isEnding = false
  }

  #rollOver(): void {
    if (this.#pack !== undefined && this.#pack.size >= PACK_BYTES_TARGET) {
      this.#sealLater(this.#pack)
      this.#pack = undefined
    }
    if (this.#segment !== undefined && this.#segment.size >= SEGMENT_BYTES_TARGET) {
      this.#sealLater(this.#segment)
      this.#segment = undefined
    }
  }

  /** Parity takes its time; nobody's acknowledgement waits for it. */
  #sealLater(file: FrameFile): void {
    this.#unsealed.add(file.path)
    this.#ended.set(file.path, file.size)
    this.#sealing = this.#sealing.then(() => this.#seal(file))
  }

  async #seal(file: FrameFile): Promise<void> {
    const { parity, onUnsealed } = this.#sealAs
    try {
      await file.seal(parity === undefined ? undefined : parityOf(parity))
      this.#ended.delete(file.path)
    } catch (error) {
      // It holds what was committed all the same, and is read front to back; `scrub` counts it among those without parity.
      onUnsealed?.(file.path, asPacsimileError(error, `Sealing ${file.path}`))
    } finally {
      file.close()
      this.#unsealed.delete(file.path)
    }
  }

  /** Resolves when the files that were full by now are sealed, or cannot be. */
  sealed(): Promise<void> {
    return this.#sealing
  }

  /** How far the files reach that were made durable, for a reader that catches up later. */
  end(kind: FrameFileKind): ReadPosition {
    const open = kind === 'pack' ? this.#pack : this.#segment
    if (open !== undefined) return { file: open.identity.number, offset: open.size }
    return { file: (this.numbers(kind).at(-1) ?? 0) + 1, offset: 0 }
  }

  /** How far a file is durable that nothing is appended to any more; undefined where it is not there. */
  extentOf(kind: FrameFileKind, number: number): FileExtent | undefined {
    const path = this.pathOf(kind, number)
    const found = statSync(path, { throwIfNoEntry: false })
    if (found === undefined) return undefined
    const ended = this.#ended.get(path)
    if (ended !== undefined) return { bytes: ended, state: this.#unsealed.has(path) ? 'sealing' : 'ended' }
    return { bytes: found.size, state: (found.mode & 0o222) === 0 ? 'sealed' : 'ended' }
  }

  // ---- reading -----------------------------------------------------------------------------------------------------

  /** @throws damage, io */
  readChunk({ file, offset, storedLength }: FramePlace, name: Digest): Buffer {
    return this.#readPack(file, (pack) => pack.read(offset, storedLength, name))
  }

  /** As it is stored, for another pack; verified. @throws damage, io */
  readPayload({ file, offset, storedLength }: FramePlace, name: Digest): Payload {
    return this.#readPack(file, (pack) => pack.readPayload(offset, storedLength, name))
  }

  #readPack<Content>(number: number, read: (pack: FrameFile) => Content): Content {
    try {
      return read(this.file('pack', number))
    } catch (error) {
      if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
      // It may have been repaired since it was opened.
      this.forget('pack', number)
      return read(this.file('pack', number))
    }
  }

  close(): void {
    for (const file of this.#readers.values()) file.close()
    this.#readers.clear()
    this.abandonOpenFiles()
  }
}
