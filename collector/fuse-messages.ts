/**
 * The bytes that the kernel and a filesystem in user space exchange through /dev/fuse (linux/fuse.h, protocol 7), as far as a read-only
 * filesystem needs them. Pure.
 *
 * Numbers are in the order of the machine, which is little-endian wherever Pacsimile runs. Invariant: what a request says is read only
 * within the request, and an answer has the layout of the minor version that INIT agreed on. It prevents the kernel from taking one field for another.
 */
import type { ByteString } from '../shared/bytes.ts'
import { PacsimileError } from '../shared/errors.ts'

export const OPCODES = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  readlink: 5,
  open: 14,
  read: 15,
  statfs: 17,
  release: 18,
  getxattr: 22,
  listxattr: 23,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  readdirplus: 44,
  lseek: 46,
} as const
export type Opcode = keyof typeof OPCODES
const OPCODE_NAMES = new Map<number, Opcode>(Object.entries(OPCODES).map(([name, number]) => [number, name as Opcode]))

const REQUEST_HEADER_BYTES = 40
const ANSWER_HEADER_BYTES = 16
const MAJOR = 7
/** What is written here: 7.31. Later kernels keep to it. */
const MINOR = 31
/** The oldest whose INIT has the length that is answered: Linux 4.20. */
const MINOR_MIN = 28
const INIT_BYTES = 64
const ENTRY_BYTES = 128
const ATTRIBUTES_AT = 40
const DIRENT_BYTES = 24
const STATFS_BYTES = 80

/** INIT flags: read ahead while others read, READDIRPLUS where it pays, listings beside each other, more than 32 pages at once, symlinks kept, ACLs obeyed. */
const WANTED_FLAGS = (1 << 0) | (1 << 13) | (1 << 14) | (1 << 15) | (1 << 18) | (1 << 20) | (1 << 22) | (1 << 23)
const PAGES_MAX = 256
const BACKGROUND_MAX = 64
/** Nothing is written; less the kernel does not take. */
const WRITE_BYTES_MAX = 4096
/** A request is read as a whole: more than it says that it sends, and no less than it insists on. */
export const REQUEST_BYTES_MAX = 64 << 10
/** What is past does not change. */
const VALID_SECONDS = 1n << 31n

/** OPEN flags: what the kernel has of it stays good; of a directory, it may keep the listing. */
export const KEEP_CACHE = 1 << 1
export const CACHE_DIRECTORY = 1 << 3

export interface FuseRequest {
  /** Undefined for what a read-only filesystem does not do. */
  readonly opcode: Opcode | undefined
  readonly unique: bigint
  readonly node: number
  readonly body: Buffer
}

export interface Attributes {
  readonly inode: bigint
  /** With the type. */
  readonly mode: number
  readonly size: number
  /** Bytes that take space. */
  readonly usedBytes: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
  readonly links: number
  readonly uid: number
  readonly gid: number
  /** As st_rdev. */
  readonly device: bigint
}

/** @throws protocol */
export function readRequest(bytes: Buffer): FuseRequest {
  if (bytes.length < REQUEST_HEADER_BYTES || bytes.readUInt32LE(0) !== bytes.length)
    throw new PacsimileError('protocol', `The kernel sent ${bytes.length} bytes that are no request`)
  return {
    opcode: OPCODE_NAMES.get(bytes.readUInt32LE(4)),
    unique: bytes.readBigUInt64LE(8),
    node: Number(bytes.readBigUInt64LE(16)),
    body: bytes.subarray(REQUEST_HEADER_BYTES),
  }
}

/** Of an answer: a positive errno, or 0 and as many bytes as follow. */
export function answerHeader(unique: bigint, errno: number, length: number): Buffer {
  const header = Buffer.allocUnsafe(ANSWER_HEADER_BYTES)
  header.writeUInt32LE(ANSWER_HEADER_BYTES + length, 0)
  header.writeInt32LE(errno === 0 ? 0 : -errno, 4)
  header.writeBigUInt64LE(unique, 8)
  return header
}

// ---- requests ------------------------------------------------------------------------------------------------------

/** A name as bytes, up to the NUL that ends it. */
export function nameIn(body: Buffer, at = 0): ByteString {
  const end = body.indexOf(0, at)
  return body.toString('latin1', at, end < 0 ? body.length : end)
}

export interface ReadAsked {
  readonly handle: number
  readonly offset: number
  readonly length: number
}

/** Of READ, READDIR and READDIRPLUS. */
export function readAsked(body: Buffer): ReadAsked {
  return { handle: Number(body.readBigUInt64LE(0)), offset: Number(body.readBigUInt64LE(8)), length: body.readUInt32LE(16) }
}

/** Of RELEASE and RELEASEDIR. */
export function handleIn(body: Buffer): number {
  return Number(body.readBigUInt64LE(0))
}

/** Of GETXATTR and LISTXATTR; the name is that of GETXATTR alone. */
export function xattrAsked(body: Buffer): { readonly length: number; readonly name: ByteString } {
  return { length: body.readUInt32LE(0), name: nameIn(body, 8) }
}

export interface SeekAsked {
  readonly handle: number
  readonly offset: number
  readonly whence: number
}

export function seekAsked(body: Buffer): SeekAsked {
  return { handle: Number(body.readBigUInt64LE(0)), offset: Number(body.readBigUInt64LE(8)), whence: body.readUInt32LE(16) }
}

/** Nodes and how many references to each the kernel gives up; of FORGET and BATCH_FORGET. */
export function forgotten({ opcode, node, body }: FuseRequest): { node: number; count: number }[] {
  if (opcode === 'forget') return [{ node, count: Number(body.readBigUInt64LE(0)) }]
  return Array.from({ length: body.readUInt32LE(0) }, (_, i) => ({
    node: Number(body.readBigUInt64LE(8 + i * 16)),
    count: Number(body.readBigUInt64LE(16 + i * 16)),
  }))
}

export function interrupted(body: Buffer): bigint {
  return body.readBigUInt64LE(0)
}

// ---- answers -------------------------------------------------------------------------------------------------------

/** @throws unsupported */
export function initAnswer(body: Buffer): Buffer {
  const [major, minor] = [body.readUInt32LE(0), body.readUInt32LE(4)]
  if (major !== MAJOR || minor < MINOR_MIN)
    throw new PacsimileError('unsupported', `The kernel speaks FUSE ${major}.${minor}; 7.${MINOR_MIN} or a later 7 is needed (Linux 4.20)`)
  const answer = Buffer.alloc(INIT_BYTES)
  answer.writeUInt32LE(MAJOR, 0)
  answer.writeUInt32LE(Math.min(MINOR, minor), 4)
  // Read ahead as far as the kernel likes.
  answer.writeUInt32LE(body.readUInt32LE(8), 8)
  answer.writeUInt32LE((WANTED_FLAGS & body.readUInt32LE(12)) >>> 0, 12)
  answer.writeUInt16LE(BACKGROUND_MAX, 16)
  answer.writeUInt16LE((BACKGROUND_MAX * 3) / 4, 18)
  answer.writeUInt32LE(WRITE_BYTES_MAX, 20)
  // Times are to the nanosecond.
  answer.writeUInt32LE(1, 24)
  answer.writeUInt16LE(PAGES_MAX, 28)
  return answer
}

/** `node` 0: there is nothing by that name, and that does not change. */
export function entryAnswer(node: number, attributes: Attributes | undefined): Buffer {
  const answer = Buffer.alloc(ENTRY_BYTES)
  writeEntry(answer, 0, node, attributes)
  return answer
}

export function attributesAnswer(attributes: Attributes): Buffer {
  const answer = Buffer.alloc(ENTRY_BYTES - ATTRIBUTES_AT + 16)
  answer.writeBigUInt64LE(VALID_SECONDS, 0)
  writeAttributes(answer, 16, attributes)
  return answer
}

export function openAnswer(handle: number, flags: number): Buffer {
  const answer = Buffer.alloc(16)
  answer.writeBigUInt64LE(BigInt(handle), 0)
  answer.writeUInt32LE(flags, 8)
  return answer
}

/** Of a size that was asked for instead of a value. */
export function sizeAnswer(bytes: number): Buffer {
  const answer = Buffer.alloc(8)
  answer.writeUInt32LE(bytes, 0)
  return answer
}

export function seekAnswer(offset: number): Buffer {
  const answer = Buffer.alloc(8)
  answer.writeBigUInt64LE(BigInt(offset), 0)
  return answer
}

/** No room and no count of files: there is nothing to fill. */
export function statfsAnswer(nameBytesMax: number): Buffer {
  const answer = Buffer.alloc(STATFS_BYTES)
  for (const [at, value] of [
    [40, 4096],
    [44, nameBytesMax],
    [48, 4096],
  ] as const)
    answer.writeUInt32LE(value, at)
  return answer
}

function writeEntry(to: Buffer, at: number, node: number, attributes: Attributes | undefined): void {
  to.writeBigUInt64LE(BigInt(node), at)
  to.writeBigUInt64LE(VALID_SECONDS, at + 16)
  to.writeBigUInt64LE(VALID_SECONDS, at + 24)
  if (attributes !== undefined) writeAttributes(to, at + ATTRIBUTES_AT, attributes)
}

function writeAttributes(to: Buffer, at: number, attributes: Attributes): void {
  const { inode, mode, size, usedBytes, mtimeNs, ctimeNs, links, uid, gid, device } = attributes
  const [mtime, ctime] = [secondsOf(mtimeNs), secondsOf(ctimeNs)]
  to.writeBigUInt64LE(inode, at)
  to.writeBigUInt64LE(BigInt(size), at + 8)
  to.writeBigUInt64LE(BigInt(Math.ceil(usedBytes / 512)), at + 16)
  to.writeBigInt64LE(mtime.seconds, at + 24)
  to.writeBigInt64LE(mtime.seconds, at + 32)
  to.writeBigInt64LE(ctime.seconds, at + 40)
  for (const [i, value] of [
    mtime.nanoseconds,
    mtime.nanoseconds,
    ctime.nanoseconds,
    mode,
    links,
    uid,
    gid,
    kernelDevice(device),
    4096,
    0,
  ].entries())
    to.writeUInt32LE(value, at + 48 + i * 4)
}

/** The nanoseconds count forward, also before 1970. */
function secondsOf(ns: bigint): { readonly seconds: bigint; readonly nanoseconds: number } {
  const second = 1_000_000_000n
  const nanoseconds = ((ns % second) + second) % second
  return { seconds: (ns - nanoseconds) / second, nanoseconds: Number(nanoseconds) }
}

/** As the kernel packs a device into 32 bits, where st_rdev takes 64. */
function kernelDevice(device: bigint): number {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xffff_f000n)
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffff_ff00n)
  return Number(((minor & 0xffn) | (major << 8n) | ((minor & 0xffff_ff00n) << 12n)) & 0xffff_ffffn)
}

export interface DirectoryItem {
  readonly name: ByteString
  readonly inode: bigint
  /** With the type. */
  readonly mode: number
}

/** Fills an answer to READDIR or READDIRPLUS up to the length that was asked for. */
export class DirectoryAnswer {
  readonly #bytes: Buffer
  readonly #isPlus: boolean
  #length = 0

  constructor(lengthMax: number, isPlus: boolean) {
    this.#bytes = Buffer.alloc(lengthMax)
    this.#isPlus = isPlus
  }

  hasRoomFor({ name }: DirectoryItem): boolean {
    return this.#length + this.#bytesOf(name) <= this.#bytes.length
  }

  #bytesOf(name: ByteString): number {
    return (this.#isPlus ? ENTRY_BYTES : 0) + ((DIRENT_BYTES + name.length + 7) & ~7)
  }

  /** `next`: where the listing goes on behind it. `node` 0: without its attributes. */
  add({ name, inode, mode }: DirectoryItem, next: number, node: number, attributes: Attributes | undefined): void {
    const end = this.#length + this.#bytesOf(name)
    if (this.#isPlus) writeEntry(this.#bytes, this.#length, node, attributes)
    const at = this.#length + (this.#isPlus ? ENTRY_BYTES : 0)
    this.#bytes.writeBigUInt64LE(inode, at)
    this.#bytes.writeBigUInt64LE(BigInt(next), at + 8)
    this.#bytes.writeUInt32LE(name.length, at + 16)
    this.#bytes.writeUInt32LE((mode & 0o170000) >> 12, at + 20)
    this.#bytes.write(name, at + DIRENT_BYTES, 'latin1')
    this.#length = end
  }

  take(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }
}
