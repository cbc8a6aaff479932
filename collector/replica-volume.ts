/**
 * One volume of the replica: makes its files what the newest tree says, for the paths that a round touched or for all.
 *
 * A directory that a round's records rename is renamed in the files first, and only what changed in it besides is written.
 * Of a file whose newest content is torn the files hold the last whole version, where there is one: a stand-in is to work.
 *
 * Invariant: a path that cannot be written is listed and costs nothing else; only a disk that fails as a whole ends the
 * round. It prevents one bad name from keeping a whole archive out of the replica.
 */
import { lstatSync } from 'node:fs'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { TEMPORARY_PREFIX } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import type { Log } from '../shared/log.ts'
import { childOf, isWithin, type Label, parentOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import { BEFORE_ALL, comparePositions, type Position, type RecordSummary } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { type FileVersion, sameContent, type Version } from '../shared/version.ts'
import { sameHoles } from '../shared/version-extensions.ts'
import { absenceOfContent } from './absent-content.ts'
import type { Catalog } from './catalog.ts'
import type { Materializer } from './materialize.ts'
import { MovedDirectories } from './moved-directories.ts'
import type { ReplicaProblems } from './replica-problems.ts'
import { TouchedPaths } from './touched-paths.ts'

/** What a round rests on. */
export interface RoundBasis {
  /** Everything up to here was in the files before the round. */
  readonly applied: Position
  /** The last record of the round. */
  readonly until: Position
  /** Whether the files are known to be what `applied` says; after a start or a failure they may be ahead of it. */
  readonly trusted: boolean
}

export interface ReplicaVolumeParts {
  readonly agent: Label
  readonly volume: Label
  readonly files: Materializer
  readonly catalog: Catalog
  readonly problems: ReplicaProblems
  readonly log: Log
  /** Lets the event loop go when it is time. @throws when it is time to stop */
  readonly breathe: () => Promise<void>
  /** Puts aside what others wrote to a path. @throws space: it stays where it is */
  readonly keepAside: (path: RelativePath) => Promise<void>
}

export class ReplicaVolume {
  readonly #agent: Label
  readonly #volume: Label
  readonly #files: Materializer
  readonly #catalog: Catalog
  readonly #problems: ReplicaProblems
  readonly #log: Log
  readonly #breathe: () => Promise<void>
  readonly #keepAside: ReplicaVolumeParts['keepAside']
  /**
   * Paths that were written or removed as records beyond their round made them, and up to which: what is on disk is not
   * what `applied` says.
   */
  readonly #ahead = new Map<RelativePath, Position>()
  /**
   * Hard links that were written as files of their own, for the other names are those of records beyond their round, and the
   * end of that round: the next one links them.
   */
  readonly #apart = new Map<RelativePath, Position>()
  /** Of the round: directories that were written into, and paths that were brought, each as which record made it. */
  #directories = new Set<RelativePath>()
  #done = new Map<RelativePath, Position>()
  /** Of the round: what was renamed on disk, and what else its records touched. */
  #moved = new MovedDirectories()
  #touched = this.#nothingTouched()
  /** Of the round: whether something is renamed. */
  #isMoving = false

  constructor(parts: ReplicaVolumeParts) {
    this.#agent = parts.agent
    this.#volume = parts.volume
    this.#files = parts.files
    this.#catalog = parts.catalog
    this.#problems = parts.problems
    this.#log = parts.log
    this.#breathe = parts.breathe
    this.#keepAside = parts.keepAside
  }

  close(): void {
    this.#files.close()
  }

  /** Brings what the records touched up to date. @throws when the disk fails as a whole, or it is time to stop */
  async apply(records: readonly RecordSummary[], basis: RoundBasis): Promise<void> {
    this.#begin()
    this.#isMoving = records.some(({ kind }) => kind === 'rename')
    for (const path of this.#apart.keys()) this.#touched.addPath(path)
    for (const record of records) {
      const isMoved = record.kind === 'rename' && (await this.#moveOnDisk(record, basis))
      this.#touched.add(record, isMoved)
    }
    const touched = this.#touched
    for (const path of touched.paths) await this.#bring(path, basis)
    for (const path of touched.subtrees) {
      await this.#bring(path, basis)
      if (this.#newest(path)?.version.kind !== 'directory') continue
      for await (const entry of this.#catalog.treeAt(this.#agent, this.#volume, path, basis.until)) {
        if (entry.path !== path) await this.#bring(entry.path, basis)
      }
    }
    // What was a directory before it was removed or replaced, and is one again, may still hold what was in it then.
    for (const path of touched.whole ? [ROOT] : touched.ended) {
      if (path === ROOT || this.#newest(path)?.version.kind === 'directory') await this.#removeOthers(path, basis)
    }
    if (!basis.trusted) for (const directory of this.#directories) this.#guarded(directory, () => this.#removeTemporaries(directory))
    await this.#finishDirectories(basis)
    for (const [path, position] of this.#ahead) if (comparePositions(position, basis.until) <= 0) this.#ahead.delete(path)
    for (const [path, until] of this.#apart) if (comparePositions(until, basis.until) < 0) this.#apart.delete(path)
  }

  /** Makes the whole volume equal the newest tree: writes every path of it, removes every other. */
  async compare(until: Position): Promise<void> {
    this.#begin()
    this.#ahead.clear()
    this.#apart.clear()
    this.#problems.forget(this.#agent, this.#volume)
    const basis = { applied: BEFORE_ALL, until, trusted: false }
    for await (const entry of this.#catalog.treeAt(this.#agent, this.#volume, ROOT, until)) await this.#bring(entry.path, basis)
    await this.#removeOthers(ROOT, basis)
    await this.#finishDirectories(basis)
  }

  /** What could not be written may be possible now. */
  async retry(applied: Position): Promise<void> {
    this.#begin()
    const paths = [...this.#problems.of(this.#agent, this.#volume).keys()]
    const basis = { applied, until: applied, trusted: false }
    for (const path of paths) {
      await this.#bring(path, basis)
      // What was wrong with a directory may have been that it could not be listed for what does not belong there.
      if (this.#newest(path)?.version.kind === 'directory') await this.#removeOthers(path, basis)
    }
    await this.#finishDirectories(basis)
  }

  #begin(): void {
    this.#directories = new Set()
    this.#done = new Map()
    this.#moved = new MovedDirectories()
    this.#touched = this.#nothingTouched()
  }

  #nothingTouched(): TouchedPaths {
    return new TouchedPaths((path, position) => this.#catalog.versionBy(this.#agent, this.#volume, path, position)?.kind === 'directory')
  }

  /**
   * Renames a directory on disk as a record did in the tree. False where it is not known for certain what the disk holds
   * under the old name: the record's subtree is then brought path by path.
   */
  async #moveOnDisk(record: Extract<RecordSummary, { kind: 'rename' }>, basis: RoundBasis): Promise<boolean> {
    const { path: from, to } = record
    const unwritten = this.#problems.below(this.#agent, this.#volume, from)
    if (!basis.trusted || unwritten === undefined) return false
    for (const ahead of this.#ahead.keys()) if (isWithin(ahead, from) || isWithin(from, ahead)) return false
    // A record that found nothing there, or whose names lie within each other, moved no directory.
    if (this.#catalog.versionBy(this.#agent, this.#volume, to, record)?.kind !== 'directory') return false
    const source = this.#moved.sourceOf(from)
    if (source === undefined) return false
    const before = await this.#catalog.entryAt(this.#agent, this.#volume, source, basis.applied)
    if (before?.version.kind !== 'directory') return false
    try {
      if (!this.#files.renameDirectory(from, to)) return false
    } catch (error) {
      if (isOfWholeDisk(error)) throw error
      return false
    }
    this.#moved.add({ from, to, record })
    for (const ahead of this.#ahead.keys()) if (isWithin(ahead, to)) this.#ahead.delete(ahead)
    this.#problems.move(this.#agent, this.#volume, { from, to })
    // Tried again where they are now.
    for (const path of unwritten) this.#touched.addPath(path)
    return true
  }

  #newest(path: RelativePath): TreeEntry | undefined {
    return this.#catalog.newest(this.#agent, this.#volume, path)
  }

  async #bring(path: RelativePath, basis: RoundBasis): Promise<void> {
    const entry = this.#newest(path)
    const parent = parentOf(path)
    if (parent !== undefined) this.#directories.add(parent)
    try {
      if (entry === undefined) {
        await this.#keepUnexpected(path, basis)
        this.#remove(path, basis)
      } else if (entry.version.kind === 'directory') {
        this.#files.makeDirectory(path)
        this.#directories.add(path)
      } else {
        const shown = await this.#standIn(entry)
        if ((await absenceOfContent(this.#catalog, this.#agent, this.#volume, shown)) !== undefined)
          throw new PacsimileError('incomplete', 'the agent could not keep this content until it was acknowledged')
        await this.#write(shown, basis)
      }
      if (entry !== undefined) this.#done.set(path, entry.position)
      this.#problems.clear(this.#agent, this.#volume, path, entry?.version.kind !== 'directory')
      if (entry !== undefined && comparePositions(entry.position, basis.until) > 0) this.#ahead.set(path, entry.position)
    } catch (error) {
      this.#note(path, error)
    }
    await this.#breathe()
  }

  #remove(path: RelativePath, basis: RoundBasis): void {
    // What record ended it is not asked: it may be one beyond the round.
    const head = this.#catalog.chainEnd(this.#agent)
    if (head !== undefined && comparePositions(head, basis.until) > 0) this.#ahead.set(path, head)
    this.#files.removeAll(path)
  }

  /** What the files hold of an entry: itself, or instead of torn content the last whole version of the path. */
  async #standIn(entry: TreeEntry): Promise<TreeEntry> {
    if (!isTorn(entry.version)) return entry
    return (await this.#catalog.lastWhole(this.#agent, this.#volume, entry.path, entry.position)) ?? entry
  }

  async #write(entry: TreeEntry, basis: RoundBasis): Promise<void> {
    const { path, version } = entry
    if (await this.#linkToSibling(path, version, basis)) return
    // Most puts are of new files: a look at the disk spares asking the history.
    const isThere = this.#files.hasFile(path)
    if (isThere && version.kind === 'file' && (await this.#hasContentAlready(path, version, basis))) {
      try {
        this.#files.putMetadata(path, version)
        return
      } catch (error) {
        // Somebody removed it from the replica: it is written anew.
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    if (isThere) await this.#keepUnexpected(path, basis)
    await this.#files.put(path, version)
  }

  /** Before a file is replaced or removed: what is not as it was put here is somebody else's. */
  async #keepUnexpected(path: RelativePath, basis: RoundBasis): Promise<void> {
    // Only where what is on disk is certain: nothing is ahead, and this round has brought nothing there.
    if (!basis.trusted || this.#isMoving || this.#ahead.size > 0 || this.#done.has(path)) return
    if (libc === undefined || this.#problems.mayConcern(this.#agent, this.#volume, path)) return
    if (!this.#files.hasFile(path)) return
    const found = lstatSync(this.#files.nameOf(path), { bigint: true, throwIfNoEntry: false })
    const before = await this.#onDisk(path, basis)
    const isOurs = before?.kind === 'file' && BigInt(before.size) === found?.size && before.mtimeNs === found.mtimeNs
    // Of torn content it is not known what the disk holds.
    if (found !== undefined && !isOurs && !(before !== undefined && isTorn(before))) await this.#keepAside(path)
  }

  /** Makes the path a hard link of another name of the same file that is up to date. */
  async #linkToSibling(path: RelativePath, version: Version, basis: RoundBasis): Promise<boolean> {
    let isApart = false
    for (const other of await this.#catalog.hardLinks(this.#agent, this.#volume, version)) {
      const sibling = other === path ? undefined : this.#newest(other)
      if (sibling === undefined || isTorn(sibling.version) || this.#problems.mayConcern(this.#agent, this.#volume, other)) continue
      if (!this.#isUpToDate(sibling, basis)) {
        isApart ||= comparePositions(sibling.position, basis.until) > 0
        continue
      }
      try {
        this.#files.link(other, path)
        return true
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    // Whoever brings the other name may only rename its directory.
    if (isApart) this.#apart.set(path, basis.until)
    return false
  }

  /**
   * Whether the files hold the entry. What is as it was when the last round ended they do, also where they are ahead of that
   * round: whatever was written since is of records behind it, and those have made its entry another one. What this round
   * brought may be another one as well by now.
   */
  #isUpToDate({ path, position }: TreeEntry, { applied }: RoundBasis): boolean {
    const done = this.#done.get(path)
    if (done !== undefined && comparePositions(position, done) === 0) return true
    if (comparePositions(position, applied) <= 0) return true
    return this.#moved.isOf(position) && !this.#touched.covers(path)
  }

  /** Of a file that is there: whether only metadata changed since it was last written. */
  async #hasContentAlready(path: RelativePath, version: FileVersion, basis: RoundBasis): Promise<boolean> {
    if (!basis.trusted || version.links > 1 || this.#problems.mayConcern(this.#agent, this.#volume, path)) return false
    const before = await this.#onDisk(path, basis)
    // Of torn content it is not known what the disk holds: a rename may have brought a stand-in along.
    if (before?.kind !== 'file' || before.links > 1 || isTorn(before)) return false
    return sameContent(before, version) && sameHoles(before, version)
  }

  /** What the path was made when it was last written. */
  async #onDisk(path: RelativePath, basis: RoundBasis): Promise<Version | undefined> {
    const ahead = this.#ahead.get(path)
    const source = ahead === undefined ? this.#moved.sourceOf(path) : path
    if (source === undefined) return undefined
    const entry = await this.#catalog.entryAt(this.#agent, this.#volume, source, ahead ?? basis.applied)
    return entry === undefined ? undefined : (await this.#standIn(entry)).version
  }

  /** Names that an interrupted write of ours left; a crash leaves them only where records since the cursor wrote. */
  #removeTemporaries(directory: RelativePath): void {
    if (this.#newest(directory)?.version.kind !== 'directory') return
    for (const child of this.#files.list(directory)) {
      const path = childOf(directory, child.name)
      if (child.name.startsWith(TEMPORARY_PREFIX) && this.#newest(path) === undefined) this.#files.removeAll(path)
    }
  }

  /** Removes what is in no tree; the directories that held it are finished anew. */
  async #removeOthers(directory: RelativePath, basis: RoundBasis): Promise<void> {
    let children: ReturnType<Materializer['list']> = []
    this.#guarded(directory, () => {
      children = this.#files.list(directory)
    })
    for (const child of children) {
      const path = childOf(directory, child.name)
      const entry = this.#newest(path)
      if (entry === undefined) {
        this.#guarded(path, () => this.#remove(path, basis))
        this.#directories.add(directory)
      } else if (child.isDirectory && entry.version.kind === 'directory') {
        await this.#removeOthers(path, basis)
      }
      await this.#breathe()
    }
  }

  /**
   * Writing into a directory changed its times: they are set again, deepest first. One that a record beyond the round has moved on, or ended, is made
   * what it was at the round's end: when that record is followed, it is taken to be that.
   */
  async #finishDirectories({ until }: RoundBasis): Promise<void> {
    for (const path of [...this.#directories].sort((a, b) => b.length - a.length)) {
      const newest = this.#newest(path)
      const entry = newest ?? (await this.#catalog.entryAt(this.#agent, this.#volume, path, until))
      if (entry?.version.kind !== 'directory') continue
      try {
        this.#files.finishDirectory(path, entry.version)
      } catch (error) {
        // What is beyond the round may have been followed already.
        const isGone = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR'
        if (newest !== undefined || !isGone) this.#note(path, error)
      }
    }
  }

  /** Does what concerns one path; where it fails, the path is listed and the rest goes on. */
  #guarded(path: RelativePath, act: () => void): void {
    try {
      act()
    } catch (error) {
      this.#note(path, error)
    }
  }

  #note(path: RelativePath, error: unknown): void {
    // The disk as a whole: the round is tried again.
    if (isOfWholeDisk(error)) throw error
    const reason = reasonOf(error)
    const isFirst = this.#problems.note(this.#agent, this.#volume, path, reason)
    if (isFirst)
      this.#log.warn('a path cannot be brought into the replica', {
        agent: this.#agent,
        volume: this.#volume,
        path: showPath(path),
        reason,
      })
  }
}

function isTorn(version: Version): boolean {
  return version.kind === 'file' && version.consistency === 'torn'
}

/** Whether no other path can be written either: the disk fails as a whole, or it is no failure of a disk at all. */
function isOfWholeDisk(error: unknown): boolean {
  const errno = errnoOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EIO' || errno === 'EROFS') return true
  return !(error instanceof PacsimileError) && errno === undefined
}
