/**
 * `pacsimile check`: is every stored byte what was written, and is everything that the records name there? And of a collector's own data directory: is
 * the log of who read what as it was written?
 *
 * Invariant: it reads the repository itself, never a collector's word for it, and exits 0 only when all of it is whole.
 * It prevents a cron job that reports health for what it did not look at.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import type { AccessCheck } from '../access-check.ts'
import type { CheckReport } from '../check.ts'
import { showMoment } from '../point.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { bytesFields, isoTime, sayJson } from './json.ts'
import { jsonOption, sourceOptions, withExamples } from './options.ts'
import { paint, say } from './output.ts'
import { Progress } from './progress.ts'
import { openRepository, type RepositoryAccess } from './source.ts'

const LISTED_MAX = 50

export function checkCommand(yargs: Argv): Argv {
  return yargs.command(
    'check',
    'Read every chain, frame and digest of the repository; exit 3 on damage',
    (options) =>
      withExamples(jsonOption(sourceOptions(options)), 'check', 'check --repository /mnt/copy --key-file /mnt/usb/repository.key'),
    async ({ data, repository, keyFile, json }) => {
      const access = await openRepository({ data, repository, keyFile })
      const report = await checked(access)
      const log = repository === undefined ? await checkedLog(data, report) : undefined
      if (json) sayJson(checkFields(report, access.directory, log))
      else sayReport(report, access.directory)
      if (!json && log !== undefined) sayLog(log)
      if (!isWhole(report) || log?.broken !== undefined) process.exitCode = ERRORS.damage.exit
    },
  )
}

async function checked({ directory, dataKey }: RepositoryAccess): Promise<CheckReport> {
  const { checkRepository } = await import('../check.ts')
  using progress = new Progress('Checking')
  return await checkRepository(directory, dataKey, (now) => progress.update(now.bytes, now.totalBytes))
}

async function checkedLog(data: string, report: CheckReport): Promise<AccessCheck> {
  const [{ checkAccessLog }, { accessDirectory }] = await Promise.all([import('../access-check.ts'), import('../access-log.ts')])
  return checkAccessLog(accessDirectory(resolve(data)), report.access)
}

function sayLog({ files, lines, unchained, anchored, broken }: AccessCheck): void {
  if (broken !== undefined) {
    say(paint('red', `The access log is not what was written: access/${broken.file}, line ${broken.line}: ${broken.reason}`))
    return
  }
  if (lines === 0 && anchored === undefined) return
  const unknown = unchained === 0 ? '' : `; for ${showCount(unchained, 'line')} no hash vouches`
  const until =
    anchored === undefined
      ? 'the ledger knows nothing of it yet'
      : `the ledger vouches for it up to ${anchored.day}, byte ${anchored.bytes}`
  say(`Access log: ${showCount(lines, 'line')} in ${showCount(files, 'file')}, an unbroken chain${unknown}; ${until}`)
}

function isWhole(report: Pick<CheckReport, 'damage' | 'affected'>): boolean {
  return report.damage.length === 0 && report.affected.length === 0
}

function sayReport(report: CheckReport, directory: string): void {
  say(
    `Read ${showBytes(report.bytes)} of ${directory} in ${showDuration(report.seconds * 1000)}: ${showCount(report.packs, 'pack')}, ${showCount(report.segments, 'segment')}`,
  )
  say(
    `${showCount(report.agents, 'agent')}, ${showCount(report.records, 'record')}, ${showCount(report.versions, 'version')}, ${showCount(report.chunks, 'chunk')}`,
  )
  for (const note of report.notes) say(paint('dim', note))
  if (report.lostByAgent > 0) say(`${showCount(report.lostByAgent, 'version')} without content, declared lost by the agent at the time`)
  if (isWhole(report)) {
    say(paint('green', 'Whole: every byte is what was written, every chain is unbroken, every version has its content.'))
    return
  }
  say(paint('red', `Damaged in ${showCount(report.damage.length, 'place')}:`))
  for (const { file, offset, reason } of report.damage.slice(0, LISTED_MAX)) say(`    ${file}, byte ${offset}: ${reason}`)
  if (report.damage.length > LISTED_MAX) say(`    and ${report.damage.length - LISTED_MAX} more (--json lists all)`)
  if (report.affected.length === 0) return
  say(paint('red', `${showCount(report.affected.length, 'version')} cannot be restored:`))
  for (const { agent, volume, path, timeMs, epoch, seq, reason } of report.affected.slice(0, LISTED_MAX)) {
    say(`    ${agent}:${volume}/${showPath(path)} of ${showMoment(timeMs)}, seq ${epoch}:${seq}: ${reason}`)
  }
  if (report.affected.length > LISTED_MAX) say(`    and ${report.affected.length - LISTED_MAX} more (--json lists all)`)
}

/** `log`: undefined where only a repository was checked. */
export function checkFields(report: CheckReport, directory: string, log: AccessCheck | undefined): object {
  return {
    ...report,
    directory,
    whole: isWhole(report),
    affected: report.affected.map(({ path, timeMs, ...rest }) => ({ ...rest, ...bytesFields('path', path), time: isoTime(timeMs) })),
    access: log === undefined ? null : accessFields(log),
  }
}

function accessFields({ files, lines, unchained, anchored, broken }: AccessCheck): object {
  return { files, lines, unchained, anchored: anchored ?? null, broken: broken ?? null }
}
