/**
 * Verifies the tables of a LevelDB database: every block against its checksum.
 *
 * LevelDB reads blocks without looking at their checksums, so that a flipped bit may become a wrong entry, or a missing one, in silence.
 * The layout is LevelDB's own (doc/table_format.md of its sources; blocks may be compressed with Snappy, format_description.txt of its
 * sources). Invariant: a table that is called sound was read to its last byte, and every block of it matches. It prevents a
 * catalog with a rotten table from being believed, or stored as a checkpoint.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { asPacsimileError, errnoOf } from '../shared/errors.ts'
import { maskedCrc32c } from './crc32c.ts'

const FOOTER_BYTES = 48
const MAGIC = 0xdb4775248b80fb57n
/** Behind each block: how it is compressed, and the masked CRC-32C of both. */
const TRAILER_BYTES = 5
const SNAPPY = 1

interface Handle {
  readonly offset: number
  readonly size: number
}

/** Why a database cannot be believed, by its tables; undefined where it can. Those that compaction takes away meanwhile are no part of it. */
export async function faultOfTables(directory: string, signal?: AbortSignal): Promise<string | undefined> {
  for (const name of readdirSync(directory).filter((table) => table.endsWith('.ldb'))) {
    if (signal?.aborted === true) return undefined
    const fault = faultIfThere(join(directory, name))
    if (fault !== undefined) return `table ${name}: ${fault}`
    // A table takes some milliseconds.
    await setImmediate()
  }
  return undefined
}

function faultIfThere(path: string): string | undefined {
  try {
    return faultOfTable(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw asPacsimileError(error, `Verifying ${path}`)
  }
}

/** Why a table cannot be believed; undefined where it can. @throws what read(2) says */
export function faultOfTable(path: string): string | undefined {
  const bytes = readFileSync(path)
  try {
    return new Table(bytes).fault()
  } catch (error) {
    // What a damaged block says of others leads anywhere.
    return error instanceof RangeError || error instanceof TypeError ? 'its blocks cannot be followed' : fail(error)
  }
}

function fail(error: unknown): never {
  throw error
}

class Table {
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  fault(): string | undefined {
    const bytes = this.#bytes
    if (bytes.length < FOOTER_BYTES) return 'it is too short'
    const footer = bytes.subarray(bytes.length - FOOTER_BYTES)
    if (footer.readBigUInt64LE(FOOTER_BYTES - 8) !== MAGIC) return 'its footer is damaged'
    const from = new Cursor(footer)
    const [metaindex, index] = [from.handle(), from.handle()]
    for (const handle of [metaindex, index]) {
      const found = this.#faultOfBlock(handle)
      if (found !== undefined) return found
    }
    const blocks = [...this.#handlesIn(metaindex), ...this.#handlesIn(index)]
    const found = blocks.map((handle) => this.#faultOfBlock(handle)).find((fault) => fault !== undefined)
    if (found !== undefined) return found
    const read = [...blocks, metaindex, index].reduce((sum, { size }) => sum + size + TRAILER_BYTES, FOOTER_BYTES)
    return read === bytes.length ? undefined : `its blocks have ${read} of its ${bytes.length} bytes`
  }

  #faultOfBlock({ offset, size }: Handle): string | undefined {
    const end = offset + size + 1
    if (end + 4 > this.#bytes.length) return `a block at byte ${offset} ends behind it`
    const isWhole = maskedCrc32c(this.#bytes.subarray(offset, end)) === this.#bytes.readUInt32LE(end)
    return isWhole ? undefined : `the block at byte ${offset} fails its checksum`
  }

  /** What the entries of an index block lead to. */
  #handlesIn({ offset, size }: Handle): Handle[] {
    const stored = this.#bytes.subarray(offset, offset + size)
    const block = this.#bytes[offset + size] === SNAPPY ? unsnapped(stored) : stored
    const restarts = block.readUInt32LE(block.length - 4)
    const entries = new Cursor(block.subarray(0, block.length - 4 - 4 * restarts))
    const found: Handle[] = []
    while (!entries.isAtEnd) {
      entries.varint()
      const [unshared, length] = [entries.varint(), entries.varint()]
      entries.take(unshared)
      found.push(new Cursor(entries.take(length)).handle())
    }
    return found
  }
}

class Cursor {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length
  }

  /** @throws RangeError */
  varint(): number {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = this.#bytes.readUInt8(this.#at++)
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      if (scale > 2 ** 49) throw new RangeError('a number is too long')
    }
  }

  handle(): Handle {
    return { offset: this.varint(), size: this.varint() }
  }

  /** @throws RangeError */
  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new RangeError('a block ends early')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }
}

/** @throws RangeError where it is not well formed */
function unsnapped(stored: Buffer): Buffer {
  const from = new Cursor(stored)
  const plain = Buffer.alloc(Math.min(from.varint(), 1 << 30))
  let at = 0
  const copy = (distance: number, length: number): void => {
    if (distance === 0 || distance > at || at + length > plain.length) throw new RangeError('a copy leads nowhere')
    // Byte by byte: it may overlap what it writes.
    for (const end = at + length; at < end; at++) plain[at] = plain[at - distance] ?? 0
  }
  while (!from.isAtEnd) {
    const tag = from.take(1).readUInt8()
    const upper = tag >> 2
    switch (tag & 3) {
      case 0: {
        const length = upper < 60 ? upper + 1 : from.take(upper - 59).readUIntLE(0, upper - 59) + 1
        at += from.take(length).copy(plain, at)
        break
      }
      case 1:
        copy(((tag >> 5) << 8) | from.take(1).readUInt8(), ((tag >> 2) & 7) + 4)
        break
      case 2:
        copy(from.take(2).readUInt16LE(), upper + 1)
        break
      default:
        copy(from.take(4).readUInt32LE(), upper + 1)
    }
  }
  return plain
}
