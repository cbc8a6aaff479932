/** `pacsimile restore`: a moment becomes a directory again. */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import { parsePoint, showMoment } from '../point.ts'
import type { RestoreReport } from '../restore.ts'
import { describePoint, pointFields, pointWarnings } from './moment.ts'
import { AT_HELP, jsonOption, sourceOptions } from './options.ts'
import { note, paint, pathFields, say, sayJson, showBytes, showCount, showDuration, warn } from './output.ts'
import { Progress } from './progress.ts'
import { openSource } from './source.ts'
import { parseTarget } from './target.ts'

/** Paths listed to people; JSON has all. */
const LISTED_MAX = 20

export function restoreCommand(yargs: Argv): Argv {
  return yargs.command(
    'restore <target>',
    'Bring a volume, a directory or a file of a moment back, verified, into an empty directory',
    (options) =>
      jsonOption(sourceOptions(options))
        .positional('target', { type: 'string', demandOption: true, describe: 'AGENT:VOLUME[/PATH]' })
        .option('at', { type: 'string', describe: AT_HELP, demandOption: true, requiresArg: true })
        .option('to', {
          type: 'string',
          describe: "Empty or new directory. A directory's content goes right into it, a file becomes TO/NAME",
          demandOption: true,
          requiresArg: true,
        })
        .option('dry-run', { type: 'boolean', describe: 'Only say what would be restored', default: false })
        .option('setuid', { type: 'boolean', describe: 'Give files their setuid and setgid bits', default: false })
        .example('$0 restore pacs1:images --at "2026-11-24 02:59:59" --to /srv/restored', 'a whole volume')
        .example('$0 restore pacs1:images/2026/11 --at "10m ago" --to /tmp/november --repository /mnt/copy', 'from a bare repository'),
    async ({ data, repository, keyFile, json, target, at, to, dryRun, setuid }) => {
      const place = parseTarget(target)
      // A moment that cannot be understood is said before anything is opened.
      const moment = parsePoint(at)
      const { restore } = await import('../restore.ts')
      await using source = await openSource({ data, repository, keyFile })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) {
        note(`Restoring ${target} as it was at ${describePoint(point)}`)
        for (const warning of pointWarnings(point)) warn(warning)
      }
      const progress = new Progress('Restoring')
      const report = await restore(source, { ...place, point, to: resolve(to), dryRun, setuid }, (now) =>
        progress.update(now.bytes, now.totalBytes, `, ${now.files} of ${now.totalFiles} files`),
      )
      progress.end()
      if (json) sayJson(reportFields(report))
      else sayReport(report, target)
      process.exitCode = exitOf(report, source.damage.length > 0)
    },
  )
}

function exitOf(report: RestoreReport, isRepositoryDamaged: boolean): number {
  if (report.damaged || isRepositoryDamaged) return ERRORS.damage.exit
  return report.missing.length > 0 ? ERRORS.incomplete.exit : 0
}

function sayReport(report: RestoreReport, target: string): void {
  const amount = `${showCount(report.files, 'file')}, ${showCount(report.directories, 'directory', 'directories')}, ${showCount(report.symlinks, 'symlink')}, ${showBytes(report.bytes)}`
  if (report.dryRun) {
    say(`Would restore ${target} as of ${showMoment(report.momentMs)} into ${report.to}: ${amount}`)
  } else {
    const seconds = Math.max(report.seconds, 0.001)
    say(`Restored ${target} as of ${showMoment(report.momentMs)} into ${report.to}:`)
    say(`${amount}, in ${showDuration(report.seconds * 1000)} (${showBytes(report.bytes / seconds)}/s), every byte verified`)
  }
  if (report.torn > 0)
    warn(`${showCount(report.torn, 'file')} changed while being read at the time: the content may never have existed as a whole`)
  if (report.unverified > 0)
    warn(`${showCount(report.unverified, 'file')} could not be proven to be whole when captured (a writer had it open)`)
  const bySort = new Map<string, number>()
  for (const { what, reason } of report.shortcomings) bySort.set(`${what}: ${reason}`, (bySort.get(`${what}: ${reason}`) ?? 0) + 1)
  for (const [sort, count] of bySort) warn(`${showCount(count, 'path')} without ${sort}`)
  if (report.missing.length === 0) return
  note(paint('red', `${showCount(report.missing.length, 'path')} could not be restored:`, process.stderr))
  for (const { path, reason } of report.missing.slice(0, LISTED_MAX)) note(`    ${showPath(path)}: ${reason}`)
  if (report.missing.length > LISTED_MAX) note(`    and ${report.missing.length - LISTED_MAX} more (--json lists all)`)
}

function reportFields(report: RestoreReport): object {
  return {
    agent: report.agent,
    volume: report.volume,
    ...pathFields(report.path),
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
    unverified: report.unverified,
    torn: report.torn,
    damaged: report.damaged,
    missing: report.missing.map(({ path, reason }) => ({ ...pathFields(path), reason })),
    shortcomings: report.shortcomings.map(({ path, what, reason }) => ({ ...pathFields(path), what, reason })),
  }
}
