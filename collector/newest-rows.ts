/**
 * Of each path in a range of version keys the newest version that is not newer than a position.
 *
 * A value is larger than its key, and of a path with many versions one value counts. So where there are many, keys alone are read, and then the
 * values of those that were found; where there are few, both at once. Invariant: what is found does not depend on how it was read. It
 * prevents a listing that pays for the content lists of all versions that there ever were.
 */
import { PacsimileError } from '../shared/errors.ts'
import { type KeyRange, POSITION_BYTES } from './catalog-keys.ts'
import type { Cursor, FoundRow, Row, Rows } from './catalog-rows.ts'

/** Rows read at once; where much is jumped over, fewer after each jump. */
const ROWS_AT_ONCE = 2000
const ROWS_AFTER_JUMP = 16
const READ_BYTES = 256 << 10
/** Versions of a path, on average over so many rows, from which on a second look for the values costs less than reading all. */
const VERSIONS_MANY = 6
const ROWS_THAT_TELL = 200

export class NewestRows {
  readonly #rows: Rows
  readonly #range: KeyRange
  readonly #until: Buffer
  #entries: Cursor | undefined
  #keys: Cursor<FoundRow> | undefined
  #isOfKeys = false
  #cursor: Cursor<FoundRow> | undefined
  /** Where the next rows begin, once some were read. */
  #from: Buffer | undefined
  #ahead: Promise<readonly FoundRow[]> | undefined
  #readsAhead: boolean
  #atOnce: number
  /** A key of the path that is being read, how many of its versions were, and the newest that is not too new. */
  #current: Buffer | undefined
  #count = 0
  #newest: FoundRow | undefined
  /** Since it was last decided whether keys alone are read: versions that were read, and paths among them. */
  #versions = 0
  #paths = 0

  /** `until`: the position, as in keys. `isJumping`: whether much is likely to be jumped over. */
  constructor(rows: Rows, range: KeyRange, until: Buffer, isJumping: boolean) {
    this.#rows = rows
    this.#range = range
    this.#until = until
    this.#readsAhead = !isJumping
    this.#atOnce = isJumping ? ROWS_AFTER_JUMP : ROWS_AT_ONCE
  }

  /** Some of what follows, in the order of keys, ended paths among it; undefined at the end. */
  async next(): Promise<readonly Row[] | undefined> {
    for (;;) {
      const found = await (this.#ahead ?? this.#read())
      this.#ahead = undefined
      if (found.length === 0) return this.#end()
      const settled = this.#take(found)
      if (this.#current !== undefined && this.#count >= found.length) await this.#lookUp(this.#current)
      // Read while these are looked at. Of one level alone most may be jumped over.
      if (this.#readsAhead) this.#ahead = this.#read()
      this.#readsAhead = true
      if (settled.length > 0) return this.#withValues(settled)
    }
  }

  /** Whether what follows begins with a path whose key begins so; some of its versions were read. */
  isWithin(prefix: Buffer): boolean {
    return this.#current !== undefined && beginsWith(this.#current, prefix)
  }

  /** Goes on with that key, or the first behind it; the path that is being read is left out. */
  async jump(to: Buffer): Promise<void> {
    this.#current = undefined
    this.#newest = undefined
    this.#readsAhead = false
    this.#atOnce = ROWS_AFTER_JUMP
    await this.#seek(to)
  }

  async close(): Promise<void> {
    // Whoever looks no further does not care whether it could have been read.
    await this.#ahead?.catch(() => undefined)
    await this.#entries?.close()
    await this.#keys?.close()
  }

  async #seek(to: Buffer): Promise<void> {
    const ahead = this.#ahead
    this.#ahead = undefined
    await ahead
    this.#cursor?.seek(to)
    this.#from = to
  }

  /** An error is told to who comes to it. */
  #read(): Promise<readonly FoundRow[]> {
    const options = { readBytes: READ_BYTES }
    const cursor = this.#isOfKeys
      ? (this.#keys ??= this.#rows.keyCursor(this.#range, options))
      : (this.#entries ??= this.#rows.cursor(this.#range, options))
    if (cursor !== this.#cursor && this.#from !== undefined) cursor.seek(this.#from)
    this.#cursor = cursor
    const rows = cursor.next(this.#atOnce)
    rows.catch(() => {})
    this.#atOnce = Math.min(ROWS_AT_ONCE, this.#atOnce * 4)
    return rows
  }

  /** @returns what was found of the paths that ended */
  #take(found: readonly FoundRow[]): FoundRow[] {
    const settled: FoundRow[] = []
    for (const row of found) {
      const [key] = row
      if (this.#current === undefined || !isSamePath(this.#current, key)) {
        if (this.#newest !== undefined) settled.push(this.#newest)
        this.#newest = undefined
        this.#current = key
        this.#count = 0
        this.#paths += 1
      }
      this.#count += 1
      if (isUntil(key, this.#until)) this.#newest = row
    }
    const [last] = found.at(-1) ?? []
    if (last !== undefined) this.#from = Buffer.concat([last, Buffer.alloc(1)])
    this.#versions += found.length
    if (this.#versions >= ROWS_THAT_TELL) {
      this.#isOfKeys = this.#versions >= VERSIONS_MANY * this.#paths
      this.#versions = 0
      this.#paths = 0
    }
    return settled
  }

  /** Versions of one path were read and nothing else: the one that counts may be far away, and the next path too. */
  async #lookUp(current: Buffer): Promise<void> {
    this.#newest = await newestRow(this.#rows, Buffer.concat([pathOf(current), this.#until]))
    await this.#seek(behind(pathOf(current)))
  }

  async #end(): Promise<readonly Row[] | undefined> {
    const last = this.#newest
    this.#newest = undefined
    this.#current = undefined
    return last === undefined ? undefined : this.#withValues([last])
  }

  async #withValues(found: readonly FoundRow[]): Promise<readonly Row[]> {
    const keys = found.flatMap(([key, value]) => (value === undefined ? [key] : []))
    const values = keys.length === 0 ? [] : await this.#rows.values(keys)
    let next = 0
    return found.map(([key, value]): Row => [key, value ?? values[next++] ?? lost()])
  }
}

function lost(): never {
  throw new PacsimileError(
    'io',
    'The catalog has lost a version; stop the collector and run `pacsimile rebuild`, which makes it anew from the repository',
  )
}

/** Of the versions of the key's path, the newest that is not newer than the key says. */
export async function newestRow(rows: Rows, key: Buffer): Promise<Row | undefined> {
  const newestFirst = { reverse: true, limit: 1, batch: 1 }
  for await (const row of rows.entries({ gte: pathOf(key), lt: Buffer.concat([key, Buffer.alloc(1)]) }, newestFirst)) return row
  return undefined
}

/** With what ends it. */
function pathOf(key: Buffer): Buffer {
  return key.subarray(0, key.length - POSITION_BYTES)
}

function isSamePath(a: Buffer, b: Buffer): boolean {
  if (a.length !== b.length) return false
  // From behind, where neighbours differ.
  for (let at = a.length - POSITION_BYTES - 1; at >= 0; at--) if (a[at] !== b[at]) return false
  return true
}

/** Whether the position of a key is not behind another. */
function isUntil(key: Buffer, until: Buffer): boolean {
  const start = key.length - POSITION_BYTES
  for (let at = 0; at < POSITION_BYTES; at++) {
    const difference = (key[start + at] ?? 0) - (until[at] ?? 0)
    if (difference !== 0) return difference < 0
  }
  return true
}

/** Whether a key begins so. */
export function beginsWith(key: Buffer, prefix: Buffer): boolean {
  return key.length >= prefix.length && key.compare(prefix, 0, prefix.length, 0, prefix.length) === 0
}

/** The first key that does not begin with what ends in NUL, and that a name can begin. */
export function behind(prefix: Buffer): Buffer {
  const key = Buffer.from(prefix)
  key[key.length - 1] = 1
  return key
}
