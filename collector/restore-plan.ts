/**
 * What a restore will do: a point and a choice of paths become a list of entries.
 *
 * Invariant: a plan names every path that was asked for, also those that cannot be brought back, each with its reason. It
 * prevents a dry run that promises more than the restore then does.
 */
import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { childOf, type Label, nameOf, parentOf, type RelativePath, ROOT, rebase, showPath } from '../shared/path.ts'
import type { Version } from '../shared/version.ts'
import type { Absence } from './absent-content.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { type OwnerMap, withOwners } from './owner-map.ts'
import { pathMatcher } from './path-pattern.ts'
import { type Point, showMoment } from './point.ts'

export interface RestoreRequest {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  /** As `source.point` understood what was asked for. */
  readonly point: Point
  /** An empty or new directory, or one in which this very restore was interrupted. The content of a directory goes right into it; a file becomes TO/NAME. */
  readonly to: string
  readonly dryRun: boolean
  /** Give files their setuid and setgid bits, capabilities, and other xattrs of `security`. */
  readonly setuid: boolean
  /** Make fifos, sockets and device nodes. */
  readonly special: boolean
  /** Restore also what was torn when it was captured. */
  readonly torn: boolean
  /** Only what matches, with all below it and the directories above; everything without it. Patterns over paths below the volume. */
  readonly include?: string | undefined
  /** Not what matches, nor what is below it. */
  readonly exclude?: string | undefined
  /** Which files come first: those modified last, or as they lie in the tree. */
  readonly priority?: 'newest' | 'path' | undefined
  /** Into a directory with content: only what differs is written, and what that replaces is kept aside. */
  readonly inPlace?: boolean | undefined
  /** In place: put aside what was chosen and was not there at the moment. */
  readonly delete?: boolean | undefined
  /** `none`: nothing is given to the owner that it had; whoever restores owns it, and what is there keeps its own. */
  readonly owner?: 'none' | undefined
  /** Owners that have other numbers where it is restored to. */
  readonly owners?: OwnerMap | undefined
  /** Content written, at most. */
  readonly bytesPerSecond?: number | undefined
}

export interface RestorePlan {
  readonly point: Point
  /** The state's moment in ms since 1970: what was asked for, or the time of its last record. */
  readonly momentMs: number
  readonly files: number
  readonly directories: number
  readonly symlinks: number
  readonly others: number
  readonly bytes: number
  /** Versions that may not have existed as a whole, and ones that surely did not. */
  readonly unverified: number
  readonly torn: number
}

export const MISSING_CAUSES = ['torn', 'expired', 'lost', 'special', 'damage', 'refused'] as const

export interface Missing {
  readonly path: RelativePath
  /** `special`: of a kind that is made on request only. `refused`: the system said no, or something is in the way. */
  readonly cause: (typeof MISSING_CAUSES)[number]
  readonly reason: string
}

/** The entries are depth first, names in byte order. @throws not-found */
export async function planRestore(source: HistorySource, request: RestoreRequest): Promise<{ plan: RestorePlan; entries: ListedEntry[] }> {
  const { point } = request
  const found: ListedEntry[] = []
  for await (const entry of source.tree(request.agent, request.volume, request.path, point.position)) found.push(entry)
  // A volume that holds nothing is a state like any other; a path below it that is not there is a mistake.
  if (found.length === 0 && request.path !== ROOT) {
    throw new PacsimileError('not-found', `${request.agent}:${request.volume}/${showPath(request.path)} did not exist at that moment`, {
      details: { of: 'path' },
    })
  }
  const entries = withOwners(chosen(found, request), request.owners)
  return { plan: { point, momentMs: momentOf(point), ...counted(entries) }, entries }
}

/** Whether a path of the volume was chosen by the patterns, be there anything or not. */
export function selectionOf({ include, exclude }: RestoreRequest): (path: RelativePath) => boolean {
  const isIncluded = include === undefined ? () => true : pathMatcher(include)
  const isExcluded = exclude === undefined ? () => false : pathMatcher(exclude)
  return (path) => isIncluded(path) && !isExcluded(path)
}

/** Where a path of the volume goes in the target. */
export function placeOf(path: RelativePath, request: RestoreRequest, plan: RestorePlan): RelativePath {
  const isSingle = plan.directories === 0 && path === request.path && path !== ROOT
  return isSingle ? childOf(ROOT, nameOf(path)) : rebase(path, request.path, ROOT)
}

/** The inverse: which path of the volume it is that something of the target stands for. */
export function pathOf(at: RelativePath, request: RestoreRequest, plan: RestorePlan): RelativePath {
  return placeOf(request.path, request, plan) === ROOT ? rebase(at, ROOT, request.path) : request.path
}

function chosen(entries: ListedEntry[], request: RestoreRequest): ListedEntry[] {
  if (request.include === undefined && request.exclude === undefined) return entries
  const isSelected = selectionOf(request)
  const wanted = new Set<RelativePath>([request.path])
  for (const { path: at } of entries) {
    if (!isSelected(at)) continue
    for (let above: RelativePath | undefined = at; above !== undefined && !wanted.has(above); above = parentOf(above)) wanted.add(above)
  }
  return entries.filter((entry) => wanted.has(entry.path))
}

function counted(entries: readonly ListedEntry[]): Omit<RestorePlan, 'point' | 'momentMs'> {
  const count = { files: 0, directories: 0, symlinks: 0, others: 0, bytes: 0, unverified: 0, torn: 0 }
  for (const { version } of entries) {
    if (version.kind === 'file') {
      count.files += 1
      count.bytes += version.size
      if (version.consistency === 'torn') count.torn += 1
      if (version.consistency === 'unverified') count.unverified += 1
    } else if (version.kind === 'directory') {
      count.directories += 1
    } else if (version.kind === 'symlink') {
      count.symlinks += 1
    } else {
      count.others += 1
    }
  }
  return count
}

function momentOf(point: Point): number {
  return point.requestedMs ?? millisecondsOf(point.time ?? (0n as HybridTime))
}

const ABSENCES: Readonly<Record<Absence, string>> = {
  lost: 'the agent could not keep this content until it was acknowledged',
  expired: 'this content has expired: the retention did not ask for it any more',
}
const TORN = 'its content was torn when captured (parts of several moments); --torn restores it all the same'

/** Why a path is not even tried; undefined where it is. */
export async function whyRefused(
  source: HistorySource,
  request: RestoreRequest,
  entry: ListedEntry,
): Promise<Omit<Missing, 'path'> | undefined> {
  const { path, version, absent } = entry
  if (absent !== undefined) return { cause: absent, reason: ABSENCES[absent] }
  if (isRefusedAsTorn(request, version)) {
    const whole = await source.lastWhole(request.agent, request.volume, path, entry.position)
    const reason = whole === undefined ? TORN : `${TORN}; the last whole version is of ${showMoment(millisecondsOf(whole))}`
    return { cause: 'torn', reason }
  }
  const isSpecial = version.kind !== 'file' && version.kind !== 'directory' && version.kind !== 'symlink'
  return isSpecial && !request.special ? { cause: 'special', reason: `a ${version.kind} is recorded; --special recreates it` } : undefined
}

function isRefusedAsTorn({ torn }: RestoreRequest, version: Version): boolean {
  return !torn && version.kind === 'file' && version.consistency === 'torn'
}
