/**
 * What was read from the kernel and is not journalled yet, in a memory file that outlives this process.
 *
 * The kernel forgets an event when it is read. So events are read right into this file, which is kept together with the
 * fanotify descriptors: an agent that is killed at any instant finds in its next life every event that it had read and not
 * dealt with. A reboot takes file and descriptors alike, and a scan follows.
 *
 *     0     magic 8, version u32, seconds u32, base u64, head u64, tail u64, length of the volumes u32, volumes (JSON list of [name, losses])
 *     4096  slots for pinned versions in hand, 8192 bytes each: used u32, path length u32, inode u64, ms u64, path
 *     DATA  events as the kernel gives them, from tail to head; what the kernel wrote behind head counts too
 *
 * What an earlier life left in it is read by left-hints.ts. The seconds are when the reading of versions began, 0 while none are read. Head and tail count all bytes that ever were in the log; at DATA stands the one with the number `base`.
 *
 * Invariant: between tail and the end of what the kernel wrote lies everything that was read and not said to be journalled.
 * It prevents kill -9 from losing an event between its reading and its journalling.
 */
import { readSync, writeSync } from 'node:fs'
import type { ByteString } from '../../shared/bytes.ts'
import { HINT_LOG_BYTES, PINS_OPEN_MAX } from '../../shared/limits.ts'
import { createMemoryFile, mapMemory, punchHole, readIntoMemory, unmapMemory } from './fanotify-calls.ts'
import type { Loss } from './watcher.ts'

export const MAGIC = Buffer.from('pacshint', 'latin1')
export const VERSION = 1
export const PAGE = 4096
export const SLOT_BYTES = 2 * PAGE
export const SLOT_HEADER_BYTES = 24
export const DATA = PAGE + PINS_OPEN_MAX * SLOT_BYTES
const BYTES = DATA + HINT_LOG_BYTES
export const AT = { version: 8, reading: 12, base: 16, head: 24, tail: 32, volumesLength: 40, volumes: 44 } as const
export const EVENT_METADATA_BYTES = 24

/** A pinned version that was in the hands of a process that died. */
export interface LeftPin {
  /** Absolute. */
  readonly path: ByteString
  readonly inode: bigint
  /** When it was read, ms since 1970. */
  readonly ms: number
}

/** Volumes of which watching was continuous, and verified but for these losses. */
export type Verified = ReadonlyMap<string, readonly Loss[]>

export class HintLog {
  readonly fd: number
  readonly #address: number
  readonly #small = Buffer.alloc(8)
  readonly #slot = Buffer.alloc(SLOT_BYTES)
  #base: number
  #head: number
  #tail: number

  private constructor(fd: number, { base, head, tail }: Positions) {
    this.fd = fd
    this.#address = mapMemory(fd, BYTES)
    this.#base = base
    this.#head = head
    this.#tail = tail
  }

  /** A new, empty one; @returns its descriptor */
  static create(): number {
    const fd = createMemoryFile('pacsimile-hints', BYTES)
    const header = Buffer.alloc(AT.volumes)
    MAGIC.copy(header)
    header.writeUInt32LE(VERSION, AT.version)
    writeSync(fd, header, 0, header.length, 0)
    return fd
  }

  /** For the one thread that writes it. */
  static open(fd: number): HintLog {
    const header = Buffer.alloc(PAGE)
    readSync(fd, header, 0, PAGE, 0)
    return new HintLog(fd, positionsOf(header))
  }

  /** Where the next event will be. */
  get head(): number {
    return this.#head
  }

  /** Everything before it is journalled. */
  get tail(): number {
    return this.#tail
  }

  /** Reads from a name group. @returns the events; undefined where none wait, or where too much waits to be journalled */
  read(group: number, bytesMax: number): Buffer | undefined {
    if (this.#tail === this.#head && this.#head > this.#base) this.#rewind()
    const start = this.#head
    if (start - this.#base + bytesMax > HINT_LOG_BYTES) return undefined
    const length = readIntoMemory(group, this.#address + DATA + start - this.#base, bytesMax)
    if (length === undefined || length === 0) return undefined
    this.#head += length
    this.#write64(AT.head, this.#head)
    return this.#copy(start, this.#head)
  }

  /** Whether there is no room for more until what was read is journalled. */
  isFull(bytesMax: number): boolean {
    return this.#head - this.#base + bytesMax > HINT_LOG_BYTES && this.#tail < this.#head
  }

  /** All events that are not journalled. */
  *unsettled(bytesMax: number): Generator<Buffer, void> {
    for (let at = this.#tail; at < this.#head; ) {
      const piece = this.#copy(at, Math.min(this.#head, at + bytesMax))
      const whole = wholeEvents(piece)
      if (whole === 0) return
      yield piece.subarray(0, whole)
      at += whole
    }
  }

  /** Everything before `mark`, which was the head once, is journalled. */
  settle(mark: number): void {
    if (mark <= this.#tail || mark > this.#head) return
    const from = Math.ceil((DATA + this.#tail - this.#base) / PAGE) * PAGE
    const until = Math.floor((DATA + mark - this.#base) / PAGE) * PAGE
    this.#tail = mark
    this.#write64(AT.tail, mark)
    if (until > from) punchHole(this.fd, from, until - from)
  }

  /** All is journalled: the file is begun from its start, with zeros behind it. */
  #rewind(): void {
    const used = Math.ceil((DATA + this.#head - this.#base) / PAGE) * PAGE - DATA
    this.#base = this.#head
    this.#write64(AT.base, this.#base)
    // Killed before this, the next life finds stale events at the start, and looks once more at what they name.
    punchHole(this.fd, DATA, used)
  }

  /** Of these volumes the journal says that all before was verified. */
  setVerified(volumes: Verified): void {
    const text = Buffer.from(JSON.stringify([...volumes]), 'utf8')
    const isFitting = AT.volumes + text.length <= PAGE
    if (isFitting) writeSync(this.fd, text, 0, text.length, AT.volumes)
    this.#small.writeUInt32LE(isFitting ? text.length : 0, 0)
    writeSync(this.fd, this.#small, 0, 4, AT.volumesLength)
  }

  /** While the pin group is being read: if the process dies then, what it got is not known. */
  readingPins(isReading: boolean): void {
    this.#small.writeUInt32LE(isReading ? Math.floor(Date.now() / 1000) : 0, 0)
    writeSync(this.fd, this.#small, 0, 4, AT.reading)
  }

  holdPin(slot: number, { path, inode, ms }: LeftPin): void {
    this.#slot.writeUInt32LE(1, 0)
    this.#slot.writeUInt32LE(path.length, 4)
    this.#slot.writeBigUInt64LE(inode, 8)
    this.#slot.writeBigUInt64LE(BigInt(ms), 16)
    const length = SLOT_HEADER_BYTES + this.#slot.write(path.slice(0, SLOT_BYTES - SLOT_HEADER_BYTES), SLOT_HEADER_BYTES, 'latin1')
    writeSync(this.fd, this.#slot, 0, length, PAGE + slot * SLOT_BYTES)
  }

  #copy(from: number, until: number): Buffer {
    const bytes = Buffer.allocUnsafe(until - from)
    readSync(this.fd, bytes, 0, bytes.length, DATA + from - this.#base)
    return bytes
  }

  #write64(at: number, value: number): void {
    this.#small.writeBigUInt64LE(BigInt(value), 0)
    writeSync(this.fd, this.#small, 0, 8, at)
  }

  /** The file itself stays open: it is somebody else's. */
  close(): void {
    unmapMemory(this.#address, BYTES)
  }
}

export interface Positions {
  readonly base: number
  readonly head: number
  readonly tail: number
}

export function positionsOf(header: Buffer): Positions {
  const [base, head, tail] = [AT.base, AT.head, AT.tail].map((at) => Number(header.readBigUInt64LE(at)))
  return { base: base ?? 0, head: head ?? 0, tail: tail ?? 0 }
}

/** The version in this slot is journalled, or given up. Any thread may say so. */
export function clearSlot(log: number, slot: number): void {
  writeSync(log, Buffer.alloc(4), 0, 4, PAGE + slot * SLOT_BYTES)
}

/** How many of the bytes are whole events. */
function wholeEvents(bytes: Buffer): number {
  let at = 0
  while (at + EVENT_METADATA_BYTES <= bytes.length) {
    const length = bytes.readUInt32LE(at)
    if (length < EVENT_METADATA_BYTES || at + length > bytes.length) break
    at += length
  }
  return at
}
