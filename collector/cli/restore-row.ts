/**
 * What a restore does, or did, for people and for machines.
 *
 * Invariant: a plan and a report have the same numbers under the same names. It prevents a dry run that reads like a promise and a report that nobody can hold against it.
 */
import { type RelativePath, showPath } from '../../shared/path.ts'
import type { InPlaceReport } from '../in-place-report.ts'
import { showMoment } from '../point.ts'
import type { RestoreReport } from '../restore.ts'
import type { Estimate } from '../restore-estimate.ts'
import { MISSING_CAUSES } from '../restore-plan.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { bytesFields } from './json.ts'
import type { MassChangeHint } from './mass-change-hint.ts'
import { pointFields } from './moment.ts'
import { note, paint, say, warn } from './output.ts'

/** Paths listed to people; JSON has all. */
const LISTED_MAX = 20

const CAUSES = {
  torn: 'torn when captured',
  expired: 'expired',
  lost: 'lost by the agent',
  special: 'of kinds that --special makes',
  damage: 'damaged',
  refused: 'refused by the system, or in the way',
} as const satisfies Record<(typeof MISSING_CAUSES)[number], string>

export function sayReport(report: RestoreReport, target: string, withTorn: boolean): void {
  const moment = showMoment(report.momentMs)
  const { inPlace } = report
  const where = inPlace === undefined ? 'into' : 'in place in'
  if (report.dryRun) {
    say(`Would restore ${target} as of ${moment} ${where} ${report.to}: ${amountOf(report)}`)
    if (inPlace !== undefined) sayInPlace(inPlace)
    sayEstimate(report.estimate)
  } else {
    const written = inPlace === undefined ? report.bytes : (inPlace.bytesToWrite ?? 0)
    const rate = report.seconds > 0 && written > 0 ? ` (${showBytes(written / report.seconds)}/s)` : ''
    say(`Restored ${target} as of ${moment} ${where} ${report.to}:`)
    say(`${amountOf(report)}, in ${showDuration(report.seconds * 1000)}${rate}, every byte verified`)
    if (inPlace !== undefined) sayInPlace(inPlace)
    else if (report.kept > 0) say(`${showCount(report.kept, 'file')} were there already, from the run that was interrupted`)
  }
  sayDoubts(report, withTorn)
  sayMissing(report)
}

function sayInPlace(found: InPlaceReport): void {
  const { id, added, replaced, removed, metadata, kept } = found
  say(`  kept as they are  ${kept.length.toLocaleString('en')}, ${showBytes(found.keptBytes)}`)
  sayPaths('replaced', replaced)
  sayPaths('added', added)
  sayPaths('metadata only', metadata)
  sayPaths(
    'put aside',
    removed,
    removed.length > 0 ? ` (with what is in them ${showCount(found.removedPaths, 'path')}, ${showBytes(found.removedBytes)})` : '',
  )
  if (found.bytesToWrite !== undefined) say(`  to write          ${showBytes(found.bytesToWrite)}`)
  if (found.others > 0) note(`${showCount(found.others, 'path')} that were not there then stay; --delete puts them aside`)
  if (found.inUse.length > 0)
    warn(
      `${showCount(found.inUse.length, 'file')} are open for writing: who writes goes on writing to what is put aside (${showPath(found.inUse[0] ?? '')})`,
    )
  for (const { path, reason } of found.changed.slice(0, LISTED_MAX)) warn(`${showPath(path)}: ${reason}`)
  if (id !== undefined) say(`\`pacsimile restore undo ${id}\` takes it back, until \`restore forget ${id}\` gives that up`)
}

function sayPaths(title: string, paths: readonly RelativePath[], more = ''): void {
  say(`  ${title.padEnd(16)}  ${paths.length.toLocaleString('en')}${more}`)
  for (const path of paths.slice(0, LISTED_MAX)) say(`    ${path === '' ? '.' : showPath(path)}`)
  if (paths.length > LISTED_MAX) say(`    and ${(paths.length - LISTED_MAX).toLocaleString('en')} more (--json lists all)`)
}

function sayEstimate(estimate: Estimate | undefined): void {
  if (estimate === undefined || estimate.from === 'nothing') return
  const { seconds, bytesPerSecond, sampledBytes, from } = estimate
  const basis =
    from === 'bandwidth'
      ? `as --bandwidth allows (reading was faster on a sample of ${showBytes(sampledBytes)})`
      : `at ${showBytes(bytesPerSecond)}/s, at which one reader has just read and verified a sample of ${showBytes(sampledBytes)}; several read at once, and writing is not in it`
  say(`Time: about ${showDuration(seconds * 1000)}, ${basis}`)
}

/** The kinds that there are, and the bytes. */
function amountOf(report: RestoreReport): string {
  const { files, directories, symlinks, hardLinks, others, bytes } = report
  return [
    showCount(files, 'file'),
    ...(directories > 0 ? [showCount(directories, 'directory', 'directories')] : []),
    ...(symlinks > 0 ? [showCount(symlinks, 'symlink')] : []),
    ...(hardLinks > 0 ? [showCount(hardLinks, 'hard link')] : []),
    ...(others > 0 ? [`${others.toLocaleString('en')} of other kinds`] : []),
    showBytes(bytes),
  ].join(', ')
}

function sayDoubts(report: RestoreReport, withTorn: boolean): void {
  // Those that were refused are listed among what is missing.
  if (report.torn > 0 && withTorn)
    warn(`${showCount(report.torn, 'file')} changed while being read at the time: the content may never have existed as a whole`)
  if (report.unverified > 0)
    warn(`${showCount(report.unverified, 'file')} could not be proven to be whole when captured (a writer had it open)`)
  const bySort = new Map<string, number>()
  for (const { what, reason } of report.shortcomings) bySort.set(`${what}: ${reason}`, (bySort.get(`${what}: ${reason}`) ?? 0) + 1)
  for (const [sort, count] of bySort) warn(`${showCount(count, 'path')} without ${sort}`)
}

function sayMissing({ missing, dryRun }: RestoreReport): void {
  if (missing.length === 0) return
  const counts = MISSING_CAUSES.flatMap((cause) => {
    const count = missing.filter((one) => one.cause === cause).length
    return count === 0 ? [] : [`${count.toLocaleString('en')} ${CAUSES[cause]}`]
  }).join(', ')
  const what = dryRun ? `cannot be restored (${counts})` : 'could not be restored'
  note(paint('red', `${showCount(missing.length, 'path')} ${what}:`, process.stderr))
  for (const { path, reason } of missing.slice(0, LISTED_MAX)) note(`    ${showPath(path)}: ${reason}`)
  if (missing.length > LISTED_MAX) note(`    and ${missing.length - LISTED_MAX} more (--json lists all); in all ${counts}`)
}

/** `massChange`: null where a restore in place is none to a replica; undefined where that is not told. */
export function restoreFields(report: RestoreReport, massChange?: MassChangeHint | null): object {
  const { estimate, inPlace } = report
  return {
    agent: report.agent,
    volume: report.volume,
    ...bytesFields('path', report.path),
    to: report.to,
    dryRun: report.dryRun,
    ...pointFields(report.point),
    files: report.files,
    directories: report.directories,
    symlinks: report.symlinks,
    hardLinks: report.hardLinks,
    others: report.others,
    bytes: report.bytes,
    seconds: report.seconds,
    kept: report.kept,
    fromReplica: report.fromReplica,
    unverified: report.unverified,
    torn: report.torn,
    damaged: report.damaged,
    missing: report.missing.map(({ path, cause, reason }) => ({ ...bytesFields('path', path), cause, reason })),
    shortcomings: report.shortcomings.map(({ path, what, reason }) => ({ ...bytesFields('path', path), what, reason })),
    estimate: estimate === undefined ? null : { ...estimate },
    inPlace:
      inPlace === undefined
        ? null
        : { ...inPlaceFields(inPlace), ...(massChange === undefined ? {} : { massChange: massChange && massChangeFields(massChange) }) },
  }
}

function inPlaceFields(found: InPlaceReport): object {
  const { added, replaced, removed, metadata, inUse } = found
  const paths = Object.entries({ added, replaced, removed, metadata, inUse }).map(([name, list]) => [
    name,
    list.map((path) => bytesFields('path', path)),
  ])
  return {
    id: found.id ?? null,
    ...Object.fromEntries(paths),
    removedPaths: found.removedPaths,
    removedBytes: found.removedBytes,
    keptPaths: found.kept.length,
    keptBytes: found.keptBytes,
    bytesToWrite: found.bytesToWrite ?? null,
    others: found.others,
    changed: found.changed.map(({ path, reason }) => ({ ...bytesFields('path', path), reason })),
  }
}

function massChangeFields({ target, gone, share, files, isConfigured, command }: MassChangeHint): object {
  return { target, gone, share, files, configured: isConfigured, command }
}
