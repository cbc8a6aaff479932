/**
 * The tree of a moment as a filesystem sees it: nodes that the kernel holds on to, directories that are listed when somebody looks into them.
 *
 * Nothing is loaded ahead, so a mount of 10^7 files stands at once. Hard links of one file are one node. Invariant: a path has the same
 * inode number for as long as it is mounted, forgotten or not, and another path another one, hard links apart. It prevents tools that recognise files
 * by number (tar, rsync, find) from taking two files for one.
 */
import type { ByteString } from '../shared/bytes.ts'
import { digestOf } from '../shared/digest.ts'
import { childOf, type Label, nameOf, parentOf, pathBuffer, type RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import { type FileKind, hardLinkKey, type Version } from '../shared/version.ts'
import { holesOf, withAdditions } from '../shared/version-extensions.ts'
import type { Attributes } from './fuse-messages.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'

/** Entries of listings that are kept, beside those of the directory that was listed last. */
const LISTED_MAX = 200_000
/** Entries of single paths that are kept. */
const RECENT_MAX = 10_000
const ROOT_NODE = 1

const TYPES: Readonly<Record<FileKind, number>> = {
  'fifo': 0o010000,
  'character-device': 0o020000,
  'directory': 0o040000,
  'block-device': 0o060000,
  'file': 0o100000,
  'symlink': 0o120000,
  'socket': 0o140000,
}
const SYMLINK_MODE = 0o777

export interface MountedPlace {
  readonly agent: Label
  readonly volume: Label
  /** A directory. */
  readonly path: RelativePath
  readonly at: Position
}

/** What the kernel holds on to. Small: there may be as many as there are files. */
interface Node {
  readonly path: RelativePath
  readonly key: string
  references: number
}

/** Of a directory, by name. */
type Listing = ReadonlyMap<ByteString, ListedEntry>

export class MountedTree {
  readonly #source: HistorySource
  readonly #place: MountedPlace
  readonly #nodes = new Map<number, Node>()
  readonly #numbers = new Map<string, number>()
  /** Those that were asked for longest ago come first. */
  readonly #listings = new Map<RelativePath, Promise<Listing>>()
  readonly #recent = new Map<RelativePath, ListedEntry>()
  #listedCount = 0
  #next = ROOT_NODE + 1

  constructor(source: HistorySource, place: MountedPlace) {
    this.#source = source
    this.#place = place
    this.#nodes.set(ROOT_NODE, { path: place.path, key: place.path, references: 1 })
    this.#numbers.set(place.path, ROOT_NODE)
  }

  /** What a node is; undefined where the kernel asks for one that it has given up. @throws whatever the source throws */
  entryOf(node: number): Promise<ListedEntry | undefined> {
    const known = this.#nodes.get(node)
    return known === undefined ? Promise.resolve(undefined) : this.#entryAt(known.path)
  }

  /** What is in a directory by that name. @throws whatever the source throws */
  child(directory: number, name: ByteString): Promise<ListedEntry | undefined> {
    const known = this.#nodes.get(directory)
    return known === undefined ? Promise.resolve(undefined) : this.#entryAt(childOf(known.path, name))
  }

  /** What is in a directory, names in byte order. @throws whatever the source throws */
  async children(directory: number): Promise<readonly ListedEntry[]> {
    const known = this.#nodes.get(directory)
    return known === undefined ? [] : [...(await this.#listing(known.path)).values()]
  }

  /** The number of an entry's node, with one more reference to it. */
  refer(entry: ListedEntry): number {
    const key = keyOf(entry)
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      const node = this.#nodes.get(known)
      if (node !== undefined) node.references += 1
      return known
    }
    const number = this.#next
    this.#next += 1
    this.#numbers.set(key, number)
    this.#nodes.set(number, { path: entry.path, key, references: 1 })
    this.#remember(entry)
    return number
  }

  forget(number: number, count: number): void {
    const node = this.#nodes.get(number)
    if (node === undefined || number === ROOT_NODE) return
    node.references -= count
    if (node.references > 0) return
    this.#nodes.delete(number)
    this.#numbers.delete(node.key)
  }

  async #entryAt(path: RelativePath): Promise<ListedEntry | undefined> {
    const recent = this.#recent.get(path)
    if (recent !== undefined) return recent
    const parent = path === this.#place.path ? undefined : parentOf(path)
    const listing = parent === undefined ? undefined : this.#listings.get(parent)
    const entry = listing === undefined ? await this.#askedFor(path) : (await listing).get(nameOf(path))
    if (entry !== undefined) this.#remember(entry)
    return entry
  }

  #remember(entry: ListedEntry): void {
    this.#recent.set(entry.path, entry)
    if (this.#recent.size <= RECENT_MAX) return
    for (const oldest of this.#recent.keys()) {
      this.#recent.delete(oldest)
      return
    }
  }

  async #askedFor(path: RelativePath): Promise<ListedEntry | undefined> {
    const { agent, volume, at } = this.#place
    for await (const entry of this.#source.tree(agent, volume, path, at, 'directory')) {
      // A directory that is not known itself, and holds something.
      return entry.path === path ? entry : { ...entry, path, version: UNKNOWN_DIRECTORY, absent: undefined }
    }
    // The root of a volume that holds nothing.
    return path === this.#place.path ? { path, position: at, version: UNKNOWN_DIRECTORY, absent: undefined } : undefined
  }

  #listing(path: RelativePath): Promise<Listing> {
    const known = this.#listings.get(path)
    if (known !== undefined) {
      this.#listings.delete(path)
      this.#listings.set(path, known)
      return known
    }
    const listing = this.#list(path)
    this.#listings.set(path, listing)
    listing.then(
      ({ size }) => this.#keepWithin(path, size),
      // It is told to whoever asked, and asked for again by the next.
      () => this.#listings.delete(path),
    )
    return listing
  }

  async #list(path: RelativePath): Promise<Listing> {
    const { agent, volume, at } = this.#place
    const found = new Map<ByteString, ListedEntry>()
    for await (const entry of this.#source.tree(agent, volume, path, at, 'directory'))
      if (parentOf(entry.path) === path) found.set(nameOf(entry.path), entry)
    return found
  }

  async #subtract(listing: Promise<Listing>): Promise<void> {
    // One that failed is not counted.
    const given = await listing.catch(() => undefined)
    this.#listedCount -= given?.size ?? 0
  }

  #keepWithin(path: RelativePath, size: number): void {
    this.#listedCount += size
    for (const [oldest, listing] of this.#listings) {
      if (this.#listedCount <= LISTED_MAX || oldest === path) return
      this.#listings.delete(oldest)
      void this.#subtract(listing)
    }
  }
}

const UNKNOWN_DIRECTORY: Version = withAdditions(
  { kind: 'directory', mode: 0o700, uid: 0, gid: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, links: 1, xattrs: [] },
  { isInferred: true },
)

/** The same for all names of a file. */
function keyOf({ path, version }: ListedEntry): string {
  const linked = hardLinkKey(version)
  // No path holds a NUL.
  return linked === undefined ? path : `\0${linked}`
}

export function attributesOf(entry: ListedEntry): Attributes {
  const { version } = entry
  const { mtimeNs, ctimeNs, uid, gid } = version
  const size = version.kind === 'file' ? version.size : version.kind === 'symlink' ? version.target.length : 0
  return {
    inode: inodeOf(entry),
    mode: modeOf(version),
    size,
    usedBytes: size - holesOf(version).reduce((sum, { length }) => sum + length, 0),
    mtimeNs,
    ctimeNs,
    // Of a directory it would have to be the number of those in it, by which some tools look no further.
    links: version.kind === 'directory' ? 1 : Math.max(1, version.links),
    uid,
    gid,
    device: 'device' in version ? version.device : 0n,
  }
}

export function modeOf(version: Version): number {
  return TYPES[version.kind] | (version.kind === 'symlink' ? SYMLINK_MODE : version.mode)
}

/** 63 bits of a digest: two of 10^7 paths share one in every million of mounts. */
export function inodeOf(entry: ListedEntry): bigint {
  return pathBuffer(digestOf(pathBuffer(keyOf(entry)))).readBigUInt64LE(0) >> 1n
}
