/**
 * What a restore will do: a point and a choice of paths become a list of entries.
 *
 * Invariant: a plan names every path that was asked for, also those that cannot be brought back, each with its reason. It
 * prevents a dry run that promises more than the restore then does.
 */
import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { childOf, isWithin, type Label, nameOf, type RelativePath, ROOT, rebase, showPath } from '../shared/path.ts'
import type { Version } from '../shared/version.ts'
import type { Absence } from './absent-content.ts'
import type { HistorySource, ListedEntry } from './history-source.ts'
import { type OwnerMap, withOwner } from './owner-map.ts'
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
  /** Whether the report is to name every path, which takes memory for each. One of a restore in place does. */
  readonly namesPaths?: boolean | undefined
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
  const entries: ListedEntry[] = []
  const plan = await makePlan(source, request, (entry) => entries.push(entry))
  return { plan, entries }
}

/** The same, where each entry is told of as it comes, and not kept. @throws not-found */
export async function makePlan(
  source: HistorySource,
  request: RestoreRequest,
  onEntry: (entry: ListedEntry) => void,
): Promise<RestorePlan> {
  const count = new PlanCount()
  for await (const group of plannedGroups(source, request)) {
    for (const entry of group) {
      count.add(entry.version)
      onEntry(withOwner(entry, request.owners))
    }
  }
  return planOf(request, count)
}

/** What was chosen, as it is recorded, in groups: depth first, names in byte order. @throws not-found */
export async function* plannedGroups(source: HistorySource, request: RestoreRequest): AsyncGenerator<readonly ListedEntry[]> {
  const { agent, volume, path, point, include, exclude } = request
  const choice = include === undefined && exclude === undefined ? undefined : new Choice(request)
  let isThere = false
  for await (const group of source.treeGroups(agent, volume, path, point.position)) {
    if (group.length > 0) isThere = true
    yield choice === undefined ? group : group.flatMap((entry) => choice.take(entry))
  }
  // A volume that holds nothing is a state like any other; a path below it that is not there is a mistake.
  if (!isThere && path !== ROOT)
    throw new PacsimileError('not-found', `${agent}:${volume}/${showPath(path)} did not exist at that moment`, { details: { of: 'path' } })
}

export function planOf({ point }: RestoreRequest, count: PlanCount): RestorePlan {
  return { point, momentMs: momentOf(point), ...count.found }
}

/** Whether a path of the volume was chosen by the patterns, be there anything or not. */
export function selectionOf({ include, exclude }: RestoreRequest): (path: RelativePath) => boolean {
  const isIncluded = include === undefined ? () => true : pathMatcher(include)
  const isExcluded = exclude === undefined ? () => false : pathMatcher(exclude)
  return (path) => isIncluded(path) && !isExcluded(path)
}

/** Where a path of the volume goes in the target. */
export function placeOf(path: RelativePath, request: RestoreRequest, { directories }: Pick<RestorePlan, 'directories'>): RelativePath {
  const isSingle = directories === 0 && path === request.path && path !== ROOT
  return isSingle ? childOf(ROOT, nameOf(path)) : rebase(path, request.path, ROOT)
}

/** The inverse: which path of the volume it is that something of the target stands for. */
export function pathOf(at: RelativePath, request: RestoreRequest, plan: RestorePlan): RelativePath {
  return placeOf(request.path, request, plan) === ROOT ? rebase(at, ROOT, request.path) : request.path
}

/** Of entries that come depth first: those that are selected, what was asked for itself, and the directories above. */
class Choice {
  readonly #path: RelativePath
  readonly #isSelected: (path: RelativePath) => boolean
  /** Directories above what comes next that nothing has needed yet, from the root down. */
  #above: ListedEntry[] = []

  constructor(request: RestoreRequest) {
    this.#path = request.path
    this.#isSelected = selectionOf(request)
  }

  /** @returns what is chosen now that this one is known */
  take(entry: ListedEntry): ListedEntry[] {
    while (this.#above.length > 0 && !isWithin(entry.path, this.#above.at(-1)?.path ?? ROOT)) this.#above.pop()
    this.#above.push(entry)
    if (entry.path !== this.#path && !this.#isSelected(entry.path)) return []
    const found = this.#above
    this.#above = []
    return found
  }
}

export class PlanCount {
  readonly found = { files: 0, directories: 0, symlinks: 0, others: 0, bytes: 0, unverified: 0, torn: 0 }

  add(version: Version): void {
    const { found } = this
    if (version.kind === 'file') {
      found.files += 1
      found.bytes += version.size
      if (version.consistency === 'torn') found.torn += 1
      if (version.consistency === 'unverified') found.unverified += 1
    } else if (version.kind === 'directory') {
      found.directories += 1
    } else if (version.kind === 'symlink') {
      found.symlinks += 1
    } else {
      found.others += 1
    }
  }
}

function momentOf(point: Point): number {
  return point.requestedMs ?? millisecondsOf(point.time ?? (0n as HybridTime))
}

const ABSENCES: Readonly<Record<Absence, string>> = {
  lost: 'the agent could not keep this content until it was acknowledged',
  expired: 'this content has expired: the retention did not ask for it any more',
}
const TORN = 'its content was torn when captured (parts of several moments); --torn restores it all the same'

export type RefusalCause = Absence | 'torn' | 'special'

/** Why a path is not even tried; undefined where it is. */
export async function whyRefused(
  source: HistorySource,
  request: RestoreRequest,
  entry: ListedEntry,
): Promise<Omit<Missing, 'path'> | undefined> {
  const cause = refusalOf(request, entry)
  return cause === undefined ? undefined : { cause, reason: await reasonRefused(source, request, entry, cause) }
}

/** The same in one word, for which nothing needs to be asked. */
export function refusalOf(request: RestoreRequest, { version, absent }: ListedEntry): RefusalCause | undefined {
  if (absent !== undefined) return absent
  if (isRefusedAsTorn(request, version)) return 'torn'
  const isSpecial = version.kind !== 'file' && version.kind !== 'directory' && version.kind !== 'symlink'
  return isSpecial && !request.special ? 'special' : undefined
}

/** That word explained. */
export async function reasonRefused(
  source: HistorySource,
  { agent, volume }: RestoreRequest,
  { path, position, version }: ListedEntry,
  cause: RefusalCause,
): Promise<string> {
  switch (cause) {
    case 'lost':
    case 'expired':
      return ABSENCES[cause]
    case 'torn': {
      const whole = await source.lastWhole(agent, volume, path, position)
      return whole === undefined ? TORN : `${TORN}; the last whole version is of ${showMoment(millisecondsOf(whole))}`
    }
    case 'special':
      return `a ${version.kind} is recorded; --special recreates it`
  }
}

function isRefusedAsTorn({ torn }: RestoreRequest, version: Version): boolean {
  return !torn && version.kind === 'file' && version.consistency === 'torn'
}
