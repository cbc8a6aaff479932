/**
 * What others wrote into a replica that is in use: held against the moment at which it was frozen, path by path, by content.
 *
 * Invariant: a path that could not be looked at is told, and whoever asks does not go on. It prevents a file without rights from being
 * taken for one that nobody wrote.
 */
import { lstatSync } from 'node:fs'
import { TEMPORARY_PREFIX } from '../shared/files.ts'
import { byteString, isWithin, type Label, nameOf, pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import { comparePositions, type Position } from '../shared/record.ts'
import type { Version } from '../shared/version.ts'
import { type BranchEntry, stateOf } from './branch.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { liveTree, type Unreadable } from './live-tree.ts'
import { type Side, sideOf, type TreeChange, treeDiff } from './tree-diff.ts'

export interface FrozenReplica {
  readonly source: HistorySource
  readonly agent: Label
  readonly volume: Label
  readonly at: Position
  /** When it was taken into use. */
  readonly sinceMs: number
  readonly directory: string
  /** With fifos, sockets and device nodes. */
  readonly special: boolean
  /** Instead of reading the content of files that look as they should, tells of those that were changed since. */
  readonly lightly?: { readonly sinceMs: number; readonly onChanged: (path: RelativePath) => void }
}

const SETUID_SETGID = 0o6000
/** What the replica has none of, and the system may give everything: labels, capabilities. */
const SECURITY = 'security.'

/** Parents before what is in them. */
export async function* writtenInto(frozen: FrozenReplica, onUnreadable: (what: Unreadable) => void): AsyncGenerator<BranchEntry> {
  const unknown = new Set<RelativePath>()
  const changes = treeDiff(replicaSides(frozen, unknown), foundSides(frozen, onUnreadable), { isWithDirectoryTimes: true })
  for await (const change of changes) {
    const { path, before, after, aspects } = change
    if (isNothing(frozen, change, unknown)) continue
    yield {
      path,
      before: before === undefined ? null : stateOf(before),
      after: after === undefined ? null : stateOf(after),
      isTimeOnly: after?.kind === 'directory' && aspects.length === 1 && aspects[0] === 'mtime',
    }
  }
}

/** Whether the difference says nothing of what others wrote. */
function isNothing(
  { directory, sinceMs }: FrozenReplica,
  { path, before, after, aspects }: TreeChange,
  unknown: Set<RelativePath>,
): boolean {
  // Only root gives files to others.
  if (before !== undefined && after !== undefined && process.getuid?.() !== 0 && aspects.every((aspect) => aspect === 'owner')) return true
  // Content that the history does not have: whatever was there before is there, as long as nobody touched it.
  return before === undefined && unknown.has(path) && lstatSync(pathBuffer(`${byteString(directory)}/${path}`)).ctimeMs < sinceMs
}

async function* foundSides({ directory, lightly }: FrozenReplica, onUnreadable: (what: Unreadable) => void): AsyncGenerator<Side> {
  let passed: RelativePath | undefined
  for await (const side of liveTree(byteString(directory), ROOT, onUnreadable)) {
    // What an interrupted write of ours left, perhaps a directory.
    if (passed !== undefined && isWithin(side.path, passed)) continue
    if (nameOf(side.path).startsWith(TEMPORARY_PREFIX)) passed = side.path
    else
      yield lightly === undefined || side.kind !== 'file'
        ? withoutLabels(side)
        : { ...withoutLabels(side), digest: () => tellChanged(directory, side.path, lightly) }
  }
}

function tellChanged(directory: string, path: RelativePath, { sinceMs, onChanged }: NonNullable<FrozenReplica['lightly']>): undefined {
  if ((lstatSync(pathBuffer(`${byteString(directory)}/${path}`), { throwIfNoEntry: false })?.ctimeMs ?? 0) >= sinceMs) onChanged(path)
}

/** The tree at and below a path, as the replica shows it. `unknown`: is told of what the history has no content of. */
export async function* replicaSides(frozen: FrozenReplica, unknown: Set<RelativePath>, path: RelativePath = ROOT): AsyncGenerator<Side> {
  const { source, agent, volume, at, special } = frozen
  for await (const entry of source.tree(agent, volume, path, at)) {
    const shown = await shownOf(frozen, entry)
    const { version } = shown
    if (shown.absent !== undefined) unknown.add(entry.path)
    else if (special || version.kind === 'file' || version.kind === 'directory' || version.kind === 'symlink')
      yield sideOf({ ...shown, version: withoutRights(version) })
  }
}

export function withoutLabels(side: Side): Side {
  return { ...side, xattrs: side.xattrs.filter(({ name }) => !name.startsWith(SECURITY)) }
}

function withoutRights(version: Version): Version {
  const xattrs = version.xattrs.filter(({ name }) => !name.startsWith(SECURITY))
  return { ...version, xattrs, mode: version.kind === 'directory' ? version.mode : version.mode & ~SETUID_SETGID }
}

/** Instead of torn content the last whole version of the path. */
async function shownOf({ source, agent, volume, at }: FrozenReplica, entry: ListedEntry): Promise<ListedEntry> {
  if (entry.version.kind !== 'file' || entry.version.consistency !== 'torn') return entry
  let whole: ListedEntry | undefined
  for await (const { record, version, absent } of source.versions(agent, volume, entry.path)) {
    const position = { epoch: record.epoch, seq: record.seq }
    if (comparePositions(position, at) > 0) break
    if (version?.kind !== 'file') whole = undefined
    else if (version.consistency !== 'torn' && absent === undefined) whole = { path: entry.path, position, version, absent }
  }
  return whole ?? entry
}
