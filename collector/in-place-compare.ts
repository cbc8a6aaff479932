/**
 * What stands in a directory now against what a moment held: the steps that make the one the other. Nothing is written.
 *
 * A file is right when its size and its digest are, whatever its times say; then it stays the file that it is, and is given what metadata it lacks.
 * Invariant: every path that is wanted is either kept, or is in a step, or is listed with the reason why not; and nothing outside what was chosen is in a
 * step. It prevents a plan that promises more than it does, and a restore of one study from removing another.
 */
import type { ByteString } from '../shared/bytes.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { childOf, parentOf, type RelativePath, ROOT } from '../shared/path.ts'
import { isInUndoPlace } from '../shared/undo-place.ts'
import type { FileVersion, Version } from '../shared/version.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { digestAt, isOpenForWriting, type LiveEntry, liveEntry } from './live-entry.ts'
import { hasMetadata, type MetadataTerms } from './metadata-match.ts'
import { type LinkedFile, linkedFiles } from './restore-order.ts'
import { type Missing, pathOf, placeOf, type RestorePlan, type RestoreRequest, selectionOf, whyRefused } from './restore-plan.ts'
import { namesIn, type SafeDirectory } from './safe-directory.ts'

/** Paths are below the target. `old` is what stands there, of what is replaced or removed. Slots are numbered names in the undo place. */
export type Step =
  | {
      readonly kind: 'put'
      readonly path: RelativePath
      readonly entry: ListedEntry
      readonly slot: number
      readonly old: LiveEntry | undefined
    }
  /** Another name of a file: of one that is put by a step before, or of one that is kept. */
  | {
      readonly kind: 'link'
      readonly path: RelativePath
      readonly entry: ListedEntry
      readonly slot: number
      readonly of: { readonly slot: number } | { readonly path: RelativePath }
      readonly old: LiveEntry | undefined
    }
  | { readonly kind: 'remove'; readonly path: RelativePath; readonly slot: number; readonly old: LiveEntry }
  /** `version` undefined: it keeps what it has, whatever is done in it. `old` undefined: it is new. */
  | { readonly kind: 'metadata'; readonly path: RelativePath; readonly version: Version | undefined; readonly old: LiveEntry | undefined }

export interface Comparison {
  /** In the order in which they are to be done. */
  readonly steps: readonly Step[]
  readonly missing: readonly Missing[]
  /** Paths that go, with all that is below them, and their bytes. */
  readonly removed: number
  readonly removedBytes: number
  /** Paths that were not there at the moment, and stay; of a directory with all below it one. */
  readonly others: number
  /** Files, by their paths in the volume, that are replaced or removed while some process has them open for writing. */
  readonly inUse: readonly RelativePath[]
}

export interface CompareParts {
  readonly source: HistorySource
  readonly request: RestoreRequest
  readonly plan: RestorePlan
  readonly entries: readonly ListedEntry[]
  readonly target: SafeDirectory
  /** Of the target itself, before an earlier run of this restore had made a name in it. */
  readonly rootMtimeNs: bigint | undefined
  readonly onRead: (bytes: number) => void
}

/** @throws io where the target itself cannot be looked at */
export async function compareInPlace(parts: CompareParts): Promise<Comparison> {
  const comparer = new Comparer(parts)
  await comparer.run()
  return comparer
}

interface Found {
  readonly entry: ListedEntry
  readonly at: RelativePath
  readonly live: LiveEntry | undefined
}

class Comparer implements Comparison {
  readonly steps: Step[] = []
  readonly missing: Missing[] = []
  removed = 0
  removedBytes = 0
  others = 0
  readonly inUse: RelativePath[] = []
  readonly #parts: CompareParts
  readonly #terms: MetadataTerms
  readonly #isSelected: (path: RelativePath) => boolean
  readonly #root: LiveEntry
  #slots = 0
  /** Every path that is wanted, in the target. */
  readonly #wanted = new Set<RelativePath>()
  /** Directories that are not there yet, and ones that nothing can be done in, with the reason. */
  readonly #fresh = new Set<RelativePath>()
  readonly #blocked = new Map<RelativePath, string>()
  /** Directories that are wanted. */
  readonly #known = new Set<RelativePath>()
  /** Those that are there. */
  readonly #directories: Found[] = []
  /** Directories in which a name comes or goes. */
  readonly #touched = new Set<RelativePath>()
  readonly #metadata: Step[] = []
  readonly #digests = new Map<bigint, boolean>()

  constructor(parts: CompareParts) {
    this.#parts = parts
    const { setuid, owner } = parts.request
    this.#terms = { setuid, isOwnerAsked: owner !== 'none' }
    this.#isSelected = selectionOf(parts.request)
    const root = this.#look(ROOT)
    this.#root = parts.rootMtimeNs === undefined ? root : { ...root, mtimeNs: parts.rootMtimeNs }
  }

  #look(path: RelativePath): LiveEntry {
    try {
      const live = liveEntry(this.#parts.target, path)
      if (live !== undefined) return live
    } catch (error) {
      throw asPacsimileError(error, `Looking at ${this.#parts.request.to}`)
    }
    throw new PacsimileError('io', `Looking at ${this.#parts.request.to}: it is gone`)
  }

  async run(): Promise<void> {
    const { source, request, plan, entries } = this.#parts
    const files: ListedEntry[] = []
    const lives = new Map<RelativePath, Found>()
    for (const entry of entries) {
      const at = placeOf(entry.path, request, plan)
      this.#wanted.add(at)
      const refused = entry.version.kind === 'directory' ? undefined : await whyRefused(source, request, entry)
      if (refused !== undefined) {
        this.missing.push({ path: entry.path, ...refused })
        continue
      }
      const found = this.#find(entry, at)
      if (found === undefined) continue
      if (entry.version.kind === 'directory') {
        this.#compareDirectory(found)
      } else if (entry.version.kind === 'file') {
        files.push(entry)
        lives.set(entry.path, found)
      } else {
        this.#compareOther(found)
      }
    }
    for (const group of linkedFiles(files)) this.#compareFile(group, lives)
    if (plan.directories > 0) for (const { at } of this.#directories) this.#compareNames(at)
    this.#finishDirectories()
  }

  /** Undefined, and listed, where nothing can be done there. */
  #find(entry: ListedEntry, at: RelativePath): Found | undefined {
    const { plan } = this.#parts
    const parent = parentOf(at)
    const blocked = parent === undefined ? undefined : this.#blocked.get(parent)
    if (blocked !== undefined) return this.#refuse(entry, at, blocked)
    if (parent !== undefined && plan.directories > 0 && !this.#known.has(parent))
      return this.#refuse(entry, at, 'what is above it was no directory')
    if (isInUndoPlace(at)) return this.#refuse(entry, at, 'its name is one that restores keep for themselves')
    if (parent !== undefined && this.#fresh.has(parent)) return { entry, at, live: undefined }
    let live: LiveEntry | undefined
    try {
      live = at === ROOT ? this.#root : liveEntry(this.#parts.target, at)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return this.#refuse(entry, at, reasonOf(error))
    }
    if (live !== undefined && live.device !== this.#root.device)
      return this.#refuse(entry, at, 'another filesystem is mounted there: restore into it by itself')
    const isInTheWay = live?.kind === 'directory' && entry.version.kind !== 'directory' && this.#parts.request.delete !== true
    if (isInTheWay && this.#namesIn(at).length > 0)
      return this.#refuse(entry, at, 'a directory that is not empty stands there now; --delete puts it aside')
    return { entry, at, live }
  }

  #refuse({ path, version }: ListedEntry, at: RelativePath, reason: string): undefined {
    if (version.kind === 'directory') this.#blocked.set(at, reason)
    this.missing.push({ path, cause: 'refused', reason })
  }

  #compareDirectory(found: Found): void {
    const { at, live } = found
    this.#known.add(at)
    if (live?.kind === 'directory') {
      this.#directories.push(found)
      return
    }
    this.#put(found)
    this.#fresh.add(at)
  }

  #compareOther(found: Found): void {
    const { live, entry } = found
    const isRight = live !== undefined && isSameNode(live, entry.version) && hasMetadata(live, entry.version, this.#terms)
    if (!isRight) this.#put(found)
  }

  #put({ entry, at, live }: Found): number {
    const slot = this.#slots++
    this.steps.push({ kind: 'put', path: at, entry, slot, old: live })
    this.#touch(at, live)
    return slot
  }

  #link({ entry, at, live }: Found, of: { slot: number } | { path: RelativePath }): void {
    this.steps.push({ kind: 'link', path: at, entry, slot: this.#slots++, of, old: live })
    this.#touch(at, live)
  }

  #touch(at: RelativePath, old: LiveEntry | undefined): void {
    const parent = parentOf(at)
    if (parent !== undefined) this.#touched.add(parent)
    if (old?.kind === 'file' && isOpenForWriting(this.#parts.target, at)) this.inUse.push(this.#inVolume(at))
  }

  #compareFile({ names }: LinkedFile, lives: ReadonlyMap<RelativePath, Found>): void {
    const found = names.flatMap(({ path }) => lives.get(path) ?? [])
    const anchor = this.#anchorOf(found)
    if (anchor === undefined) {
      let first: number | undefined
      for (const one of found) {
        if (first === undefined) first = this.#put(one)
        else this.#link(one, { slot: first })
      }
      return
    }
    const { live, at, entry } = anchor
    if (!hasMetadata(live, entry.version, this.#terms))
      this.#metadata.push({ kind: 'metadata', path: at, version: entry.version, old: live })
    for (const one of found) if (one.live?.inode !== live.inode) this.#link(one, { path: at })
  }

  /** A file that is there, has the content, and belongs to no other group: the one that has most of the names. */
  #anchorOf(found: readonly Found[]): (Found & { readonly live: LiveEntry }) | undefined {
    const byInode = Map.groupBy(found, ({ live }) => live?.inode)
    for (const ones of [...byInode.values()].sort((a, b) => b.length - a.length)) {
      const [first] = ones
      if (first === undefined) continue
      const { entry, at, live } = first
      if (live?.kind !== 'file' || entry.version.kind !== 'file') continue
      if (this.#digests.has(live.inode) || !this.#hasContent(at, live, entry.version)) continue
      // What other names it has would be given this one's metadata too.
      if (!hasMetadata(live, entry.version, this.#terms) && live.links !== ones.length) continue
      this.#digests.set(live.inode, true)
      return { entry, at, live }
    }
    return undefined
  }

  #hasContent(at: RelativePath, live: LiveEntry, version: FileVersion): boolean {
    if (live.size !== version.size) return false
    try {
      return digestAt(this.#parts.target, at, this.#parts.onRead) === version.digest
    } catch (error) {
      // What cannot be read is put anew, and what was there is kept aside.
      if (errnoOf(error) === undefined) throw error
      return false
    }
  }

  /** What stands in a directory and was not there then. */
  #compareNames(directory: RelativePath): void {
    for (const name of this.#namesIn(directory)) {
      const at = childOf(directory, name)
      if (this.#wanted.has(at)) continue
      const extra = this.#extraAt(at)
      if (this.#parts.request.delete !== true || extra === undefined || (!extra.isWhole && extra.parts.length === 0)) {
        if (!isInUndoPlace(at)) this.others += 1
        continue
      }
      for (const { path, old } of extra.isWhole ? [extra] : extra.parts) this.#remove(path, old)
      this.removed += extra.count
      this.removedBytes += extra.bytes
    }
  }

  #remove(path: RelativePath, old: LiveEntry): void {
    this.steps.push({ kind: 'remove', path, slot: this.#slots++, old })
    this.#touch(path, old)
  }

  /** Undefined where it cannot be looked at, or is not to be touched. */
  #extraAt(path: RelativePath): Extra | undefined {
    if (isInUndoPlace(path)) return undefined
    const chosen = this.#isSelected(this.#inVolume(path))
    let old: LiveEntry | undefined
    try {
      old = liveEntry(this.#parts.target, path)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      if (chosen && this.#parts.request.delete === true)
        this.missing.push({ path: this.#inVolume(path), cause: 'refused', reason: reasonOf(error) })
      return undefined
    }
    if (old === undefined || old.device !== this.#root.device) return undefined
    const extra: Extra = { path, old, isWhole: chosen, parts: [], count: 0, bytes: 0 }
    if (old.kind === 'directory') {
      for (const name of this.#namesIn(path)) {
        const child = this.#extraAt(childOf(path, name))
        if (child?.isWhole !== true) extra.isWhole = false
        extra.parts.push(...(child === undefined ? [] : child.isWhole ? [child] : child.parts))
        extra.count += child?.count ?? 0
        extra.bytes += child?.bytes ?? 0
      }
    }
    if (extra.isWhole) {
      extra.count += 1
      extra.bytes += old.size
    }
    return extra
  }

  #inVolume(path: RelativePath): RelativePath {
    return pathOf(path, this.#parts.request, this.#parts.plan)
  }

  #namesIn(directory: RelativePath): ByteString[] {
    try {
      return namesIn(this.#parts.target, directory)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.missing.push({ path: this.#inVolume(directory), cause: 'refused', reason: reasonOf(error) })
      return []
    }
  }

  /** Deepest first: what is done in a directory changes its times. */
  #finishDirectories(): void {
    for (const { entry, at, live } of this.#directories) {
      const isChosen = this.#isSelected(entry.path) || entry.path === this.#parts.request.path
      const isRight = live !== undefined && hasMetadata(live, entry.version, this.#terms)
      if (isChosen && !isRight) this.#touched.add(at)
    }
    const isDone = this.steps.length + this.#metadata.length + this.#touched.size === 0
    // The undo place is a name in it that comes.
    if (!isDone) this.#touched.add(ROOT)
    const wanted = new Map(this.#directories.map((found) => [found.at, found]))
    const finished: Step[] = []
    for (const at of this.#touched) {
      if (this.#fresh.has(at)) continue
      const found = wanted.get(at)
      const isChosen = found !== undefined && (this.#isSelected(found.entry.path) || found.entry.path === this.#parts.request.path)
      const old = found?.live ?? (at === ROOT ? this.#root : liveEntry(this.#parts.target, at))
      const isRight = found?.live !== undefined && hasMetadata(found.live, found.entry.version, this.#terms)
      finished.push({ kind: 'metadata', path: at, version: isChosen && !isRight ? found.entry.version : undefined, old })
    }
    for (const step of this.steps) {
      if (step.kind === 'put' && step.entry.version.kind === 'directory')
        finished.push({ kind: 'metadata', path: step.path, version: step.entry.version, old: undefined })
    }
    finished.sort((a, b) => depthOf(b.path) - depthOf(a.path))
    this.steps.push(...this.#metadata, ...finished)
  }
}

/** Something that is not wanted, with what of it can be put aside. */
interface Extra {
  readonly path: RelativePath
  readonly old: LiveEntry
  isWhole: boolean
  readonly parts: Extra[]
  count: number
  bytes: number
}

function depthOf(path: RelativePath): number {
  return path === ROOT ? 0 : path.split('/').length
}

function isSameNode(live: LiveEntry, version: Version): boolean {
  if (live.kind !== version.kind) return false
  if (version.kind === 'symlink') return live.target === version.target
  return !('device' in version) || live.node === version.device
}
