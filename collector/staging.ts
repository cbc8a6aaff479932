/**
 * Writes all that a restore in place is about to put into the slots of its undo place, and makes of its comparison the steps of the swap.
 *
 * Files are written as those of any restore (restore-threads.ts): verified before the slot has its name. Invariant: a step is made only of what stands in its slot,
 * whole. It prevents a file of the archive from being put aside for one that could not be brought back.
 */

import { digestHex } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { type RelativePath, showPath } from '../shared/path.ts'
import type { Version } from '../shared/version.ts'
import type { HistorySource } from './history-source.ts'
import type { Comparison, Step } from './in-place-compare.ts'
import { type LiveEntry, type LiveMetadata, type Print, printAt } from './live-entry.ts'
import { Materializer } from './materialize.ts'
import { SETUID_SETGID, type Shortcoming } from './metadata-writer.ts'
import type { FileTask } from './restore-files.ts'
import { batchesOf } from './restore-order.ts'
import type { Missing, RestoreRequest } from './restore-plan.ts'
import { writeFiles } from './restore-threads.ts'
import { namesIn, SafeDirectory } from './safe-directory.ts'
import type { SwapStep, SwapSummary } from './swap-steps.ts'
import type { UndoPlace } from './undo-place.ts'

export interface StagingParts {
  readonly source: HistorySource
  readonly request: RestoreRequest
  readonly place: UndoPlace
  readonly comparison: Comparison
  /** Whether some of it may be there already. */
  readonly isResumed: boolean
  readonly onWritten: (bytes: number, files: number) => void
}

/** Errors after which nothing later can succeed either. */
const FATAL = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])

export class Staging {
  readonly shortcomings: Shortcoming[] = []
  fromReplica = 0
  hardLinks = 0
  damaged = false
  readonly #parts: StagingParts
  readonly #missing: Missing[]
  /** By slots: those that could not be filled. */
  readonly #failed = new Set<number>()
  /** Of slots, the paths of the volume that they are for. */
  readonly #paths: ReadonlyMap<RelativePath, RelativePath>
  #files = 0

  constructor(parts: StagingParts) {
    this.#parts = parts
    this.#missing = [...parts.comparison.missing]
    const entries = parts.comparison.steps.flatMap((step) =>
      'entry' in step ? [[parts.place.slot(step.slot), step.entry.path] as const] : [],
    )
    this.#paths = new Map(entries)
  }

  /** @throws space, io, and what the source throws */
  async run(): Promise<{ steps: SwapStep[]; summary: SwapSummary }> {
    const { request, comparison, place } = this.#parts
    const target = new Materializer(request.to, noContent, {
      setuid: request.setuid,
      special: request.special,
      owner: request.owner,
      onShortcoming: (found) => this.shortcomings.push(this.#inVolume(found)),
    })
    const tree = new SafeDirectory(request.to)
    try {
      for (const shelf of new Set(comparison.steps.flatMap((step) => ('slot' in step ? place.shelf(step.slot) : []))))
        target.makeDirectory(shelf)
      this.#removeOthers(target, tree)
      await this.#writeFiles()
      for (const step of comparison.steps) await this.#fill(step, target, tree)
      return this.#made(tree)
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${place.directory}, beside what is there (nothing of ${request.to} was changed)`)
    } finally {
      target.close()
      tree.close()
    }
  }

  /** In slots that have no step any more, or that were being written. */
  #removeOthers(target: Materializer, tree: SafeDirectory): void {
    if (!this.#parts.isResumed) return
    const { comparison, place } = this.#parts
    const used = new Set(comparison.steps.flatMap((step) => ('slot' in step && step.kind !== 'remove' ? place.slot(step.slot) : [])))
    const slots = `${place.path}/slots` as RelativePath
    for (const shelf of namesIn(tree, slots))
      for (const name of namesIn(tree, `${slots}/${shelf}` as RelativePath)) {
        const at = `${slots}/${shelf}/${name}` as RelativePath
        if (!used.has(at)) target.removeAll(at)
      }
  }

  async #writeFiles(): Promise<void> {
    const { source, request, comparison, place, onWritten } = this.#parts
    const slots = new Map<RelativePath, number>()
    const tasks = comparison.steps.flatMap((step): FileTask[] => {
      if (step.kind !== 'put' || step.entry.version.kind !== 'file') return []
      slots.set(step.entry.path, step.slot)
      return [{ path: step.entry.path, at: place.slot(step.slot), version: step.entry.version }]
    })
    await writeFiles(batchesOf(tasks), {
      source,
      place: {
        to: request.to,
        replica: await source.replicaDirectory(request.agent, request.volume),
        setuid: request.setuid,
        owner: request.owner,
        isResumed: this.#parts.isResumed,
        bytesPerSecond: request.bytesPerSecond,
      },
      onWritten: (bytes) => onWritten(bytes, this.#files),
      onDone: (done, count) => {
        for (const { path, reason, isDamaged } of done.failed) {
          this.#failed.add(slots.get(path) as number)
          this.#missing.push({ path, cause: isDamaged ? 'damage' : 'refused', reason })
          this.damaged ||= isDamaged
        }
        this.shortcomings.push(...done.shortcomings.map((found) => this.#inVolume(found)))
        this.fromReplica += done.near
        this.#files += count - done.failed.length
        onWritten(0, this.#files)
      },
    })
  }

  /** What is no content: directories, links, symlinks, special files. */
  async #fill(step: Step, target: Materializer, tree: SafeDirectory): Promise<void> {
    if (step.kind === 'remove' || step.kind === 'metadata') return
    const { version, path } = step.entry
    const at = this.#parts.place.slot(step.slot)
    try {
      if (step.kind === 'link') {
        this.#link(step, at, target, tree)
        this.hardLinks += 1
      } else if (version.kind === 'directory') {
        target.makeDirectory(at)
      } else if (version.kind !== 'file') {
        await target.put(at, version)
      }
    } catch (error) {
      const errno = errnoOf(error)
      if (errno !== undefined ? FATAL.has(errno) : !(error instanceof PacsimileError && error.code === 'io')) throw error
      this.#failed.add(step.slot)
      this.#missing.push({ path, cause: 'refused', reason: reasonOf(error) })
    }
  }

  #link({ of }: Extract<Step, { kind: 'link' }>, at: RelativePath, target: Materializer, tree: SafeDirectory): void {
    if ('slot' in of) {
      if (this.#failed.has(of.slot)) throw new PacsimileError('io', 'the file that it is another name of could not be brought back')
      target.link(this.#parts.place.slot(of.slot), at)
    } else {
      if (printAt(tree, of.path) === undefined) throw new PacsimileError('io', `${showPath(of.path)}, of which it is another name, is gone`)
      target.link(of.path, at)
    }
  }

  #made(tree: SafeDirectory): { steps: SwapStep[]; summary: SwapSummary } {
    const { comparison, place } = this.#parts
    const steps = comparison.steps.flatMap((step): SwapStep[] => {
      switch (step.kind) {
        case 'remove':
          return [{ kind: 'remove', path: step.path, slot: step.slot, isDirectory: step.old.kind === 'directory', old: printOf(step.old) }]
        case 'metadata': {
          const { path, version, old } = step
          const isDirectory = (version ?? old)?.kind === 'directory'
          return [
            {
              kind: 'metadata',
              path,
              isDirectory,
              wanted: version && this.#metadataFor(version, old),
              old: old && { ...metadataOf(old), ...printOf(old) },
            },
          ]
        }
        case 'put':
        case 'link': {
          if (this.#failed.has(step.slot)) return []
          const print = printAt(tree, place.slot(step.slot))
          if (print === undefined) throw new PacsimileError('internal', `${place.slot(step.slot)} is not there`)
          const { version } = step.entry
          // What it is another name of is given its time in a later step.
          const mtimeNs = step.kind === 'link' ? version.mtimeNs : print.mtimeNs
          const digest = version.kind === 'file' ? digestHex(version.digest) : undefined
          return [
            {
              kind: 'place',
              path: step.path,
              slot: step.slot,
              isDirectory: version.kind === 'directory',
              print: { ...print, mtimeNs },
              old: step.old && printOf(step.old),
              digest,
            },
          ]
        }
      }
    })
    const { removed, removedBytes, others, inUse } = comparison
    return { steps, summary: { removed, removedBytes, others, inUse, missing: this.#missing } }
  }

  /** As it will be: what is not given is as it is. */
  #metadataFor(version: Version, old: LiveEntry | undefined): LiveMetadata {
    const { setuid, owner } = this.#parts.request
    const isOwnerKept = old !== undefined && (owner === 'none' || process.getuid?.() !== 0)
    const { uid, gid } = isOwnerKept ? old : version
    const mode = version.kind === 'directory' || setuid ? version.mode : version.mode & ~SETUID_SETGID
    return { mode, uid, gid, mtimeNs: version.mtimeNs, xattrs: version.xattrs }
  }

  /** Of a slot, what it is of. */
  #inVolume(found: Shortcoming): Shortcoming {
    return { ...found, path: this.#paths.get(found.path) ?? found.path }
  }
}

function noContent(): never {
  throw new PacsimileError('internal', 'Files are written by threads')
}

function metadataOf({ mode, uid, gid, mtimeNs, xattrs }: LiveEntry): LiveMetadata {
  return { mode, uid, gid, mtimeNs, xattrs }
}

function printOf({ inode, size, mtimeNs }: LiveEntry): Print {
  return { inode, size, mtimeNs }
}
