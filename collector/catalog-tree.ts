/**
 * The tree at a position, out of the versions that a catalog holds of every path.
 *
 * Invariant: the cost follows the paths that are passed, not how many versions they have or what lies below what is not asked for: of a
 * path with many versions the one that counts is looked up, and whole subtrees are jumped over. It prevents a listing that takes as long as the
 * history is, of an archive with a database in it that was written a million times.
 */
import { childOf, type Label, type RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import type { PlainVersion } from '../shared/version.ts'
import { withAdditions } from '../shared/version-extensions.ts'
import { type KeyRange, keys, POSITION_BYTES, ranges, readVersionKey } from './catalog-keys.ts'
import { readVersion } from './catalog-values.ts'

const NUL = 0
const FIRST_BYTE_OF_NAMES = 1

/** Rows read at once; where much is jumped over, fewer after each jump. */
const ROWS_AT_ONCE = 1000
const ROWS_AFTER_JUMP = 16
const READ_BYTES = 256 << 10

/** A key and its value. */
export type Row = readonly [Buffer, Buffer]

export interface Cursor {
  /** Some of the rows that follow; none at the end. */
  next(count?: number): Promise<readonly Row[]>
  /** Goes on with that key, or the first behind it. */
  seek(key: Buffer): void
  close(): Promise<void>
}

/** Where rows are read in the order of their keys. */
export interface Rows {
  entries(range: KeyRange, options?: { reverse?: boolean; limit?: number; batch?: number }): AsyncGenerator<Row>
  cursor(range: KeyRange, options?: { readBytes?: number }): Cursor
}

export interface TreePlace {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly at: Position
}

/** The path itself and all below it, depth first, names in byte order. */
export async function* readTree(rows: Rows, place: TreePlace): AsyncGenerator<TreeEntry> {
  const { agent, volume, path } = place
  const own = await readEntry(rows, place)
  if (own !== undefined) yield own
  yield* readRange(rows, ranges.versionsBelow(agent, volume, path), place, undefined)
}

/**
 * The path itself and what is right in it, names in byte order. Where something is known below a directory that is not known itself, the
 * directory stands there with the rights of its owner alone.
 */
export async function* readDirectory(rows: Rows, place: TreePlace): AsyncGenerator<TreeEntry> {
  const { agent, volume, path } = place
  const own = await readEntry(rows, place)
  if (own !== undefined) yield own
  const range = ranges.versionsBelow(agent, volume, path)
  // The range begins with the first byte that a name can have.
  yield* readRange(rows, range, place, range.gte.length - 1)
}

/** The path alone; undefined where it is not there. */
export async function readEntry(rows: Rows, { agent, volume, path, at }: TreePlace): Promise<TreeEntry | undefined> {
  const row = await newestRow(rows, keys.version(agent, volume, path, at))
  return row === undefined ? undefined : entryOf(row, agent, volume)
}

/** `namesAt`: where the names begin in a key, where only one level is asked for. */
async function* readRange(
  rows: Rows,
  range: KeyRange,
  { agent, volume, path, at }: TreePlace,
  namesAt: number | undefined,
): AsyncGenerator<TreeEntry> {
  const until = positionOf(keys.version(agent, volume, path, at))
  const cursor = rows.cursor(range, { readBytes: READ_BYTES })
  let next: Promise<readonly Row[]> | undefined
  /** A key of the path that is being read, how many of its versions were, and the newest that is not too new. */
  let current: Buffer | undefined
  let count = 0
  let newest: Row | undefined
  /** What begins so is passed over. */
  let passed: Buffer | undefined

  const settled = (): TreeEntry | undefined => {
    const entry = newest === undefined ? undefined : entryOf(newest, agent, volume)
    newest = undefined
    if (entry === undefined || namesAt === undefined || current === undefined) return entry
    const nameEnd = current.indexOf(NUL, namesAt)
    passed = current.subarray(0, nameEnd + 1)
    return current[nameEnd + 1] === NUL ? entry : unknownDirectory(childOf(path, current.toString('latin1', namesAt, nameEnd)), entry)
  }

  try {
    let atOnce = namesAt === undefined ? ROWS_AT_ONCE : ROWS_AFTER_JUMP
    next = readAhead(cursor, atOnce)
    for (let found = await next; found.length > 0; found = await next) {
      atOnce = Math.min(ROWS_AT_ONCE, atOnce * 4)
      // Read while these are looked at. Of one level alone most would be jumped over.
      next = namesAt === undefined ? readAhead(cursor, atOnce) : undefined
      for (const row of found) {
        const [key] = row
        if (current === undefined || !isSamePath(current, key)) {
          const entry = settled()
          if (entry !== undefined) yield entry
          current = undefined
          if (passed !== undefined && beginsWith(key, passed)) continue
          current = key
          count = 0
        }
        count += 1
        if (positionOf(key).compare(until) <= 0) newest = row
      }
      if (current === undefined && passed !== undefined) {
        cursor.seek(behind(passed))
        atOnce = ROWS_AFTER_JUMP
      } else if (current !== undefined && count >= found.length) {
        // Versions of one path and nothing else: the one that counts may be far away, and the next path too.
        newest = await newestRow(rows, Buffer.concat([pathOf(current), until]))
        await next
        next = undefined
        cursor.seek(behind(pathOf(current)))
      }
      next ??= readAhead(cursor, atOnce)
    }
    const last = settled()
    if (last !== undefined) yield last
  } finally {
    // Whoever looks no further does not care whether it could have been read.
    await next?.catch(() => undefined)
    await cursor.close()
  }
}

/** An error is told to who comes to it. */
function readAhead(cursor: Cursor, count: number): Promise<readonly Row[]> {
  const rows = cursor.next(count)
  rows.catch(() => {})
  return rows
}

/** Of the versions of the key's path, the newest that is not newer than the key says. */
async function newestRow(rows: Rows, key: Buffer): Promise<Row | undefined> {
  const newestFirst = { reverse: true, limit: 1, batch: 1 }
  for await (const row of rows.entries({ gte: pathOf(key), lt: Buffer.concat([key, Buffer.alloc(1)]) }, newestFirst)) return row
  return undefined
}

function entryOf([key, value]: Row, agent: Label, volume: Label): TreeEntry | undefined {
  const version = readVersion(value)
  return version === undefined ? undefined : { ...readVersionKey(key, agent, volume), version }
}

function unknownDirectory(path: RelativePath, { position }: TreeEntry): TreeEntry {
  const nothing = { uid: 0, gid: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, links: 1, xattrs: [] }
  const version: PlainVersion = { kind: 'directory', mode: 0o700, ...nothing }
  return { path, position, version: withAdditions(version, { isInferred: true }) }
}

/** With what ends it. */
function pathOf(key: Buffer): Buffer {
  return key.subarray(0, key.length - POSITION_BYTES)
}

function positionOf(key: Buffer): Buffer {
  return key.subarray(key.length - POSITION_BYTES)
}

function isSamePath(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && a.compare(b, 0, b.length - POSITION_BYTES, 0, a.length - POSITION_BYTES) === 0
}

function beginsWith(key: Buffer, prefix: Buffer): boolean {
  return key.length >= prefix.length && key.compare(prefix, 0, prefix.length, 0, prefix.length) === 0
}

/** The first key that does not begin with what ends in NUL, and that a name can begin. */
function behind(prefix: Buffer): Buffer {
  const key = Buffer.from(prefix)
  key[key.length - 1] = FIRST_BYTE_OF_NAMES
  return key
}
