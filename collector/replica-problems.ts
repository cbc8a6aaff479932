/**
 * Paths that the replica could not be given, with the reason.
 *
 * Invariant: a path is listed from the moment it could not be written until it was written, or is gone. The list is
 * bounded; where it overflows, that itself is remembered. It prevents a replica with holes from passing for whole.
 */
import { isWithin, type Label, type RelativePath, rebase } from '../shared/path.ts'

const LISTED_MAX = 1000

interface VolumeProblems {
  readonly listed: Map<RelativePath, string>
  /** More could not be written than are listed. */
  overflowed: boolean
}

export class ReplicaProblems {
  readonly #volumes = new Map<string, VolumeProblems>()

  of(agent: Label, volume: Label): ReadonlyMap<RelativePath, string> {
    return this.#volumes.get(`${agent}\0${volume}`)?.listed ?? new Map()
  }

  /** Whether anything of the agent's replica is not as it should be. */
  has(agent: Label): boolean {
    for (const [key, { listed, overflowed }] of this.#volumes)
      if (key.startsWith(`${agent}\0`) && (overflowed || listed.size > 0)) return true
    return false
  }

  /** Whether a path may be wrong on disk. */
  mayConcern(agent: Label, volume: Label, path: RelativePath): boolean {
    const problems = this.#volumes.get(`${agent}\0${volume}`)
    return problems !== undefined && (problems.overflowed || problems.listed.has(path))
  }

  /**
   * Those below a path; undefined where it is not known what is wrong there, because there are more than are listed or the
   * path itself, or a directory above it, is among them.
   */
  below(agent: Label, volume: Label, path: RelativePath): RelativePath[] | undefined {
    const problems = this.#volumes.get(`${agent}\0${volume}`)
    if (problems === undefined) return []
    const listed = [...problems.listed.keys()]
    if (problems.overflowed || listed.some((other) => isWithin(path, other))) return undefined
    return listed.filter((other) => isWithin(other, path))
  }

  /** A directory has another name now, and what is wrong below it came along; nothing is wrong with what it replaced. */
  move(agent: Label, volume: Label, { from, to }: { readonly from: RelativePath; readonly to: RelativePath }): void {
    const listed = this.#volumes.get(`${agent}\0${volume}`)?.listed
    if (listed === undefined) return
    for (const path of listed.keys()) if (isWithin(path, to)) listed.delete(path)
    for (const [path, reason] of listed) {
      if (!isWithin(path, from)) continue
      listed.delete(path)
      listed.set(rebase(path, from, to), reason)
    }
  }

  /** @returns whether it is the volume's first */
  note(agent: Label, volume: Label, path: RelativePath, reason: string): boolean {
    const key = `${agent}\0${volume}`
    const problems = this.#volumes.get(key) ?? { listed: new Map<RelativePath, string>(), overflowed: false }
    this.#volumes.set(key, problems)
    const isFirst = problems.listed.size === 0
    if (problems.listed.size < LISTED_MAX || problems.listed.has(path)) problems.listed.set(path, reason)
    else problems.overflowed = true
    return isFirst
  }

  /** The path was written; with `below`, nothing can be wrong below it either, for it is gone or no directory. */
  clear(agent: Label, volume: Label, path: RelativePath, below: boolean): void {
    const listed = this.#volumes.get(`${agent}\0${volume}`)?.listed
    if (listed === undefined || listed.size === 0) return
    listed.delete(path)
    if (below) for (const other of listed.keys()) if (isWithin(other, path)) listed.delete(other)
  }

  /** The volume was compared as a whole: what is wrong is noted anew. */
  forget(agent: Label, volume: Label): void {
    this.#volumes.delete(`${agent}\0${volume}`)
  }
}
