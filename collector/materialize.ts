/**
 * Making a path of a directory what a version says: the one place where replica and restore write files.
 *
 * Invariant: a file gets its name only when every byte of it was verified; what it replaces is replaced by rename(2), so
 * that a reader sees the old file or the new one. Metadata comes last. It prevents half-written files under real names.
 */
import { closeSync, constants, linkSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import { childOf, parentOf, pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import type { DeviceVersion, FileVersion, PlainVersion, SymlinkVersion, Version } from '../shared/version.ts'
import { holesOf } from '../shared/version-extensions.ts'
import { ContentCheck } from './content-check.ts'
import { type Draft, Drafts } from './drafts.ts'
import { HoleWriter } from './hole-writer.ts'
import { type MetadataOptions, MetadataWriter } from './metadata-writer.ts'
import { SafeDirectory } from './safe-directory.ts'
import { makeSpecialNode, type SpecialKind } from './special-node.ts'

export type ReadChunk = (name: Digest, length: number) => Buffer | Promise<Buffer>

/** Takes the next piece of a file's content; `known` is the digest that it was held against already. The piece's memory is free again when this returns. */
export type TakePiece = (piece: Buffer, known?: Digest) => void
/** Gives all of a file's content, front to back. */
export type GiveContent = (take: TakePiece) => void | Promise<void>

export interface MaterializeOptions extends MetadataOptions {
  /** Make fifos, sockets and device nodes; without it there is nothing where they were. */
  readonly special: boolean
  /** Most files are put where there is nothing. */
  readonly isNew?: boolean
}

type SpecialVersion = DeviceVersion | PlainVersion
type Kind = 'directory' | 'file' | 'other' | 'nothing'

export class Materializer {
  readonly #directory: SafeDirectory
  readonly #readChunk: ReadChunk
  readonly #options: MaterializeOptions
  readonly #metadata: MetadataWriter
  readonly #drafts: Drafts

  constructor(root: string, readChunk: ReadChunk, options: MaterializeOptions) {
    this.#directory = new SafeDirectory(root)
    this.#metadata = new MetadataWriter(options)
    this.#drafts = new Drafts(this.#directory, options.isNew === true)
    this.#readChunk = readChunk
    this.#options = options
  }

  get rootDescriptor(): number {
    return this.#directory.descriptor(ROOT)
  }

  close(): void {
    this.#directory.close()
  }

  /** By what a system call reaches a path that does not follow its last name. Good until the next operation. */
  nameOf(path: RelativePath): Buffer {
    this.#directory.trim()
    return this.#nameOf(path)
  }

  /** Makes `path` this version; its parent directories are made where they are missing. */
  async put(path: RelativePath, version: Version): Promise<void> {
    this.#prepare(path)
    switch (version.kind) {
      case 'directory':
        this.makeDirectory(path)
        this.finishDirectory(path, version)
        return
      case 'file':
        await this.#putFile(path, version, (take) => this.#giveChunks(version, take))
        return
      case 'symlink':
        this.#putSymlink(path, version)
        return
      case 'fifo':
      case 'socket':
      case 'character-device':
      case 'block-device':
        this.#putSpecial(path, version, version.kind)
    }
  }

  /** Makes a directory that only we may enter until `finishDirectory`. */
  makeDirectory(path: RelativePath): void {
    if (path === ROOT) return
    this.#directory.trim()
    const existing = this.#kindAt(path)
    if (existing === 'file' || existing === 'other') this.removeAll(path)
    if (existing !== 'directory') mkdirSync(pathBuffer(this.#directory.at(path)), 0o700)
  }

  /**
   * Makes `path` this file, of content from elsewhere: at once where `give` gives it at once, for with many small files a promise for each is
   * felt. @throws damage where it is not what the version names; nothing was changed then
   */
  putFile(path: RelativePath, version: FileVersion, give: GiveContent): void | Promise<void> {
    this.#prepare(path)
    return this.#putFile(path, version, give)
  }

  #prepare(path: RelativePath): void {
    this.#directory.trim()
    this.#directory.makeAbove(path)
  }

  async #giveChunks({ chunks }: FileVersion, take: TakePiece): Promise<void> {
    for (const { digest, length } of chunks) {
      const read = this.#readChunk(digest, length)
      take(read instanceof Promise ? await read : read, digest)
    }
  }

  #putFile(path: RelativePath, version: FileVersion, give: GiveContent): void | Promise<void> {
    const content = new ContentCheck(version)
    const draft = this.#drafts.open(path, version.mode)
    try {
      const writer = new HoleWriter(draft.fd, holesOf(version))
      const finish = (): void => {
        content.end()
        writer.end()
        this.#finishDraft(draft, path, version)
      }
      const given = give((piece, known) => {
        content.add(piece, known)
        writer.write(piece)
      })
      if (given === undefined) finish()
      else return this.#whenGiven(given, draft, finish)
    } catch (error) {
      this.#drafts.drop(draft)
      throw error
    }
  }

  async #whenGiven(given: Promise<void>, draft: Draft, finish: () => void): Promise<void> {
    try {
      await given
      finish()
    } catch (error) {
      this.#drafts.drop(draft)
      throw error
    }
  }

  #finishDraft(draft: Draft, path: RelativePath, version: FileVersion): void {
    this.#metadata.write(path, draft.fd, version)
    if (draft.at === undefined) {
      this.#linkInto(draft.fd, path)
      this.#drafts.close(draft)
    } else {
      // A filesystem of another host may say only here that it could not write.
      this.#drafts.close(draft)
      this.#moveInto(draft.at, path)
    }
  }

  /** Gives what has no name the one that it is to have, whatever has that now. */
  #linkInto(fd: number, path: RelativePath): void {
    try {
      this.#directory.linkOpen(fd, path)
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
      const temporary = this.#drafts.nameBeside(path)
      this.#directory.linkOpen(fd, temporary)
      try {
        this.#moveInto(temporary, path)
      } catch (failure) {
        this.#drafts.unlink(temporary)
        throw failure
      }
    }
  }

  /** Owner, mode, xattrs and times of a directory: after everything in it was written. */
  finishDirectory(path: RelativePath, version: Version): void {
    this.#directory.trim()
    this.#metadata.write(path, this.#directory.descriptor(path), version)
  }

  /** Makes `path` another name of `existing`, which was put before. */
  link(existing: RelativePath, path: RelativePath): void {
    this.#directory.trim()
    this.#directory.makeAbove(path)
    const temporary = this.#drafts.nameBeside(path)
    linkSync(this.#nameOf(existing), this.#nameOf(temporary))
    try {
      // rename(2) does nothing when both names are of one file; then the temporary name would stay.
      if (this.isSameFile(existing, path)) unlinkSync(this.#nameOf(temporary))
      else this.#moveInto(temporary, path)
    } catch (error) {
      this.#drafts.unlink(temporary)
      throw error
    }
  }

  /**
   * Gives a directory, with all below it, another name; what had that name is gone. False, and nothing done, where `from`
   * is no directory here.
   */
  renameDirectory(from: RelativePath, to: RelativePath): boolean {
    this.#directory.trim()
    if (this.#kindOrNothing(from) !== 'directory') return false
    const parent = parentOf(to)
    if (parent !== undefined) this.#directory.make(parent)
    this.removeAll(to)
    this.#directory.forget(from)
    renameSync(pathBuffer(this.#directory.at(from)), pathBuffer(this.#directory.at(to)))
    return true
  }

  isSameFile(a: RelativePath, b: RelativePath): boolean {
    const first = lstatSync(pathBuffer(this.#directory.at(a)), { bigint: true, throwIfNoEntry: false })
    const second = lstatSync(pathBuffer(this.#directory.at(b)), { bigint: true, throwIfNoEntry: false })
    return first !== undefined && second !== undefined && first.ino === second.ino && first.dev === second.dev
  }

  #putSymlink(path: RelativePath, version: SymlinkVersion): void {
    const temporary = this.#drafts.nameBeside(path)
    symlinkSync(pathBuffer(version.target), this.#nameOf(temporary))
    this.#finishByName(path, temporary, version)
  }

  #putSpecial(path: RelativePath, version: SpecialVersion, kind: SpecialKind): void {
    if (!this.#options.special) {
      // What was there before is gone, also where what has come is not made.
      this.removeAll(path)
      return
    }
    const temporary = this.#drafts.nameBeside(path)
    try {
      makeSpecialNode(this.#directory.at(temporary), kind, 'device' in version ? version.device : 0n)
    } catch (error) {
      // What was there is gone all the same.
      this.removeAll(path)
      throw error
    }
    this.#finishByName(path, temporary, version)
  }

  /** Metadata of what must not be opened, then its name. */
  #finishByName(path: RelativePath, temporary: RelativePath, version: SymlinkVersion | SpecialVersion): void {
    try {
      this.#metadata.writeUnopened(path, this.#directory.at(temporary), version)
      this.#moveInto(temporary, path)
    } catch (error) {
      this.#drafts.unlink(temporary)
      throw error
    }
  }

  #moveInto(temporary: RelativePath, path: RelativePath): void {
    try {
      this.#directory.rename(temporary, path)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno !== 'EISDIR' && errno !== 'ENOTEMPTY' && errno !== 'EEXIST') throw error
      this.removeAll(path)
      this.#directory.rename(temporary, path)
    }
  }

  #nameOf(path: RelativePath): Buffer {
    return pathBuffer(this.#directory.at(path))
  }

  #kindAt(path: RelativePath): Kind {
    const stat = lstatSync(pathBuffer(this.#directory.at(path)), { throwIfNoEntry: false })
    if (stat === undefined) return 'nothing'
    return stat.isDirectory() ? 'directory' : stat.isFile() ? 'file' : 'other'
  }

  /** Whether a regular file is there; false also where a directory above it is missing. */
  hasFile(path: RelativePath): boolean {
    this.#directory.trim()
    return this.#kindOrNothing(path) === 'file'
  }

  #kindOrNothing(path: RelativePath): Kind {
    try {
      return this.#kindAt(path)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return 'nothing'
    }
  }

  /** Removes a path and everything below it; nothing when it is not there. */
  removeAll(path: RelativePath): void {
    let kind: Kind
    try {
      kind = this.#kindAt(path)
    } catch (error) {
      // A directory above is gone or is none any more: so is the path.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR' || errnoOf(error) === 'ELOOP') return
      throw error
    }
    if (kind === 'nothing') return
    if (kind !== 'directory') {
      unlinkSync(pathBuffer(this.#directory.at(path)))
      return
    }
    for (const { name } of this.#list(path)) this.removeAll(childOf(path, name))
    this.#directory.forget(path)
    if (path !== ROOT) rmdirSync(pathBuffer(this.#directory.at(path)))
  }

  /** Names in a directory of this tree. */
  list(directory: RelativePath): { name: ByteString; isDirectory: boolean }[] {
    this.#directory.trim()
    return this.#list(directory)
  }

  #list(directory: RelativePath): { name: ByteString; isDirectory: boolean }[] {
    const at = pathBuffer(`/proc/self/fd/${this.#directory.descriptor(directory)}`)
    return readdirSync(at, { encoding: 'buffer', withFileTypes: true }).map((entry) => ({
      name: entry.name.toString('latin1'),
      isDirectory: entry.isDirectory(),
    }))
  }

  /** Sets a file's metadata where its content is right already. The caller knows that a regular file is there. */
  putMetadata(path: RelativePath, version: Version): void {
    this.#directory.trim()
    const fd = this.#directory.open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      this.#metadata.write(path, fd, version)
    } finally {
      closeSync(fd)
    }
  }
}
