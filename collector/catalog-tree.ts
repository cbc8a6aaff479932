/**
 * The tree at a position, out of the versions that a catalog holds of every path.
 *
 * Invariant: the cost follows the paths that are passed, not how many versions they have or what lies below what is not asked for: of a
 * path with many versions the one that counts is looked up, and whole subtrees are jumped over. It prevents a listing that takes as long as the
 * history is, of an archive with a database in it that was written a million times. Entries come in groups and as they are stored, so that
 * who passes them on neither waits for each nor decodes it.
 */
import { ByteReader, ByteWriter } from '../shared/bytes.ts'
import { childOf, type Label, type RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { decodeVersion, encodeVersion, type PlainVersion } from '../shared/version.ts'
import { withAdditions } from '../shared/version-extensions.ts'
import { keys, POSITION_BYTES, ranges, readVersionKey } from './catalog-keys.ts'
import type { Row, Rows } from './catalog-rows.ts'
import { storedVersion } from './catalog-values.ts'
import type { TreeDepth } from './history-source.ts'
import { beginsWith, behind, NewestRows, newestRow } from './newest-rows.ts'

const NUL = 0

export interface TreePlace {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly at: Position
}

/** An entry of a tree, its version as `encodeVersion` writes it. */
export interface StoredEntry {
  readonly path: RelativePath
  readonly position: Position
  readonly version: Buffer
}

/**
 * The path itself and all below it, depth first, names in byte order. With 'directory' only what is right in it: where something is known below a
 * directory that is not known itself, the directory stands there with the rights of its owner alone.
 */
export async function* readStored(rows: Rows, place: TreePlace, depth: TreeDepth): AsyncGenerator<readonly StoredEntry[]> {
  const { agent, volume, path } = place
  const own = await readStoredEntry(rows, place)
  if (own !== undefined) yield [own]
  const range = ranges.versionsBelow(agent, volume, path)
  // The range begins with the first byte that a name can have.
  const names = depth === 'all' ? undefined : new Names(place, range.gte.length - 1)
  const newest = new NewestRows(rows, range, positionOf(keyOf(place)), names !== undefined)
  try {
    for (let found = await newest.next(); found !== undefined; found = await newest.next()) {
      yield names === undefined ? found.flatMap((row) => storedEntry(row, agent, volume) ?? []) : names.of(found)
      const passed = names?.passed
      if (passed !== undefined && newest.isWithin(passed)) await newest.jump(behind(passed))
    }
  } finally {
    await newest.close()
  }
}

/** The same, decoded and one by one. */
export async function* readTree(rows: Rows, place: TreePlace, depth: TreeDepth): AsyncGenerator<TreeEntry> {
  for await (const entries of readStored(rows, place, depth)) for (const entry of entries) yield decoded(entry)
}

/** The path alone; undefined where it is not there. */
export async function readEntry(rows: Rows, place: TreePlace): Promise<TreeEntry | undefined> {
  const entry = await readStoredEntry(rows, place)
  return entry === undefined ? undefined : decoded(entry)
}

async function readStoredEntry(rows: Rows, place: TreePlace): Promise<StoredEntry | undefined> {
  const row = await newestRow(rows, keyOf(place))
  return row === undefined ? undefined : storedEntry(row, place.agent, place.volume)
}

/** Of what lies below a directory, one entry for each name in it. */
class Names {
  readonly #place: TreePlace
  readonly #namesAt: number
  /** How the keys of the last name that there is begin: all others that begin so are passed over. */
  passed: Buffer | undefined

  /** `namesAt`: where the names begin in a key. */
  constructor(place: TreePlace, namesAt: number) {
    this.#place = place
    this.#namesAt = namesAt
  }

  of(rows: readonly Row[]): StoredEntry[] {
    const { agent, volume, path } = this.#place
    const found: StoredEntry[] = []
    for (const row of rows) {
      const [key] = row
      if (this.passed !== undefined && beginsWith(key, this.passed)) continue
      const entry = storedEntry(row, agent, volume)
      if (entry === undefined) continue
      const nameEnd = key.indexOf(NUL, this.#namesAt)
      this.passed = key.subarray(0, nameEnd + 1)
      const isName = key[nameEnd + 1] === NUL
      found.push(isName ? entry : unknownDirectory(childOf(path, key.toString('latin1', this.#namesAt, nameEnd)), entry))
    }
    return found
  }
}

/** Undefined where the path ended. */
function storedEntry([key, value]: Row, agent: Label, volume: Label): StoredEntry | undefined {
  const version = storedVersion(value)
  if (version === undefined) return undefined
  const { path, position } = readVersionKey(key, agent, volume)
  return { path, position, version }
}

function decoded({ path, position, version }: StoredEntry): TreeEntry {
  return { path, position, version: decodeVersion(new ByteReader(version, 'Catalog version')) }
}

function unknownDirectory(path: RelativePath, { position }: StoredEntry): StoredEntry {
  const nothing = { uid: 0, gid: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, links: 1, xattrs: [] }
  const version: PlainVersion = { kind: 'directory', mode: 0o700, ...nothing }
  const to = new ByteWriter()
  encodeVersion(withAdditions(version, { isInferred: true }), to)
  return { path, position, version: to.take() }
}

function keyOf({ agent, volume, path, at }: TreePlace): Buffer {
  return keys.version(agent, volume, path, at)
}

function positionOf(key: Buffer): Buffer {
  return key.subarray(key.length - POSITION_BYTES)
}
