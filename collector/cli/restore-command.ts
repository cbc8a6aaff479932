/**
 * `pacsimile restore`: a moment becomes a directory again.
 *
 * Invariant: the moment is said before anything is written and again at the end, and whatever could not be brought back is
 * listed and decides the exit status. It prevents a restore that was partial, or of another moment, from looking like one that was whole.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS, PacsimileError } from '../../shared/errors.ts'
import { parseShownPath, showPath } from '../../shared/path.ts'
import type { HistorySource } from '../history-source.ts'
import { parsePoint, showMoment } from '../point.ts'
import type { RestoreReport } from '../restore.ts'
import type { RestoreRequest } from '../restore-plan.ts'
import { absenceOf } from './absence.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { bytesFields, sayJson } from './json.ts'
import { pointFields, requireComplete, sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, paint, say, warn } from './output.ts'
import { Progress } from './progress.ts'
import { openSource } from './source.ts'
import { parseTarget } from './target.ts'

/** Paths listed to people; JSON has all. */
const LISTED_MAX = 20

export function restoreCommand(yargs: Argv): Argv {
  return yargs.command(
    'restore <target>',
    'Bring a volume, a directory or a file of a moment back, verified, into an empty directory; goes on where it was interrupted',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .option('at', { ...MOMENT, describe: AT_HELP, demandOption: true })
          .option('to', {
            type: 'string',
            describe:
              "Empty or new directory, or one in which this restore was interrupted. A directory's content goes right into it, a file becomes TO/NAME",
            demandOption: true,
            requiresArg: true,
          })
          .option('dry-run', { type: 'boolean', describe: 'Only say what would be restored', default: false })
          .option('include', {
            type: 'string',
            describe: 'Only paths below the volume that match (* and ? within a name, ** over names), with all that is below them',
            requiresArg: true,
          })
          .option('exclude', { type: 'string', describe: 'Not what matches, nor what is below it', requiresArg: true })
          .option('priority', {
            choices: ['path', 'newest'] as const,
            describe: 'Which files come first: as they lie in the tree, or those modified last',
            default: 'path' as const,
          })
          .option('require-complete', {
            type: 'boolean',
            describe: 'Refuse a moment in which something may have been missed: in a gap, before the first scan, not proven yet',
            default: false,
          })
          .option('setuid', { type: 'boolean', describe: 'Give files their setuid and setgid bits and their capabilities', default: false })
          .option('special', { type: 'boolean', describe: 'Recreate fifos, sockets and, as root, device nodes', default: false })
          .option('torn', {
            type: 'boolean',
            describe: 'Restore also files that changed while they were captured: their content may never have existed as a whole',
            default: false,
          }),
        'restore pacs1:images --at "2026-11-24 02:59:59" --to /srv/restored',
        'restore pacs1:images/2026/11 --at "10m ago" --to /tmp/november --dry-run',
        'restore pacs1:images --at 03:00 --to /srv/restored --priority newest --include "2026/**"',
        'restore pacs1:images --at now --to /srv/restored --repository /mnt/copy',
      ),
    async ({ data, repository, keyFile, checkpoint, json, target, at, to, include, exclude, priority, ...asked }) => {
      const { dryRun, setuid, special, torn } = asked
      const place = parseTarget(target)
      // A moment that cannot be understood is said before anything is opened.
      const moment = parsePoint(at)
      await using source = await openSource({ data, repository, keyFile, checkpoint })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) sayPoint(target, point, 'Restoring ')
      if (asked.requireComplete) requireComplete(point)
      const chosen = { include: patternOf(include), exclude: patternOf(exclude), priority }
      const report = await restored(source, { ...place, ...chosen, point, to: resolve(to), dryRun, setuid, special, torn })
      if (json) sayJson(restoreFields(report))
      else sayReport(report, target, torn)
      process.exitCode = exitOf(report, source.damage.length > 0)
    },
  )
}

/** As bytes; names may be typed as they are shown. */
function patternOf(text: string | undefined): string | undefined {
  return text === undefined ? undefined : parseShownPath(text.replace(/\/+$/, ''))
}

async function restored(source: HistorySource, request: RestoreRequest): Promise<RestoreReport> {
  const { restore } = await import('../restore.ts')
  using progress = new Progress('Restoring')
  try {
    return await restore(source, request, (now) => progress.update(now.bytes, now.totalBytes, `, ${now.files} of ${now.totalFiles} files`))
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'not-found') throw await absenceOf(source, request, request.point.position)
    throw error
  }
}

function exitOf(report: RestoreReport, isRepositoryDamaged: boolean): number {
  if (report.damaged || isRepositoryDamaged) return ERRORS.damage.exit
  return report.missing.length > 0 ? ERRORS.incomplete.exit : 0
}

function sayReport(report: RestoreReport, target: string, withTorn: boolean): void {
  const moment = showMoment(report.momentMs)
  if (report.dryRun) {
    say(`Would restore ${target} as of ${moment} into ${report.to}: ${amountOf(report)}`)
  } else {
    const rate = report.seconds > 0 && report.bytes > 0 ? ` (${showBytes(report.bytes / report.seconds)}/s)` : ''
    say(`Restored ${target} as of ${moment} into ${report.to}:`)
    say(`${amountOf(report)}, in ${showDuration(report.seconds * 1000)}${rate}, every byte verified`)
    if (report.kept > 0) say(`${showCount(report.kept, 'file')} were there already, from the run that was interrupted`)
  }
  sayDoubts(report, withTorn)
  if (report.missing.length === 0) return
  note(paint('red', `${showCount(report.missing.length, 'path')} could not be restored:`, process.stderr))
  for (const { path, reason } of report.missing.slice(0, LISTED_MAX)) note(`    ${showPath(path)}: ${reason}`)
  if (report.missing.length > LISTED_MAX) note(`    and ${report.missing.length - LISTED_MAX} more (--json lists all)`)
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

export function restoreFields(report: RestoreReport): object {
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
    missing: report.missing.map(({ path, reason }) => ({ ...bytesFields('path', path), reason })),
    shortcomings: report.shortcomings.map(({ path, what, reason }) => ({ ...bytesFields('path', path), what, reason })),
  }
}
