/**
 * The live replica: plain files that follow the journal with their own durable cursor.
 *
 * Each round takes the records since the cursor, and makes every path that they touched what the newest tree says. So a
 * path that changed five times is written once, and a round that a crash cut short is simply done again.
 * Invariant: the replica is the fold of the journal up to the cursor, for every path that could be written; what could
 * not is listed. It prevents a stand-in that silently lacks files on the day it is needed.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import type { Log } from '../shared/log.ts'
import { childOf, type Label, parentOf, type RelativePath, ROOT, showPath } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { TreeEntry } from '../shared/tree.ts'
import { type FileVersion, sameContent } from '../shared/version.ts'
import type { Catalog } from './catalog.ts'
import { Follow } from './follow.ts'
import type { History } from './history.ts'
import { Materializer } from './materialize.ts'
import { ReplicaCursor } from './replica-cursor.ts'
import { TouchedPaths, type VolumeTouched } from './touched-paths.ts'

/** Records taken in one round. */
const ROUND_RECORDS = 2000
/** The event loop is let go at least this often while files are written. */
const SLICE_MS = 20
/** The cursor is made durable at most this often while there is work. */
const CURSOR_MS = 1000
const IDLE_MS = 60_000
const RETRY_MS = 5000
const PROBLEMS_MAX = 1000

const BEFORE_ALL: Position = { epoch: 0, seq: 0 }

interface AgentReplica {
  /** Everything up to here is in the files. */
  applied: Position
  /** Everything up to here is in the files durably, as the cursor file says. */
  durable: Position
  durableAt: number
  /** After a start, files may be ahead of the cursor: nothing about them is believed in the first round. */
  trusted: boolean
  readonly volumes: Map<Label, Materializer>
}

export class Replica {
  readonly directory: string
  readonly #catalog: Catalog
  readonly #history: History
  readonly #log: Log
  readonly #cursor: ReplicaCursor
  readonly #agents = new Map<Label, AgentReplica>()
  /** agent \0 volume -> path -> reason. */
  readonly #problems = new Map<string, Map<RelativePath, string>>()
  readonly #changes = new Follow()
  readonly progress = new Follow()
  #dirty = new Set<Label>()
  #sliceStart = 0

  constructor(parts: { directory: string; catalog: Catalog; history: History; log: Log }) {
    this.directory = parts.directory
    this.#catalog = parts.catalog
    this.#history = parts.history
    this.#log = parts.log
    makeDirectory(parts.directory)
    this.#cursor = new ReplicaCursor(parts.directory)
  }

  pathOf(agent: Label, volume: Label): string {
    return join(this.directory, agent, volume)
  }

  applied(agent: Label): Position {
    return this.#agents.get(agent)?.applied ?? this.#cursor.read(agent) ?? BEFORE_ALL
  }

  problems(agent: Label, volume: Label): ReadonlyMap<RelativePath, string> {
    return this.#problems.get(`${agent}\0${volume}`) ?? new Map()
  }

  /** Something of these agents was committed. */
  hint(agents: Iterable<Label>): void {
    for (const agent of agents) this.#dirty.add(agent)
    this.#changes.signal()
  }

  /** Follows until the signal is given; then makes the cursors durable. */
  async run(signal: AbortSignal): Promise<void> {
    this.hint(await this.#catalog.agents())
    while (!signal.aborted) {
      const agents = this.#dirty
      this.#dirty = new Set()
      for (const agent of agents) {
        try {
          if (await this.#round(agent)) this.#dirty.add(agent)
        } catch (error) {
          const failure = asPacsimileError(error, `Writing the replica of ${agent}`)
          this.#log.error('the replica cannot follow', { agent, code: failure.code, reason: failure.message })
          this.#dirty.add(agent)
          await this.#changes.next(RETRY_MS, signal)
        }
        if (signal.aborted) break
      }
      if (this.#dirty.size === 0 && !signal.aborted) {
        this.#settleCursors()
        await this.#changes.next(IDLE_MS, signal)
      }
    }
    this.#settleCursors()
    for (const agent of this.#agents.values()) for (const files of agent.volumes.values()) files.close()
    this.#agents.clear()
  }

  #settleCursors(): void {
    for (const [name, agent] of this.#agents) this.#makeDurable(name, agent)
  }

  #makeDurable(name: Label, agent: AgentReplica): void {
    if (comparePositions(agent.applied, agent.durable) === 0) return
    // One filesystem holds the whole replica.
    for (const files of agent.volumes.values()) {
      libc?.syncFilesystem(files.rootDescriptor)
      break
    }
    this.#cursor.write(name, agent.applied)
    agent.durable = agent.applied
    agent.durableAt = Date.now()
  }

  /** One round for one agent. @returns whether there is more to do */
  async #round(name: Label): Promise<boolean> {
    const head = this.#catalog.chainEnd(name)
    if (head === undefined) return false
    let agent = this.#agents.get(name)
    if (agent === undefined) {
      const stored = this.#cursor.read(name)
      agent = { applied: stored ?? BEFORE_ALL, durable: stored ?? BEFORE_ALL, durableAt: 0, trusted: false, volumes: new Map() }
      this.#agents.set(name, agent)
      if (stored === undefined || comparePositions(stored, head) > 0) {
        await this.#compareWhole(name, agent, head)
        return true
      }
    }
    if (comparePositions(agent.applied, head) >= 0) {
      agent.trusted = true
      return false
    }
    this.#sliceStart = performance.now()
    const touched = new TouchedPaths(
      (volume, path, position) => this.#catalog.versionBy(name, volume, path, position)?.kind === 'directory',
    )
    let last: Position = agent.applied
    let count = 0
    for await (const record of this.#catalog.summaries(name, agent.applied, head)) {
      touched.add(record)
      last = { epoch: record.epoch, seq: record.seq }
      if (++count >= ROUND_RECORDS) break
    }
    for (const [volume, paths] of touched.byVolume) await this.#apply(name, agent, volume, paths, last)
    agent.applied = last
    this.progress.signal()
    if (Date.now() - agent.durableAt > CURSOR_MS) this.#makeDurable(name, agent)
    const more = comparePositions(last, this.#catalog.chainEnd(name) ?? last) < 0
    if (!more) agent.trusted = true
    return more
  }

  #filesOf(name: Label, agent: AgentReplica, volume: Label): Materializer {
    const known = agent.volumes.get(volume)
    if (known !== undefined) return known
    const root = this.pathOf(name, volume)
    if (!existsSync(root)) makeDirectory(root)
    const opened = new Materializer(root, (digest) => this.#readChunk(digest), { setuid: false })
    agent.volumes.set(volume, opened)
    return opened
  }

  /** A large file is many chunks: the event loop is let go between them. */
  async #readChunk(digest: Digest): Promise<Buffer> {
    await this.#breathe()
    return this.#history.readChunk(digest)
  }

  // ---- applying ----------------------------------------------------------------------------------------------------

  async #apply(name: Label, agent: AgentReplica, volume: Label, touched: VolumeTouched, until: Position): Promise<void> {
    const files = this.#filesOf(name, agent, volume)
    const directories = new Set<RelativePath>()
    const done = new Set<RelativePath>()
    const write = async (path: RelativePath, entry: TreeEntry | undefined): Promise<void> => {
      await this.#applyPath({ name, agent, volume, files, done }, path, entry, directories)
      await this.#breathe()
    }
    for (const path of touched.paths) await write(path, this.#catalog.newest(name, volume, path))
    for (const path of touched.subtrees) {
      const top = this.#catalog.newest(name, volume, path)
      await write(path, top)
      if (top?.version.kind !== 'directory') continue
      for await (const entry of this.#catalog.treeAt(name, volume, path, until))
        if (entry.path !== path) await write(entry.path, this.#catalog.newest(name, volume, entry.path))
    }
    // What was a directory before it was removed or replaced, and is one again, may still hold what was in it then.
    for (const path of touched.whole ? [ROOT] : touched.ended) {
      if (this.#catalog.newest(name, volume, path)?.version.kind === 'directory')
        await this.#removeOthers(name, volume, files, path, directories)
    }
    if (!agent.trusted) for (const directory of directories) this.#removeTemporaries(name, volume, files, directory)
    this.#finishDirectories(name, volume, files, directories)
  }

  /** Names that an interrupted write of ours left; a crash leaves them only where records since the cursor wrote. */
  #removeTemporaries(name: Label, volume: Label, files: Materializer, directory: RelativePath): void {
    if (this.#catalog.newest(name, volume, directory)?.version.kind !== 'directory') return
    for (const child of files.list(directory)) {
      const path = childOf(directory, child.name)
      if (child.name.startsWith(TEMPORARY_PREFIX) && this.#catalog.newest(name, volume, path) === undefined) files.removeAll(path)
    }
  }

  async #applyPath(at: VolumeRound, path: RelativePath, entry: TreeEntry | undefined, directories: Set<RelativePath>): Promise<void> {
    const { name, volume, files } = at
    const parent = parentOf(path)
    if (parent !== undefined) directories.add(parent)
    try {
      if (entry === undefined) {
        files.removeAll(path)
      } else if (entry.version.kind === 'directory') {
        files.makeDirectory(path)
        directories.add(path)
      } else if (this.#catalog.isLost(name, entry.position)) {
        throw new PacsimileError('incomplete', 'the agent could not keep this content until it was acknowledged')
      } else {
        await this.#writeEntry(at, entry)
      }
      at.done.add(path)
      this.#problems.get(`${name}\0${volume}`)?.delete(path)
    } catch (error) {
      this.#noteProblem(name, volume, path, error)
    }
  }

  async #writeEntry(at: VolumeRound, entry: TreeEntry): Promise<void> {
    const { path, version } = entry
    if (await this.#linkToSibling(at, entry)) return
    if (version.kind === 'file' && (await this.#hasContentAlready(at, path, version))) {
      try {
        at.files.putMetadata(path, version)
        return
      } catch (error) {
        // Somebody removed it from the replica: it is written anew.
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    await at.files.put(path, version)
  }

  /** Makes the path a hard link of another name of the same file that is up to date. */
  async #linkToSibling(at: VolumeRound, entry: TreeEntry): Promise<boolean> {
    for (const other of await this.#catalog.hardLinks(at.name, at.volume, entry.version)) {
      const sibling = other === entry.path ? undefined : this.#catalog.newest(at.name, at.volume, other)
      if (sibling === undefined || !(at.done.has(other) || comparePositions(sibling.position, at.agent.applied) <= 0)) continue
      try {
        at.files.link(other, entry.path)
        return true
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    return false
  }

  /** Whether only metadata changed since the last round. */
  async #hasContentAlready(at: VolumeRound, path: RelativePath, version: FileVersion): Promise<boolean> {
    if (!at.agent.trusted || version.links > 1 || this.problems(at.name, at.volume).has(path)) return false
    // Most puts are of new files: a look at the disk spares asking the history.
    if (!at.files.has(path)) return false
    const before = (await this.#catalog.entryAt(at.name, at.volume, path, at.agent.applied))?.version
    return before?.kind === 'file' && before.links < 2 && sameContent(before, version)
  }

  #noteProblem(name: Label, volume: Label, path: RelativePath, error: unknown): void {
    const errno = errnoOf(error)
    // The disk as a whole: this round is tried again.
    if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EIO' || errno === 'EROFS') throw error
    if (!(error instanceof PacsimileError) && errno === undefined) throw error
    const key = `${name}\0${volume}`
    const problems = this.#problems.get(key) ?? new Map<RelativePath, string>()
    this.#problems.set(key, problems)
    if (problems.size === 0)
      this.#log.warn('a path cannot be brought into the replica', { agent: name, volume, path: showPath(path), reason: reasonOf(error) })
    if (problems.size < PROBLEMS_MAX) problems.set(path, reasonOf(error))
  }

  /** Writing into a directory changed its times: they are set again, deepest first. */
  #finishDirectories(name: Label, volume: Label, files: Materializer, directories: ReadonlySet<RelativePath>): void {
    for (const path of [...directories].sort((a, b) => b.length - a.length)) {
      const entry = this.#catalog.newest(name, volume, path)
      if (entry?.version.kind !== 'directory') continue
      try {
        files.finishDirectory(path, entry.version)
      } catch (error) {
        this.#noteProblem(name, volume, path, error)
      }
    }
  }

  async #breathe(): Promise<void> {
    if (performance.now() - this.#sliceStart < SLICE_MS) return
    await new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
    this.#sliceStart = performance.now()
  }

  // ---- comparing as a whole ----------------------------------------------------------------------------------------

  async #compareWhole(name: Label, agent: AgentReplica, head: Position): Promise<void> {
    for (const volume of await this.#catalog.volumes(name))
      await this.#compareVolume({ name, agent, volume: volume.name, files: this.#filesOf(name, agent, volume.name), done: new Set() })
    agent.applied = { epoch: head.epoch, seq: head.seq }
    this.progress.signal()
  }

  /** Makes the whole volume equal the newest tree: writes every path of it, removes every other. */
  async #compareVolume(at: VolumeRound): Promise<void> {
    const { name, volume, files } = at
    const directories = new Set<RelativePath>()
    const head = this.#catalog.chainEnd(name) ?? BEFORE_ALL
    for await (const entry of this.#catalog.treeAt(name, volume, ROOT, head)) {
      await this.#applyPath(at, entry.path, entry, directories)
      await this.#breathe()
    }
    await this.#removeOthers(name, volume, files, ROOT, directories)
    this.#finishDirectories(name, volume, files, directories)
  }

  /** Removes what is in no tree; the directories that held it are finished anew. */
  async #removeOthers(
    name: Label,
    volume: Label,
    files: Materializer,
    directory: RelativePath,
    directories: Set<RelativePath>,
  ): Promise<void> {
    for (const child of files.list(directory)) {
      const path = childOf(directory, child.name)
      const entry = this.#catalog.newest(name, volume, path)
      if (entry === undefined) {
        files.removeAll(path)
        directories.add(directory)
      } else if (child.isDirectory && entry.version.kind === 'directory') {
        await this.#removeOthers(name, volume, files, path, directories)
      }
      await this.#breathe()
    }
  }
}

/** A volume's part of a round. */
interface VolumeRound {
  readonly name: Label
  readonly agent: AgentReplica
  readonly volume: Label
  readonly files: Materializer
  /** Paths that this round has brought up to date. */
  readonly done: Set<RelativePath>
}
