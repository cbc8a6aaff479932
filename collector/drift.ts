/**
 * Drift: what somebody wrote into a replica that is not in use. Found by holding the files against the tree, and what may be wrong looked at
 * again while the volume is stopped.
 *
 * Size, kind, times and rights of everything are compared, and content where the inode was changed since the last look: who sets a
 * file's time back cannot set that. Invariant: nothing is called drift that a round may be about to write. It prevents a busy archive from
 * having its newest studies put aside.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'
import { byteString, type Label, pathBuffer, type RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import { type BranchEntry, type PathState, stateOf } from './branch.ts'
import type { Catalog } from './catalog.ts'
import { type FrozenReplica, replicaSides, withoutLabels, writtenInto } from './failover-tree.ts'
import { holdsChunk } from './held-chunk.ts'
import { lookAt } from './live-tree.ts'
import type { Side } from './tree-diff.ts'

export interface DriftParts extends Omit<FrozenReplica, 'at' | 'sinceMs' | 'lightly'> {
  readonly catalog: Catalog
  readonly breathe: () => Promise<void>
}

/** What a replica asks about what others wrote into it. */
export interface DriftWork {
  /** What is wrong of what may be, at a moment. */
  readonly of: (agent: Label, volume: Label, at: Position) => Promise<readonly BranchEntry[]>
  /** Puts aside what is at a path, which a round is about to replace. @throws space: it stays where it is */
  readonly keep: (agent: Label, volume: Label, path: RelativePath) => Promise<void>
  readonly directoryOf: (agent: Label, volume: Label, name: string) => string
  readonly hasRoomFor: (agent: Label, volume: Label, entries: readonly BranchEntry[]) => boolean
}

/** Paths that may be wrong, while rounds go on; content is read of what was changed since a moment. */
export async function suspectsOf(parts: DriftParts, at: Position, contentSinceMs: number): Promise<RelativePath[]> {
  const suspects = new Set<RelativePath>()
  const changed = new Set<RelativePath>()
  const lightly = { sinceMs: contentSinceMs, onChanged: (path: RelativePath): Set<RelativePath> => changed.add(path) }
  for await (const { path, isTimeOnly } of writtenInto({ ...parts, at, sinceMs: 0, lightly }, (what) => suspects.add(what.path))) {
    if (!isTimeOnly) suspects.add(path)
    await parts.breathe()
  }
  for (const path of changed) if (!(await hasContent(parts, path))) suspects.add(path)
  return [...suspects]
}

/** Those of them that are wrong, while nothing is written; parents before what is in them. */
export async function driftOf(parts: DriftParts, at: Position, suspects: readonly RelativePath[]): Promise<BranchEntry[]> {
  const found: BranchEntry[] = []
  for (const path of suspects) {
    const unknown = new Set<RelativePath>()
    const before = stateOrNone(await expectedAt(parts, path, at, unknown))
    const after = stateOrNone(await lookAtReplica(parts.directory, path))
    // What the history has no content of: whatever is there is left.
    if (!unknown.has(path) && !isAlike(before, after)) found.push({ path, before, after, isTimeOnly: false })
    await parts.breathe()
  }
  return found.sort((a, b) => depthOf(a.path) - depthOf(b.path))
}

function depthOf(path: RelativePath): number {
  return path.split('/').length
}

function stateOrNone(side: Side | undefined): PathState | null {
  return side === undefined ? null : stateOf(side)
}

/** Without what the replica has none of. */
async function lookAtReplica(directory: string, path: RelativePath): Promise<Side | undefined> {
  const side = await lookAt(directory, path)
  return side === undefined ? undefined : withoutLabels(side)
}

async function expectedAt(parts: DriftParts, path: RelativePath, at: Position, unknown: Set<RelativePath>): Promise<Side | undefined> {
  for await (const side of replicaSides({ ...parts, at, sinceMs: 0 }, unknown, path)) return side.path === path ? side : undefined
  return undefined
}

function isAlike(before: PathState | null, after: PathState | null): boolean {
  if (before === null || after === null) return before === after
  const isSame = before.kind === after.kind && before.mode === after.mode && before.size === after.size && before.digest === after.digest
  const isOwned = process.getuid?.() !== 0 || (before.uid === after.uid && before.gid === after.gid)
  const isTimed = before.kind === 'directory' || before.mtimeNs === after.mtimeNs
  return isSame && isOwned && isTimed && before.target === after.target && JSON.stringify(before.xattrs) === JSON.stringify(after.xattrs)
}

/** Whether a file has, to the last byte, the content of its newest version; true where there is none that it should have. */
async function hasContent({ catalog, agent, volume, directory, breathe }: DriftParts, path: RelativePath): Promise<boolean> {
  const version = catalog.newest(agent, volume, path)?.version
  if (version?.kind !== 'file' || version.consistency === 'torn') return true
  let fd: number
  try {
    fd = openSync(pathBuffer(`${byteString(directory)}/${path}`), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return false
  }
  try {
    if (fstatSync(fd).size !== version.size) return false
    let offset = 0
    for (const { digest, length } of version.chunks) {
      if (!holdsChunk(fd, offset, length, digest)) return false
      offset += length
      await breathe()
    }
    return true
  } finally {
    closeSync(fd)
  }
}
