/**
 * One volume of the replica: makes its files what the newest tree says, for the paths that a round touched or for all.
 *
 * Invariant: a path that cannot be written is listed and costs nothing else; only a disk that fails as a whole ends the
 * round. It prevents one bad name from keeping a whole archive out of the replica.
 */
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { TEMPORARY_PREFIX } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'
import { childOf, type Label, parentOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { type FileVersion, sameContent, type Version } from '../shared/version.ts'
import type { Catalog } from './catalog.ts'
import type { Materializer } from './materialize.ts'
import type { ReplicaProblems } from './replica-problems.ts'
import type { VolumeTouched } from './touched-paths.ts'

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
}

export class ReplicaVolume {
  readonly #agent: Label
  readonly #volume: Label
  readonly #files: Materializer
  readonly #catalog: Catalog
  readonly #problems: ReplicaProblems
  readonly #log: Log
  readonly #breathe: () => Promise<void>
  /** Paths that were written as records beyond their round made them, and which: what is on disk is not what `applied` says. */
  readonly #ahead = new Map<RelativePath, Position>()
  /** Of the round: directories that were written into, and paths that are up to date. */
  #directories = new Set<RelativePath>()
  #done = new Set<RelativePath>()

  constructor(parts: ReplicaVolumeParts) {
    this.#agent = parts.agent
    this.#volume = parts.volume
    this.#files = parts.files
    this.#catalog = parts.catalog
    this.#problems = parts.problems
    this.#log = parts.log
    this.#breathe = parts.breathe
  }

  get rootDescriptor(): number {
    return this.#files.rootDescriptor
  }

  close(): void {
    this.#files.close()
  }

  /** Brings the touched paths up to date. @throws when the disk fails as a whole, or it is time to stop */
  async apply(touched: VolumeTouched, basis: RoundBasis): Promise<void> {
    this.#begin()
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
      if (path === ROOT || this.#newest(path)?.version.kind === 'directory') await this.#removeOthers(path)
    }
    if (!basis.trusted) for (const directory of this.#directories) this.#guarded(directory, () => this.#removeTemporaries(directory))
    this.#finishDirectories()
    for (const [path, position] of this.#ahead) if (comparePositions(position, basis.until) <= 0) this.#ahead.delete(path)
  }

  /** Makes the whole volume equal the newest tree: writes every path of it, removes every other. */
  async compare(until: Position): Promise<void> {
    this.#begin()
    this.#ahead.clear()
    this.#problems.forget(this.#agent, this.#volume)
    const basis = { applied: until, until, trusted: false }
    for await (const entry of this.#catalog.treeAt(this.#agent, this.#volume, ROOT, until)) await this.#bring(entry.path, basis)
    await this.#removeOthers(ROOT)
    this.#finishDirectories()
  }

  /** What could not be written may be possible now. */
  async retry(applied: Position): Promise<void> {
    this.#begin()
    const paths = [...this.#problems.of(this.#agent, this.#volume).keys()]
    for (const path of paths) await this.#bring(path, { applied, until: applied, trusted: false })
    this.#finishDirectories()
  }

  #begin(): void {
    this.#directories = new Set()
    this.#done = new Set()
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
        this.#files.removeAll(path)
      } else if (entry.version.kind === 'directory') {
        this.#files.makeDirectory(path)
        this.#directories.add(path)
      } else if (this.#catalog.isLost(this.#agent, entry.position)) {
        throw new PacsimileError('incomplete', 'the agent could not keep this content until it was acknowledged')
      } else {
        await this.#write(entry, basis)
      }
      this.#done.add(path)
      this.#problems.clear(this.#agent, this.#volume, path, entry?.version.kind !== 'directory')
      if (entry !== undefined && comparePositions(entry.position, basis.until) > 0) this.#ahead.set(path, entry.position)
    } catch (error) {
      this.#note(path, error)
    }
    await this.#breathe()
  }

  async #write(entry: TreeEntry, basis: RoundBasis): Promise<void> {
    const { path, version } = entry
    if (await this.#linkToSibling(path, version, basis)) return
    if (version.kind === 'file' && (await this.#hasContentAlready(path, version, basis))) {
      try {
        this.#files.putMetadata(path, version)
        return
      } catch (error) {
        // Somebody removed it from the replica: it is written anew.
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    await this.#files.put(path, version)
  }

  /** Makes the path a hard link of another name of the same file that is up to date. */
  async #linkToSibling(path: RelativePath, version: Version, basis: RoundBasis): Promise<boolean> {
    for (const other of await this.#catalog.hardLinks(this.#agent, this.#volume, version)) {
      const sibling = other === path ? undefined : this.#newest(other)
      if (sibling === undefined || this.#problems.mayConcern(this.#agent, this.#volume, other)) continue
      if (!this.#done.has(other) && !(basis.trusted && comparePositions(sibling.position, basis.applied) <= 0)) continue
      try {
        this.#files.link(other, path)
        return true
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    return false
  }

  /** Whether only metadata changed since the path was last written. */
  async #hasContentAlready(path: RelativePath, version: FileVersion, basis: RoundBasis): Promise<boolean> {
    if (!basis.trusted || version.links > 1 || this.#problems.mayConcern(this.#agent, this.#volume, path)) return false
    // Most puts are of new files: a look at the disk spares asking the history.
    if (!this.#files.has(path)) return false
    const onDisk = this.#ahead.get(path) ?? basis.applied
    const before = (await this.#catalog.entryAt(this.#agent, this.#volume, path, onDisk))?.version
    return before?.kind === 'file' && before.links < 2 && sameContent(before, version)
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
  async #removeOthers(directory: RelativePath): Promise<void> {
    let children: ReturnType<Materializer['list']> = []
    this.#guarded(directory, () => {
      children = this.#files.list(directory)
    })
    for (const child of children) {
      const path = childOf(directory, child.name)
      const entry = this.#newest(path)
      if (entry === undefined) {
        this.#guarded(path, () => this.#files.removeAll(path))
        this.#directories.add(directory)
      } else if (child.isDirectory && entry.version.kind === 'directory') {
        await this.#removeOthers(path)
      }
      await this.#breathe()
    }
  }

  /** Writing into a directory changed its times: they are set again, deepest first. */
  #finishDirectories(): void {
    for (const path of [...this.#directories].sort((a, b) => b.length - a.length)) {
      const version = this.#newest(path)?.version
      if (version?.kind === 'directory') this.#guarded(path, () => this.#files.finishDirectory(path, version))
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
    const errno = errnoOf(error)
    // The disk as a whole: the round is tried again.
    if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EIO' || errno === 'EROFS') throw error
    if (!(error instanceof PacsimileError) && errno === undefined) throw error
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
