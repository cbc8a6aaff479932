/**
 * A past moment as a directory: the kernel's questions read from /dev/fuse, answered from a history.
 *
 * Speaks the kernel's protocol itself (fuse-messages.ts), read-only. Invariant: every question that wants an answer gets one, and what cannot be had is an
 * error that is told by name (`onTrouble`), never other bytes. It prevents a program that hangs on a damaged image, or shows a part of it as
 * the whole. While it runs this process must not look into its own mount: it would wait for itself.
 */
import { close as closeFile, open as openFile, read as readFile, writevSync } from 'node:fs'
import { constants } from 'node:os'
import { promisify } from 'node:util'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { NAME_BYTES_MAX } from '../shared/limits.ts'
import { nameOf, showPath } from '../shared/path.ts'
import type { Version } from '../shared/version.ts'
import {
  type Attributes,
  answerHeader,
  attributesAnswer,
  CACHE_DIRECTORY,
  DirectoryAnswer,
  entryAnswer,
  type FuseRequest,
  forgotten,
  handleIn,
  initAnswer,
  interrupted,
  KEEP_CACHE,
  nameIn,
  openAnswer,
  REQUEST_BYTES_MAX,
  readAsked,
  readRequest,
  seekAnswer,
  seekAsked,
  sizeAnswer,
  statfsAnswer,
  xattrAsked,
} from './fuse-messages.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { mountCalls } from './mount-calls.ts'
import { letReadAhead } from './mount-read-ahead.ts'
import { MountedContent, type OpenFile } from './mounted-content.ts'
import { dataFrom, holeFrom } from './mounted-holes.ts'
import { attributesOf, inodeOf, type MountedPlace, MountedTree, modeOf } from './mounted-tree.ts'

const { ENOENT, ENODATA, ERANGE, EIO, EBADF, EINTR, ENXIO, EINVAL, ENOSYS } = constants.errno
const DEVICE = '/dev/fuse'
const SEEK_DATA = 3
const SEEK_HOLE = 4
/** Troubles that are told of; a tree that is all damaged would say nothing else. */
const TOLD_MAX = 1000

export interface MountRequest extends MountedPlace {
  /** Absolute path of an empty directory. */
  readonly directory: string
  /** Other users than this process's may look too, each as far as the recorded modes let him. */
  readonly allowOther: boolean
  /** Content that was torn when it was captured may be read. */
  readonly torn: boolean
  /** Something that somebody wanted and did not get. */
  readonly onTrouble: (message: string) => void
}

const open = promisify(openFile)
const close = promisify(closeFile)

/** A failure that is the answer. */
class Refused extends Error {
  readonly errno: number

  constructor(errno: number) {
    super(`errno ${errno}`)
    this.errno = errno
  }
}

/** The pieces of an answer, or undefined where none is wanted. */
type Answer = readonly Buffer[] | undefined

export class Mount implements AsyncDisposable {
  readonly #request: MountRequest
  readonly #fd: number
  readonly #tree: MountedTree
  readonly #content: MountedContent
  readonly #files = new Map<number, OpenFile>()
  readonly #directories = new Map<number, readonly ListedEntry[]>()
  /** Questions that are being worked on. */
  readonly #pending = new Set<bigint>()
  readonly #told = new Set<string>()
  #nextHandle = 1
  #isMounted = true

  private constructor(request: MountRequest, fd: number, tree: MountedTree, content: MountedContent) {
    this.#request = request
    this.#fd = fd
    this.#tree = tree
    this.#content = content
  }

  /** Mounted when this resolves; whoever looks waits until `run` answers. @throws unsupported, io */
  static async open(source: HistorySource, request: MountRequest): Promise<Mount> {
    const calls = mountCalls
    if (calls === undefined) throw new PacsimileError('unsupported', 'Only Linux mounts')
    const { agent, volume, directory, allowOther } = request
    const content = await MountedContent.open(source, await source.replicaDirectory(agent, volume))
    let fd: number | undefined
    try {
      fd = await open(DEVICE, 'r+')
      const ids = `user_id=${process.getuid?.() ?? 0},group_id=${process.getgid?.() ?? 0}`
      const options = `fd=${fd},rootmode=40000,${ids},default_permissions${allowOther ? ',allow_other' : ''}`
      calls.mountFuse(`${agent}:${volume}`, directory, options)
      letReadAhead(directory)
      return new Mount(request, fd, new MountedTree(source, request), content)
    } catch (error) {
      if (fd !== undefined) await close(fd)
      await content[Symbol.asyncDispose]()
      throw mountError(error, directory)
    }
  }

  /** Answers until it is unmounted, by whomever. @throws io */
  async run(): Promise<void> {
    const bytes = Buffer.alloc(REQUEST_BYTES_MAX)
    for (;;) {
      const length = await this.#receive(bytes)
      if (length === undefined) break
      // In memory of its own: the next one comes while this one is worked on.
      if (length > 0) void this.#serve(readRequest(Buffer.from(bytes.subarray(0, length))))
    }
    this.#isMounted = false
  }

  /** Whether it is: false while somebody uses it, unless by `force`, which gives him errors. @throws io */
  unmount(force: boolean): boolean {
    if (!this.#isMounted) return true
    try {
      mountCalls?.unmount(this.#request.directory, force)
      return true
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === 'EBUSY') return false
      // Somebody else has.
      if (errno === 'EINVAL' || errno === 'ENOENT') return true
      throw asPacsimileError(error, `Unmounting ${this.#request.directory}`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Where answering failed: better no mount than a dead one.
    this.unmount(true)
    await close(this.#fd)
    await this.#content[Symbol.asyncDispose]()
  }

  /** Undefined: it was unmounted. 0: there was nothing to take after all. */
  #receive(into: Buffer): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      readFile(this.#fd, into, 0, into.length, null, (error, length) => {
        if (error === null) resolve(length)
        else if (error.code === 'ENODEV') resolve(undefined)
        // Interrupted before it was read, or there was nothing.
        else if (error.code === 'ENOENT' || error.code === 'EINTR' || error.code === 'EAGAIN') resolve(0)
        else reject(asPacsimileError(error, `Reading ${DEVICE}`))
      })
    })
  }

  async #serve(request: FuseRequest): Promise<void> {
    const { unique, opcode } = request
    if (opcode === 'interrupt') {
      // Whoever waited is gone: what he asked for is read all the same, for the next.
      const asked = interrupted(request.body)
      if (this.#pending.delete(asked)) this.#send(asked, EINTR, [])
      return
    }
    this.#pending.add(unique)
    try {
      const answer = await this.#answer(request)
      if (this.#pending.delete(unique) && answer !== undefined) this.#send(unique, 0, answer)
    } catch (error) {
      const errno = error instanceof Refused ? error.errno : EIO
      if (!(error instanceof Refused)) this.#tell(reasonOf(error))
      if (this.#pending.delete(unique)) this.#send(unique, errno, [])
    }
  }

  #send(unique: bigint, errno: number, pieces: readonly Buffer[]): void {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0)
    try {
      writevSync(this.#fd, [answerHeader(unique, errno, length), ...pieces])
    } catch (error) {
      // Nobody waits for it any more, or it is unmounted, which the next read tells.
      const code = errnoOf(error)
      if (code !== 'ENOENT' && code !== 'ENODEV' && code !== 'EINTR') this.#tell(`An answer was not taken: ${reasonOf(error)}`)
    }
  }

  #answer(request: FuseRequest): Promise<Answer> | Answer {
    const { opcode, node, body } = request
    switch (opcode) {
      case 'init':
        return [initAnswer(body)]
      case 'lookup':
        return this.#lookUp(node, body)
      case 'getattr':
        return this.#attributes(node)
      case 'readlink':
        return this.#readLink(node)
      case 'open':
        return this.#open(node)
      case 'read':
        return this.#read(body)
      case 'lseek':
        return this.#seek(body)
      case 'opendir':
        return this.#openDirectory(node)
      case 'readdir':
      case 'readdirplus':
        return this.#readDirectory(node, body, opcode === 'readdirplus')
      case 'getxattr':
        return this.#xattr(node, body)
      case 'listxattr':
        return this.#xattrs(node, body)
      case 'statfs':
        return [statfsAnswer(NAME_BYTES_MAX)]
      case 'release':
        this.#files.delete(handleIn(body))
        return []
      case 'releasedir':
        this.#directories.delete(handleIn(body))
        return []
      case 'forget':
      case 'batchForget':
        for (const { node: given, count } of forgotten(request)) this.#tree.forget(given, count)
        return undefined
      case 'destroy':
        return []
      case 'interrupt':
        return undefined
      case undefined:
        throw new Refused(ENOSYS)
    }
  }

  async #entry(node: number): Promise<ListedEntry> {
    const entry = await this.#tree.entryOf(node)
    if (entry === undefined) throw new Refused(ENOENT)
    return entry
  }

  async #lookUp(directory: number, body: Buffer): Promise<Answer> {
    const name = nameIn(body)
    const entry = name.length > NAME_BYTES_MAX ? undefined : await this.#tree.child(directory, name)
    return [entry === undefined ? entryAnswer(0, undefined) : entryAnswer(this.#tree.refer(entry), attributesOf(entry))]
  }

  async #attributes(node: number): Promise<Answer> {
    return [attributesAnswer(attributesOf(await this.#entry(node)))]
  }

  async #readLink(node: number): Promise<Answer> {
    const { version } = await this.#entry(node)
    if (version.kind !== 'symlink') throw new Refused(EINVAL)
    return [Buffer.from(version.target, 'latin1')]
  }

  // ---- files -------------------------------------------------------------------------------------------------------

  async #open(node: number): Promise<Answer> {
    const { path, version, absent } = await this.#entry(node)
    if (version.kind !== 'file') throw new Refused(EINVAL)
    const refusal = absent === undefined ? this.#tornRefusal(version) : ABSENCES[absent]
    if (refusal !== undefined) throw new PacsimileError('incomplete', `${showPath(path)}: ${refusal}`)
    const handle = this.#nextHandle
    this.#nextHandle += 1
    this.#files.set(handle, this.#content.file(path, version))
    return [openAnswer(handle, KEEP_CACHE)]
  }

  #tornRefusal(version: Version): string | undefined {
    if (this.#request.torn || version.kind !== 'file' || version.consistency !== 'torn') return undefined
    return 'its content was torn when captured (parts of several moments); --torn lets it be read all the same'
  }

  #file(handle: number): OpenFile {
    const file = this.#files.get(handle)
    if (file === undefined) throw new Refused(EBADF)
    return file
  }

  async #read(body: Buffer): Promise<Answer> {
    const { handle, offset, length } = readAsked(body)
    const file = this.#file(handle)
    try {
      return await this.#content.read(file, offset, length)
    } catch (error) {
      const failure = asPacsimileError(error, 'Reading')
      throw new PacsimileError(failure.code, `${showPath(file.path)}: ${failure.message}`, { cause: error })
    }
  }

  #seek(body: Buffer): Answer {
    const { handle, offset, whence } = seekAsked(body)
    const { version } = this.#file(handle)
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new Refused(EINVAL)
    const found = whence === SEEK_DATA ? dataFrom(version, offset) : holeFrom(version, offset)
    if (found === undefined) throw new Refused(ENXIO)
    return [seekAnswer(found)]
  }

  // ---- directories -------------------------------------------------------------------------------------------------

  async #openDirectory(node: number): Promise<Answer> {
    const children = await this.#tree.children(node)
    const handle = this.#nextHandle
    this.#nextHandle += 1
    this.#directories.set(handle, children)
    return [openAnswer(handle, KEEP_CACHE | CACHE_DIRECTORY)]
  }

  /** Offsets count entries, of which '.' and '..' are the first two. */
  async #readDirectory(node: number, body: Buffer, isPlus: boolean): Promise<Answer> {
    const { handle, offset, length } = readAsked(body)
    const children = this.#directories.get(handle)
    if (children === undefined) throw new Refused(EBADF)
    const answer = new DirectoryAnswer(length, isPlus)
    for (let at = offset; at < children.length + DOTS.length; at++) {
      const entry = children[at - DOTS.length]
      const itself = entry ?? (await this.#entry(node))
      const item = { name: DOTS[at] ?? nameOf(itself.path), inode: inodeOf(itself), mode: modeOf(itself.version) }
      if (!answer.hasRoomFor(item)) break
      // What is told with its attributes is referred to; '.' and '..' are not.
      const attributes: Attributes | undefined = isPlus && entry !== undefined ? attributesOf(entry) : undefined
      answer.add(item, at + 1, attributes === undefined || entry === undefined ? 0 : this.#tree.refer(entry), attributes)
    }
    return [answer.take()]
  }

  // ---- xattrs ------------------------------------------------------------------------------------------------------

  async #xattr(node: number, body: Buffer): Promise<Answer> {
    const { length, name } = xattrAsked(body)
    const { version } = await this.#entry(node)
    const found = version.xattrs.find((xattr) => xattr.name === name)
    if (found === undefined) throw new Refused(ENODATA)
    return sized(Buffer.from(found.value, 'latin1'), length)
  }

  async #xattrs(node: number, body: Buffer): Promise<Answer> {
    const { version } = await this.#entry(node)
    return sized(Buffer.from(version.xattrs.map(({ name }) => `${name}\0`).join(''), 'latin1'), xattrAsked(body).length)
  }

  #tell(message: string): void {
    if (this.#told.has(message) || this.#told.size >= TOLD_MAX) return
    this.#told.add(message)
    this.#request.onTrouble(message)
  }
}

const DOTS = ['.', '..'] as const

const ABSENCES = {
  lost: 'the agent could not keep this content until it was acknowledged',
  expired: 'this content has expired: the retention did not ask for it any more',
} as const

/** The value, or its size where that alone is asked for. */
function sized(value: Buffer, length: number): Answer {
  if (length === 0) return [sizeAnswer(value.length)]
  if (value.length > length) throw new Refused(ERANGE)
  return [value]
}

function mountError(error: unknown, directory: string): PacsimileError {
  const errno = errnoOf(error)
  if (errno === 'EPERM' || errno === 'EACCES')
    return new PacsimileError(
      'io',
      `Mounting ${directory}: only root may mount (CAP_SYS_ADMIN); as another user, look with ls, cat and restore`,
      {
        cause: error,
      },
    )
  if (errno === 'ENOENT' || errno === 'ENODEV' || errno === 'ENXIO')
    return new PacsimileError('unsupported', `Mounting ${directory}: this kernel has no FUSE (${reasonOf(error)}); try \`modprobe fuse\``, {
      cause: error,
    })
  return asPacsimileError(error, `Mounting ${directory}`)
}
