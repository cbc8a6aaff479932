/**
 * Kernel events, which name directories by handle, as events of volumes, which name paths.
 *
 * Invariant: only what lies at or below a volume's directory leaves here, each name once per batch; what happened to a
 * name is never decided by the event, which may be merged from several: it only says where to look. It prevents the rest
 * of a busy filesystem from becoming work.
 */
import type { ByteString } from '../../shared/bytes.ts'
import { errnoOf, reasonOf } from '../../shared/errors.ts'
import { PATH_BYTES_MAX } from '../../shared/limits.ts'
import { type RelativePath, ROOT } from '../../shared/path.ts'
import type { DirectoryPaths } from './directory-paths.ts'
import { EVENT, filesystemId, type HandleKey, pathOf } from './fanotify-calls.ts'
import { type DirectoryEntry, type FanotifyEvent, fanotifyEvents } from './fanotify-events.ts'
import type { WatchEvent } from './watcher.ts'
import type { Writers } from './writers.ts'

/** A volume as the watching thread knows it. */
export interface WatchedVolume {
  readonly name: string
  /** Its directory, open for reading. */
  readonly root: number
  readonly ignored: readonly RelativePath[]
}

/** A place below a volume. */
interface VolumePlace {
  readonly volume: string
  readonly path: RelativePath
}

const WRITING = EVENT.modify | EVENT.closeWrite
const ENTRY = EVENT.create | EVENT.delete | EVENT.rename | EVENT.movedFrom | EVENT.movedTo
const FSID_BYTES = 8

export class EventPlaces {
  readonly #volumes = new Map<string, WatchedVolume & { readonly filesystem: ByteString }>()
  readonly #directories: DirectoryPaths
  readonly #writers: Writers
  readonly #ownPid: number
  /** What was told of without a name, and is to be told. */
  readonly #nameless = new Set<HandleKey>()
  #namelessSinceMs = 0
  /** Where the volumes' directories are now. */
  #roots: readonly { readonly volume: string; readonly at: ByteString }[] = []

  constructor(parts: { directories: DirectoryPaths; writers: Writers; ownPid: number }) {
    this.#directories = parts.directories
    this.#writers = parts.writers
    this.#ownPid = parts.ownPid
  }

  add(volume: WatchedVolume): void {
    this.#volumes.set(volume.name, { ...volume, filesystem: filesystemId(volume.root) })
  }

  remove(name: string): void {
    this.#volumes.delete(name)
  }

  get names(): Iterable<string> {
    return this.#volumes.keys()
  }

  /** Volumes on the filesystem of which the kernel speaks; all where it does not say. */
  volumesOn(filesystem: ByteString | undefined): string[] {
    return [...this.#volumes.values()]
      .filter((volume) => filesystem === undefined || volume.filesystem === filesystem)
      .map(({ name }) => name)
  }

  /** The volume's directory may have been renamed, with everything above it. */
  beginBatch(): void {
    this.#directories.beginBatch()
    this.#roots = [...this.#volumes.values()].map(({ name, root }) => ({ volume: name, at: pathOf(root) }))
  }

  /** What a batch says of names, by volume; the rest waits for `tellNameless`. `onOwn` is told of names that this process closed. */
  of(batch: Uint8Array, nowMs: number, onOwn: (name: ByteString) => void): Map<string, WatchEvent[]> {
    this.beginBatch()
    const found = new Map<string, WatchEvent[]>()
    const seen = new Map<string, number>()
    for (const event of fanotifyEvents(batch)) {
      if (event.pid === this.#ownPid) {
        if (event.entry !== undefined && (event.mask & EVENT.closeWrite) !== 0) onOwn(event.entry.name)
        continue
      }
      const about = event.entry?.directory ?? event.target
      this.#orMissed(about?.slice(0, FSID_BYTES), found, () => this.#place(event, nowMs, found, seen))
    }
    return found
  }

  /** For how long there is something to tell without a name; undefined where there is nothing. */
  namelessMs(nowMs: number): number | undefined {
    return this.#nameless.size === 0 ? undefined : nowMs - this.#namelessSinceMs
  }

  /** Behind all that was told of names: what is looked up later is not further from what is there. */
  tellNameless(found: Map<string, WatchEvent[]>): void {
    const inodes = new Map<ByteString, bigint[]>()
    for (const target of this.#nameless) {
      const filesystem = target.slice(0, FSID_BYTES)
      this.#orMissed(filesystem, found, () => {
        const inode = this.#directories.inodeOf(target)
        if (inode === undefined) return
        const others = inodes.get(filesystem)
        if (others === undefined) inodes.set(filesystem, [inode])
        else others.push(inode)
      })
    }
    this.#nameless.clear()
    for (const [filesystem, those] of inodes)
      for (const volume of this.volumesOn(filesystem)) tell(found, volume, { kind: 'inodes', inodes: BigUint64Array.from(those) })
  }

  /** One event that cannot be followed is made good by a scan: the others are as good as ever. */
  #orMissed(filesystem: ByteString | undefined, found: Map<string, WatchEvent[]>, follow: () => void): void {
    try {
      follow()
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      for (const volume of this.volumesOn(filesystem)) tell(found, volume, missed(`an event could not be followed: ${reasonOf(error)}`))
    }
  }

  #place(event: FanotifyEvent, nowMs: number, found: Map<string, WatchEvent[]>, seen: Map<string, number>): void {
    const { mask, entry, from, target } = event
    if ((mask & EVENT.overflow) !== 0) {
      for (const volume of this.volumesOn(undefined)) tell(found, volume, missed('the kernel dropped events: its queue overflowed'))
      return
    }
    if ((mask & EVENT.filesystemError) !== 0) {
      for (const volume of this.volumesOn(target?.slice(0, FSID_BYTES)))
        tell(found, volume, missed(`the filesystem reports an error (${event.error})`))
      return
    }
    if (from !== undefined && entry !== undefined) {
      this.#placeRename(event, from, entry, nowMs, found, seen)
      return
    }
    // The names of unlinked files, which a new file without a name gets as well, are no names.
    const isNameless = entry === undefined || (entry.name.startsWith('#') && (mask & ENTRY) === 0 && /^#\d+$/.test(entry.name))
    if (isNameless) {
      if (target === undefined) return
      if (this.#nameless.size === 0) this.#namelessSinceMs = nowMs
      this.#nameless.add(target)
      return
    }
    const place = this.#placeOf(entry)
    if (place === undefined) return
    this.#tellDirty(event, place, nowMs, found, seen)
    // Kernels that tell a move as two events do not say where from: what is in the directory may be new here.
    if ((mask & EVENT.movedTo) !== 0 && (mask & EVENT.onDirectory) !== 0) tell(found, place.volume, movedIn(place.path))
  }

  #placeRename(
    event: FanotifyEvent,
    from: DirectoryEntry,
    to: DirectoryEntry,
    nowMs: number,
    found: Map<string, WatchEvent[]>,
    seen: Map<string, number>,
  ): void {
    const [left, arrived] = [this.#placeOf(from), this.#placeOf(to)]
    const isDirectory = (event.mask & EVENT.onDirectory) !== 0
    if (isDirectory) seen.clear()
    if (left !== undefined) this.#tellDirty(event, left, nowMs, found, seen)
    if (arrived === undefined) return
    this.#tellDirty(event, arrived, nowMs, found, seen)
    if (!isDirectory) return
    const isWithinVolume = left !== undefined && left.volume === arrived.volume && left.path !== ROOT && arrived.path !== ROOT
    tell(found, arrived.volume, isWithinVolume ? { kind: 'renamed', path: left.path, to: arrived.path } : movedIn(arrived.path))
  }

  /** Several events of one name are one; it is open if the last of them says so. */
  #tellDirty(
    { mask, pid }: FanotifyEvent,
    { volume, path }: VolumePlace,
    nowMs: number,
    found: Map<string, WatchEvent[]>,
    seen: Map<string, number>,
  ): void {
    const isOpen = (mask & WRITING) === EVENT.modify && (mask & ENTRY) === 0
    const isEntry = (mask & ENTRY) !== 0
    const isDirectoryGone = (mask & EVENT.delete) !== 0 && (mask & EVENT.onDirectory) !== 0
    const writer = (mask & WRITING) === 0 ? undefined : this.#writers.writer(pid, nowMs)
    const key = `${volume}\0${path}`
    const events = found.get(volume) ?? []
    const at = seen.get(key)
    const before = at === undefined ? undefined : events[at]
    if (at !== undefined && before?.kind === 'dirty') {
      events[at] = {
        kind: 'dirty',
        path,
        isOpen,
        isEntry: isEntry || before.isEntry === true,
        isDirectoryGone: isDirectoryGone || before.isDirectoryGone === true,
        writer: writer ?? before.writer,
      }
      return
    }
    seen.set(key, events.length)
    events.push({ kind: 'dirty', path, isOpen, isEntry, isDirectoryGone, writer })
    found.set(volume, events)
  }

  #placeOf({ directory, name }: DirectoryEntry): VolumePlace | undefined {
    const at = this.#directories.pathOf(directory)
    if (at === undefined) return undefined
    return this.placeAt(name === '.' ? at : at === '/' ? `/${name}` : `${at}/${name}`)
  }

  /** Undefined where the absolute path is of no volume, or ignored. */
  placeAt(absolute: ByteString): VolumePlace | undefined {
    for (const { volume, at } of this.#roots) {
      if (absolute === at) return { volume, path: ROOT }
      if (!absolute.startsWith(at) || (absolute.charCodeAt(at.length) !== 0x2f && at !== '/')) continue
      const path = absolute.slice(at === '/' ? 1 : at.length + 1) as RelativePath
      return path.length > PATH_BYTES_MAX || this.#isIgnored(volume, path) ? undefined : { volume, path }
    }
    return undefined
  }

  #isIgnored(volume: string, path: RelativePath): boolean {
    const ignored = this.#volumes.get(volume)?.ignored ?? []
    return ignored.some((above) => path === above || path.startsWith(`${above}/`))
  }
}

export function tell(found: Map<string, WatchEvent[]>, volume: string, event: WatchEvent): void {
  const events = found.get(volume)
  if (events === undefined) found.set(volume, [event])
  else events.push(event)
}

export function missed(cause: string): WatchEvent {
  return { kind: 'rescan', path: ROOT, isShallow: false, cause, isGap: true }
}

function movedIn(path: RelativePath): WatchEvent {
  return { kind: 'rescan', path, isShallow: false, cause: 'a directory was moved into the volume' }
}
