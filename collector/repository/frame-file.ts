/**
 * A file of frames: a pack or a segment. Appended to, sealed with an index, read front to back or by place.
 *
 * Invariant: an open file only grows by whole frames; a sealed file never changes. A torn tail (a crash in mid-append) is
 * recognised by there being no whole frame behind it, and is cut; damage that whole frames follow is never cut but
 * reported. It prevents one flipped bit from being taken for a crash, and history behind it from being thrown away.
 * Byte tables: docs/format.md, "File of frames".
 */
import { type KeyObject, randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fchmodSync,
  fdatasync,
  fstatSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  openSync,
  rmSync,
  unlinkSync,
  writev,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { release } from '../../shared/bytes.ts'
import { DIGEST_BYTES, type Digest, digest } from '../../shared/digest.ts'
import { asPacsimileError, PacsimileError } from '../../shared/errors.ts'
import { syncDirectory, TEMPORARY_PREFIX, writeFully } from '../../shared/files.ts'
import { readWhatIsThere } from './disk-read.ts'
import { checkHeader, encodeHeader, FILE_HEADER_BYTES, type FrameFileIdentity, SALT_BYTES } from './file-header.ts'
import {
  type BareType,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  FRAME_OVERHEAD_BYTES,
  type FrameHeader,
  type FrameType,
  frameBytes,
  isBare,
  isBodyWhole,
  labelKey,
  openFrame,
  openLabel,
  openPayload,
  type Payload,
  packPayload,
  parityFrame,
  readFrameHeader,
  sealFrame,
} from './frame.ts'
import { decodeIndex, encodeFooter, FOOTER_BYTES, type IndexedFrame, IndexWriter, isIndexed, readFooter } from './frame-index.ts'

const datasync = promisify(fdatasync)
const fullSync = promisify(fsync)
const writeVector = promisify(writev)

/** Where a frame is: enough to read it with one pread. */
export interface FramePlace {
  readonly file: number
  readonly offset: number
  readonly storedLength: number
}

/** The payloads of the parity frames of the first bytes of a file. */
export type MakeParity = (path: string, bytes: number) => Promise<readonly Uint8Array[]>

export interface FoundFrame extends Omit<IndexedFrame, 'type'> {
  readonly type: FrameType | BareType
}

/** What reading front to back meets. */
export type ScannedFrame =
  | ({ readonly kind: 'frame' } & FoundFrame & { readonly header: FrameHeader })
  /** Bytes that are no frame; `tail` where nothing whole follows in an unsealed file. */
  | { readonly kind: 'damage'; readonly offset: number; readonly length: number; readonly tail: boolean; readonly reason: string }

export class FrameFile {
  readonly path: string
  readonly identity: FrameFileIdentity
  readonly #fd: number
  readonly #dataKey: KeyObject
  readonly #labelKey: KeyObject
  readonly #index = new IndexWriter()
  readonly #queue: Buffer[] = []
  #end: number
  #written: number
  #durable: number
  #failed: PacsimileError | undefined

  private constructor(path: string, identity: FrameFileIdentity, fd: number, dataKey: KeyObject, salt: Buffer, end: number) {
    this.path = path
    this.identity = identity
    this.#fd = fd
    this.#dataKey = dataKey
    this.#labelKey = labelKey(dataKey, salt)
    this.#end = end
    this.#written = end
    this.#durable = end
  }

  /** A new, empty file; durable by name when this returns. */
  static create(path: string, identity: FrameFileIdentity, dataKey: KeyObject): FrameFile {
    const salt = randomBytes(SALT_BYTES)
    // The header is durable before the file has its name: a crash leaves no file of that name that is none.
    const temporary = join(dirname(path), `${TEMPORARY_PREFIX}${basename(path)}-${randomBytes(6).toString('hex')}`)
    const fd = openSync(temporary, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      writeFully(fd, encodeHeader(identity, salt), 0)
      fsyncSync(fd)
      linkSync(temporary, path)
      unlinkSync(temporary)
      syncDirectory(dirname(path))
    } catch (error) {
      closeSync(fd)
      rmSync(temporary, { force: true })
      throw asPacsimileError(error, `Creating ${path}`)
    }
    return new FrameFile(path, identity, fd, dataKey, salt, FILE_HEADER_BYTES)
  }

  /** Opens for reading; the file may be growing. */
  static open(path: string, identity: FrameFileIdentity, dataKey: KeyObject): FrameFile {
    return FrameFile.#open(path, identity, dataKey, constants.O_RDONLY)
  }

  /**
   * Opens the newest file to go on appending: cuts a torn tail, but never below `durable`, the place up to which it is
   * known to have been made durable ('all': of a file that was full). Undefined when it cannot be appended to (sealed, or damaged before its end): a new
   * file must be begun, and this one stays as it is.
   */
  static reopen(path: string, identity: FrameFileIdentity, dataKey: KeyObject, durable: number | 'all' = 0): FrameFile | undefined {
    const file = FrameFile.#open(path, identity, dataKey, constants.O_RDWR)
    let end = FILE_HEADER_BYTES
    for (const found of file.scan()) {
      if (found.kind === 'damage') {
        if (found.tail && (durable === 'all' ? file.#isOfSealing(found.offset) : found.offset >= durable)) break
        file.close()
        return undefined
      }
      if (found.type === 'index') {
        file.close()
        return undefined
      }
      // Sealing was cut short: what it is of is whole, and it is made again.
      if (found.type === 'parity') break
      const { type, offset, storedLength, plainLength, digest: name } = found
      // A frame that this release may pass over is not its to list: an index says what each frame is.
      if (isIndexed(type)) file.#index.add({ type, offset, storedLength, plainLength, digest: name })
      end = found.offset + FRAME_OVERHEAD_BYTES + found.storedLength
    }
    if (durable !== 'all' && end < durable) {
      // It was longer once: appending here would give the lost place to something else.
      file.close()
      return undefined
    }
    ftruncateSync(file.#fd, end)
    fsyncSync(file.#fd)
    file.#end = end
    file.#written = end
    file.#durable = end
    return file
  }

  /** Whether a frame begins there that only sealing writes, be it whole or not. */
  #isOfSealing(offset: number): boolean {
    const head = Buffer.alloc(FRAME_HEADER_BYTES)
    const type = this.#pread(head, offset) < FRAME_HEADER_BYTES ? undefined : readFrameHeader(head)?.type
    return type === 'parity' || type === 'index'
  }

  static #open(path: string, identity: FrameFileIdentity, dataKey: KeyObject, flags: number): FrameFile {
    let fd: number
    try {
      fd = openSync(path, flags)
    } catch (error) {
      throw asPacsimileError(error, `Opening ${path}`)
    }
    try {
      const header = Buffer.alloc(FILE_HEADER_BYTES)
      readWhatIsThere(fd, header, 0)
      const salt = checkHeader(header, identity, path)
      return new FrameFile(path, identity, fd, dataKey, salt, fstatSync(fd).size)
    } catch (error) {
      closeSync(fd)
      throw asPacsimileError(error, `Opening ${path}`)
    }
  }

  get size(): number {
    return this.#end
  }

  /** Up to here it was made durable by `sync`. */
  get durable(): number {
    return this.#durable
  }

  /** Queues a frame; it is durable after the next `sync`. */
  append(type: FrameType, payload: Payload): FramePlace {
    const frame = sealFrame(type, payload, this.#dataKey, this.#labelKey)
    const offset = this.#end
    this.#queue.push(frame)
    this.#end += frame.length
    if (isIndexed(type))
      this.#index.add({ type, offset, storedLength: payload.bytes.length, plainLength: payload.plainLength, digest: payload.digest })
    return { file: this.identity.number, offset, storedLength: payload.bytes.length }
  }

  /** Everything appended so far is durable. After a failure the file must not be used again: the kernel may have dropped what it could not write. */
  async sync(): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed
    try {
      const written = await this.#flush()
      if (written) await datasync(this.#fd)
      this.#durable = this.#written
    } catch (error) {
      this.#failed = asPacsimileError(error, `Writing ${this.path}`)
      throw this.#failed
    }
  }

  async #flush(): Promise<boolean> {
    if (this.#queue.length === 0) return false
    // IOV_MAX is 1024.
    while (this.#queue.length > 0) {
      let batch = this.#queue.splice(0, 1024)
      while (batch.length > 0) {
        const { bytesWritten } = await writeVector(this.#fd, batch, this.#written)
        this.#written += bytesWritten
        let left = bytesWritten
        while (batch[0] !== undefined && left >= batch[0].length) {
          left -= batch[0].length
          batch = batch.slice(1)
        }
        if (batch[0] !== undefined) batch[0] = batch[0].subarray(left)
      }
    }
    return true
  }

  /**
   * Writes the index and the footer, and before them parity, if `makeParity` is given: it gets the path and the length of what is
   * to be protected, and makes the payloads of the frames. The file never changes again.
   */
  async seal(makeParity?: MakeParity): Promise<void> {
    if (makeParity !== undefined) await this.#addParity(makeParity)
    const place = this.append('index', packPayload(this.#index.encode()))
    this.#queue.push(encodeFooter(place.offset))
    this.#end += FOOTER_BYTES
    try {
      await this.#flush()
      fchmodSync(this.#fd, 0o400)
      await fullSync(this.#fd)
    } catch (error) {
      this.#failed = asPacsimileError(error, `Sealing ${this.path}`)
      throw this.#failed
    }
  }

  async #addParity(makeParity: MakeParity): Promise<void> {
    try {
      await this.#flush()
      for (const payload of await makeParity(this.path, this.#end)) {
        const frame = parityFrame(payload)
        this.#queue.push(frame)
        this.#end += frame.length
      }
    } catch (error) {
      this.#failed = asPacsimileError(error, `Making parity for ${this.path}`)
      throw this.#failed
    }
  }

  /** The plain content of the frame at a place. @throws damage, io */
  read(offset: number, storedLength: number, name: Digest): Buffer {
    return this.#readFrame(offset, storedLength, (header, body) => openFrame(header, body, name, this.#dataKey))
  }

  /** The same as it is stored, verified. @throws damage, io */
  readPayload(offset: number, storedLength: number, name: Digest): Payload {
    return this.#readFrame(offset, storedLength, (header, body) => openPayload(header, body, name, this.#dataKey))
  }

  #readFrame<Opened>(offset: number, storedLength: number, open: (header: FrameHeader, body: Buffer) => Opened): Opened {
    const bytes = Buffer.allocUnsafe(FRAME_OVERHEAD_BYTES + storedLength)
    const header = this.#pread(bytes, offset) === bytes.length ? readFrameHeader(bytes) : undefined
    if (header === undefined || header.storedLength !== storedLength)
      throw new PacsimileError('damage', `No whole frame at byte ${offset} of ${this.path}`)
    try {
      return open(header, bytes.subarray(FRAME_HEADER_BYTES))
    } catch (error) {
      throw asPacsimileError(error, `Reading byte ${offset} of ${this.path}`)
    } finally {
      release(bytes)
    }
  }

  #pread(into: Buffer, position: number): number {
    try {
      return readWhatIsThere(this.#fd, into, position).length
    } catch (error) {
      throw asPacsimileError(error, `Reading ${this.path}`)
    }
  }

  /** The frames that the sealed file's own index lists; undefined when it is not sealed or the index does not open. */
  sealedIndex(): Iterable<IndexedFrame> | undefined {
    const size = fstatSync(this.#fd).size
    const footer = Buffer.alloc(FOOTER_BYTES)
    if (size < FILE_HEADER_BYTES + FOOTER_BYTES || this.#pread(footer, size - FOOTER_BYTES) !== FOOTER_BYTES) return undefined
    const offset = readFooter(footer)
    if (offset === undefined) return undefined
    try {
      const bytes = Buffer.alloc(FRAME_HEADER_BYTES)
      this.#pread(bytes, offset)
      const header = readFrameHeader(bytes)
      if (header?.type !== 'index') return undefined
      return decodeIndex(this.read(offset, header.storedLength, openLabel(header, this.#labelKey)))
    } catch {
      // A damaged index costs a front-to-back read, nothing else; `check` reports it when it meets the frame.
      return undefined
    }
  }

  /**
   * Reads front to back from `start` (a frame boundary). With `bodies`, payload CRCs are checked too; without, only what
   * headers and labels say. Never stops at damage: looks for the next whole frame.
   */
  *scan(options: { start?: number; bodies?: boolean } = {}): Generator<ScannedFrame> {
    const size = fstatSync(this.#fd).size
    const bodies = options.bodies ?? true
    let offset = options.start ?? FILE_HEADER_BYTES
    const head = Buffer.alloc(FRAME_HEADER_BYTES)
    while (offset < size) {
      const found = this.#frameAt(offset, size, head, bodies)
      if (typeof found !== 'string') {
        yield found
        offset += frameBytes(found.header)
        if (found.type === 'index' && this.#isFooter(offset, size)) return
        continue
      }
      const next = this.#nextFrame(offset + 1, size, head)
      // A footer says that the file was sealed: nothing of it is an append that was cut short.
      const tail = next === size && !this.#isFooter(size - FOOTER_BYTES, size)
      yield { kind: 'damage', offset, length: next - offset, tail, reason: found }
      offset = next
    }
  }

  #isFooter(offset: number, size: number): boolean {
    const footer = Buffer.alloc(FOOTER_BYTES)
    return size - offset === FOOTER_BYTES && this.#pread(footer, offset) === FOOTER_BYTES && readFooter(footer) !== undefined
  }

  #frameAt(offset: number, size: number, head: Buffer, bodies: boolean): Extract<ScannedFrame, { kind: 'frame' }> | string {
    if (this.#pread(head, offset) < FRAME_HEADER_BYTES) return 'too short for a frame'
    const header = readFrameHeader(head)
    if (header === undefined) return 'no frame header'
    if (offset + frameBytes(header) > size) return 'the frame is cut off'
    if (bodies) {
      const body = Buffer.allocUnsafe(frameBytes(header) - FRAME_HEADER_BYTES)
      this.#pread(body, offset + FRAME_HEADER_BYTES)
      const isWhole = isBodyWhole(header, body)
      // Parity is a tenth of the file in a few frames: those that are read while the first waits to be collected are most of a check's memory.
      release(body)
      if (!isWhole) return 'the frame fails its CRC'
    }
    try {
      const name = isBare(header.type) ? digest('\0'.repeat(DIGEST_BYTES)) : openLabel(header, this.#labelKey)
      const { type, storedLength, plainLength } = header
      return { kind: 'frame', type, offset, storedLength, plainLength, digest: name, header }
    } catch (error) {
      if (error instanceof PacsimileError && error.code === 'damage') return error.message
      throw error
    }
  }

  /** The offset of the next whole frame from `start` on; `size` where there is none. */
  #nextFrame(start: number, size: number, head: Buffer): number {
    const window = Buffer.alloc(1 << 20)
    for (let base = start; base < size; base += window.length - FRAME_HEADER_BYTES) {
      const got = this.#pread(window, base)
      for (let at = window.indexOf(FRAME_MAGIC); at >= 0 && at + 4 <= got; at = window.indexOf(FRAME_MAGIC, at + 1)) {
        if (typeof this.#frameAt(base + at, size, head, true) !== 'string') return base + at
      }
      if (base + got >= size) break
    }
    return size
  }

  close(): void {
    closeSync(this.#fd)
  }
}
