/**
 * Makes the files of a volume of the replica what its tree was at a moment, wherever records since, or before, may have made them
 * something else.
 *
 * What is right to the last byte is left, so that an archive that was renamed costs a read and not a write. Invariant: what was
 * touched between the two ends of a span is, when this is done, exactly what the tree was at the moment, and nothing else was written.
 * It prevents a stand-in that is clean but for the files that the encrypting process had reached first.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import { childOf, isWithin, type Label, parentOf, pathFromKey, pathKey, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { type FileVersion, hardLinkKey, type Version } from '../shared/version.ts'
import { holesOf } from '../shared/version-extensions.ts'
import { absenceOfContent } from './absent-content.ts'
import type { Catalog } from './catalog.ts'
import { ranges } from './catalog-keys.ts'
import { holdsChunk } from './held-chunk.ts'
import type { Materializer } from './materialize.ts'
import type { ReplicaProblems } from './replica-problems.ts'
import { TouchedPaths } from './touched-paths.ts'

export interface MomentParts {
  readonly agent: Label
  readonly volume: Label
  readonly at: Position
  readonly files: Materializer
  readonly catalog: Catalog
  readonly problems: ReplicaProblems
  readonly log: Log
  readonly breathe: () => Promise<void>
}

export class ReplicaMoment {
  readonly #parts: MomentParts
  readonly #directories = new Set<RelativePath>()
  readonly #done = new Set<RelativePath>()
  /** What is to be looked at: itself, or with all that is or was below it. */
  #paths = new Set<RelativePath>()
  #subtrees = new Set<RelativePath>()

  constructor(parts: MomentParts) {
    this.#parts = parts
  }

  /** Everything. @throws when the disk fails as a whole, or it is time to stop */
  async makeAll(): Promise<void> {
    this.#parts.problems.forget(this.#parts.agent, this.#parts.volume)
    await this.#make([], [ROOT])
  }

  /** What records after the one and up to the other end of a span touched. @throws the same */
  async makeTouched(from: Position, until: Position): Promise<void> {
    const { agent, volume, catalog } = this.#parts
    const touched = new TouchedPaths((path, position) => catalog.versionBy(agent, volume, path, position)?.kind === 'directory')
    for await (const record of catalog.summaries(agent, from, until))
      if (record.kind !== 'epoch' && record.volume === volume) touched.add(record)
    if (touched.whole) return this.makeAll()
    await this.#make(touched.paths, topmost([...touched.subtrees, ...touched.ended]))
  }

  /** These paths, and those subtrees with all that is in them. @throws the same */
  async makeThese(paths: readonly RelativePath[], subtrees: readonly RelativePath[]): Promise<void> {
    await this.#make(paths, topmost(subtrees))
  }

  async #make(paths: readonly RelativePath[], subtrees: readonly RelativePath[]): Promise<void> {
    const { agent, volume, catalog, at } = this.#parts
    this.#paths = new Set(paths)
    this.#subtrees = new Set(subtrees)
    for (const path of inOrder([...paths, ...subtrees])) {
      const entry = await catalog.entryAt(agent, volume, path, at)
      if (entry === undefined) {
        this.#remove(path)
      } else if (!this.#subtrees.has(path)) {
        await this.#bring(entry)
      } else {
        if (entry.version.kind === 'directory') await this.#removeOthers(path)
        for await (const below of catalog.treeAt(agent, volume, path, at)) await this.#bring(below)
      }
      await this.#parts.breathe()
    }
    await this.#finishDirectories()
  }

  #remove(path: RelativePath): void {
    const parent = parentOf(path)
    if (parent !== undefined) this.#directories.add(parent)
    this.#guarded(path, () => this.#parts.files.removeAll(path))
  }

  async #removeOthers(directory: RelativePath): Promise<void> {
    const { agent, volume, catalog, at, files } = this.#parts
    let children: ReturnType<Materializer['list']> = []
    try {
      children = files.list(directory)
    } catch (error) {
      // It is not there, or no directory: what is below it is made anew.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR' || errnoOf(error) === 'ELOOP') return
      this.#note(directory, error)
    }
    for (const child of children) {
      const path = childOf(directory, child.name)
      const entry = await catalog.entryAt(agent, volume, path, at)
      if (entry === undefined) this.#remove(path)
      else if (child.isDirectory && entry.version.kind === 'directory') await this.#removeOthers(path)
      await this.#parts.breathe()
    }
  }

  async #bring(entry: TreeEntry): Promise<void> {
    const { agent, volume, catalog, files, problems } = this.#parts
    const { path, version } = entry
    if (this.#done.has(path)) return
    const parent = parentOf(path)
    if (parent !== undefined) this.#directories.add(parent)
    try {
      if (version.kind === 'directory') {
        files.makeDirectory(path)
        this.#directories.add(path)
      } else {
        const shown = await this.#standIn(entry)
        if ((await absenceOfContent(catalog, agent, volume, shown)) !== undefined)
          throw new PacsimileError('incomplete', 'the agent could not keep this content until it was acknowledged')
        await this.#write(shown)
      }
      this.#done.add(path)
      problems.clear(agent, volume, path, version.kind !== 'directory')
    } catch (error) {
      this.#note(path, error)
    }
    await this.#parts.breathe()
  }

  /** As the replica shows it: instead of torn content the last whole version of the path. */
  async #standIn(entry: TreeEntry): Promise<TreeEntry> {
    if (entry.version.kind !== 'file' || entry.version.consistency !== 'torn') return entry
    return (await this.#parts.catalog.lastWhole(this.#parts.agent, this.#parts.volume, entry.path, entry.position)) ?? entry
  }

  async #write({ path, version }: TreeEntry): Promise<void> {
    const { files } = this.#parts
    if (await this.#linkToSibling(path, version)) return
    if (version.kind === 'file' && version.links < 2 && this.#isRight(path, version)) files.putMetadata(path, version)
    else await files.put(path, version)
  }

  async #linkToSibling(path: RelativePath, version: Version): Promise<boolean> {
    const { agent, volume, catalog, at, files, problems } = this.#parts
    const wanted = hardLinkKey(version)
    if (wanted === undefined) return false
    const range = ranges.linked(agent, volume, version.inode)
    for await (const [key] of catalog.entries(range)) {
      const other = pathFromKey(key.toString('latin1', range.gte.length))
      if (other === path || problems.mayConcern(agent, volume, other) || !(this.#done.has(other) || !this.#isTouched(other))) continue
      const sibling = await catalog.entryAt(agent, volume, other, at)
      if (sibling === undefined || hardLinkKey(sibling.version) !== wanted) continue
      try {
        files.link(other, path)
        return true
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    return false
  }

  #isTouched(path: RelativePath): boolean {
    if (this.#paths.has(path)) return true
    for (let above: RelativePath | undefined = path; above !== undefined; above = parentOf(above))
      if (this.#subtrees.has(above)) return true
    return false
  }

  /** Whether the file there has the content and holes of the version, to the last byte, and one name. */
  #isRight(path: RelativePath, version: FileVersion): boolean {
    // A hole cannot be told from zeros: what has some is written anew.
    if (holesOf(version).length > 0) return false
    let fd: number
    try {
      fd = openSync(this.#parts.files.nameOf(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      return false
    }
    try {
      const stat = fstatSync(fd)
      if (!stat.isFile() || stat.size !== version.size || stat.nlink !== 1) return false
      let offset = 0
      for (const { digest, length } of version.chunks) {
        if (!holdsChunk(fd, offset, length, digest)) return false
        offset += length
      }
      return true
    } finally {
      closeSync(fd)
    }
  }

  /** Deepest first: writing into a directory changed its times. */
  async #finishDirectories(): Promise<void> {
    const { agent, volume, catalog, at, files } = this.#parts
    for (const path of [...this.#directories].sort((a, b) => b.length - a.length)) {
      const entry = await catalog.entryAt(agent, volume, path, at)
      const version = entry?.version
      if (version?.kind === 'directory') this.#guarded(path, () => files.finishDirectory(path, version))
    }
  }

  #guarded(path: RelativePath, act: () => void): void {
    try {
      act()
    } catch (error) {
      this.#note(path, error)
    }
  }

  #note(path: RelativePath, error: unknown): void {
    const errno = errnoOf(error)
    if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EIO' || errno === 'EROFS') throw error
    if (!(error instanceof PacsimileError) && errno === undefined) throw error
    const { agent, volume, problems, log } = this.#parts
    const reason = reasonOf(error)
    if (problems.note(agent, volume, path, reason))
      log.warn('a path of the replica cannot be made what it was', { agent, volume, path: showPath(path), reason })
  }
}

/** Parents before what is in them. */
function inOrder(paths: readonly RelativePath[]): RelativePath[] {
  const order = [...new Set(paths)].map((path) => ({ path, key: pathKey(path) }))
  return order.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)).map(({ path }) => path)
}

/** Without those that lie below others. */
function topmost(paths: readonly RelativePath[]): RelativePath[] {
  const found: RelativePath[] = []
  for (const path of inOrder(paths)) {
    const last = found.at(-1)
    if (last === undefined || !isWithin(path, last)) found.push(path)
  }
  return found
}
