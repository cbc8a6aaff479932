/**
 * `pacsimile restore`: a moment becomes a directory again, or a directory what it was at a moment.
 *
 * Invariant: the moment is said before anything is written and again at the end, and whatever could not be brought back is
 * listed and decides the exit status; what is there is changed only after the plan was shown and agreed to. It prevents a restore that was partial, or of
 * another moment, from looking like one that was whole.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS, PacsimileError } from '../../shared/errors.ts'
import { parseShownPath } from '../../shared/path.ts'
import type { HistorySource } from '../history-source.ts'
import { parseOwnerMap } from '../owner-map.ts'
import { parsePoint } from '../point.ts'
import type { RestoreProgress } from '../restoration.ts'
import type { PreparedRestore, prepareInPlace, RestoreReport } from '../restore.ts'
import type { RestoreRequest } from '../restore-plan.ts'
import type { UndoIndex } from '../undo-index.ts'
import { absenceOf } from './absence.ts'
import { sayJson } from './json.ts'
import type { MassChangeHint } from './mass-change-hint.ts'
import { requireComplete, sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, warn } from './output.ts'
import { Progress } from './progress.ts'
import { isAgreed } from './question.ts'
import { parseRate } from './rate.ts'
import { keepReport, verifyReportCommand } from './restore-proof.ts'
import { restoreFields, sayReport } from './restore-row.ts'
import { forgetCommand, restoresCommand, undoCommand } from './restore-undo.ts'
import { type HistoryOptions, openSource } from './source.ts'
import { parseTarget } from './target.ts'

export function restoreCommand(yargs: Argv): Argv {
  return yargs.command('restore', 'Bring a moment back, verified: into an empty directory, or in place; take that back', (options) => {
    // Completion does not look into the command that has no name.
    if (process.argv.includes('--get-yargs-completions')) bringOptions(options)
    return [bringCommand, undoCommand, restoresCommand, forgetCommand, verifyReportCommand]
      .reduce((so, command) => command(so), options)
      .demandCommand(1, 'Name what to restore, AGENT:VOLUME[/PATH], or undo, list, forget or verify-report')
  })
}

function bringOptions(options: Argv) {
  return jsonOption(historyOptions(options))
    .positional('target', TARGET)
    .option('at', { ...MOMENT, describe: AT_HELP, demandOption: true })
    .option('to', {
      type: 'string',
      describe:
        "Empty or new directory, or one in which this restore was interrupted; with --in-place any that is there. A directory's content goes right into it, a file becomes TO/NAME",
      demandOption: true,
      requiresArg: true,
    })
    .option('dry-run', { type: 'boolean', describe: 'Only say what would be restored', default: false })
    .option('in-place', {
      type: 'boolean',
      describe: 'Into a directory with content: write only what differs, and keep what that replaces for `restore undo`',
      default: false,
    })
    .option('delete', { type: 'boolean', describe: 'In place: put aside what was not there then, of what is chosen', default: false })
    .option('yes', { type: 'boolean', describe: 'In place: do not ask', default: false })
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
    .option('bandwidth', { type: 'string', describe: 'Write at most so much content a second: 50MB/s, 800KiB/s', requiresArg: true })
    .option('report', { type: 'string', describe: 'Write a signed report of every path into this file', requiresArg: true })
    .option('require-complete', {
      type: 'boolean',
      describe: 'Refuse a moment in which something may have been missed: in a gap, before the first scan, not proven yet',
      default: false,
    })
    .option('owner', { type: 'boolean', describe: 'Give files to who owned them; --no-owner leaves that', default: true })
    .option('owner-map', {
      type: 'string',
      describe: 'FROM:TO, user:FROM:TO or group:FROM:TO: numbers or names of this host; may be given several times',
      requiresArg: true,
    })
    .option('setuid', {
      type: 'boolean',
      describe: 'Give files their setuid and setgid bits, capabilities and other security xattrs',
      default: false,
    })
    .option('special', { type: 'boolean', describe: 'Recreate fifos, sockets and, as root, device nodes', default: false })
    .option('torn', {
      type: 'boolean',
      describe: 'Restore also files that changed while they were captured: their content may never have existed as a whole',
      default: false,
    })
}

function bringCommand(yargs: Argv): Argv {
  return yargs.command(
    '$0 <target>',
    'Bring a volume, a directory or a file of a moment back; goes on where it was interrupted',
    (options) =>
      withExamples(
        bringOptions(options),
        'restore pacs1:images --at "2026-11-24 02:59:59" --to /srv/restored',
        'restore pacs1:images --at 02:59 --to /srv/images --in-place --delete --dry-run',
        'restore pacs1:images/2026/11 --at "10m ago" --to /tmp/november --bandwidth 50MB/s',
        'restore pacs1:images --at 03:00 --to /srv/restored --priority newest --include "2026/**"',
        'restore pacs1:images --at now --to /srv/restored --repository /mnt/copy',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, at, to, include, exclude, priority, ...asked }) => {
      const { dryRun, setuid, special, torn, inPlace, yes } = asked
      if (!inPlace && (asked.delete || yes)) throw new PacsimileError('usage', `--${asked.delete ? 'delete' : 'yes'} goes with --in-place`)
      if (dryRun && asked.report !== undefined)
        throw new PacsimileError('usage', 'A dry run has nothing to report: --json says what it found')
      const place = parseTarget(target)
      // A moment that cannot be understood is said before anything is opened.
      const moment = parsePoint(at)
      const owners = asked.ownerMap === undefined ? undefined : parseOwnerMap([asked.ownerMap].flat())
      const bytesPerSecond = asked.bandwidth === undefined ? undefined : parseRate(asked.bandwidth, '--bandwidth')
      if (inPlace && !dryRun && !yes && (json || !process.stdin.isTTY))
        throw new PacsimileError(
          'usage',
          'There is nobody to ask whether what is there may be changed: give --yes, or --dry-run to see the plan',
        )
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) sayPoint(target, point, 'Restoring ')
      if (asked.requireComplete) requireComplete(point)
      const chosen = { include: patternOf(include), exclude: patternOf(exclude), priority, delete: asked.delete, inPlace }
      const owner = asked.owner ? undefined : ('none' as const)
      const namesPaths = asked.report !== undefined
      const request = {
        ...place,
        ...chosen,
        point,
        to: resolve(to),
        dryRun,
        setuid,
        special,
        torn,
        owner,
        owners,
        bytesPerSecond,
        namesPaths,
      }
      const startedMs = Date.now()
      const done = inPlace
        ? await restoredInPlace(source, request, { target, json, yes, place: { data, repository, collector } })
        : { report: await restored(source, request), massChange: undefined }
      if (done === undefined) return
      const { report, massChange } = done
      if (asked.report !== undefined) await keepReport(asked.report, report, { startedMs, data, repository, keyFile })
      if (json) sayJson(restoreFields(report, massChange ?? null))
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
  try {
    if (request.dryRun) {
      // It needs none of what writes.
      const { restoreOutlook } = await import('../restore-outlook.ts')
      return await restoreOutlook(source, request)
    }
    const { restore } = await import('../restore.ts')
    using progress = new Progress('Restoring')
    return await restore(source, request, (now) => showProgress(progress, now))
  } catch (error) {
    await tellAbsence(source, request, error)
    throw error
  }
}

/** How much it will be is known when the plan is made. */
function showProgress(progress: Progress, { bytes, files, total }: RestoreProgress): void {
  if (total === undefined) progress.bytes(bytes, `, ${files} files`)
  else progress.update(bytes, total.bytes, `, ${files} of ${total.files} files`)
}

/** @throws not-found, with what is there instead, where that is what the error is of */
async function tellAbsence(source: HistorySource, request: RestoreRequest, error: unknown): Promise<void> {
  if (error instanceof PacsimileError && error.code === 'not-found' && error.details['of'] === 'path')
    throw await absenceOf(source, request, request.point.position)
}

interface InPlaceTerms {
  readonly target: string
  readonly json: boolean
  readonly yes: boolean
  readonly place: Pick<HistoryOptions, 'data' | 'repository' | 'collector'>
}

interface DoneInPlace {
  readonly report: RestoreReport
  readonly massChange: MassChangeHint | undefined
}

/** Undefined where nobody agreed to it. */
async function restoredInPlace(
  source: HistorySource,
  request: RestoreRequest,
  { target, json, yes, place }: InPlaceTerms,
): Promise<DoneInPlace | undefined> {
  const [{ prepareInPlace: prepare }, { UndoIndex: Index }, { massChangeHint, massChangeLine }] = await Promise.all([
    import('../restore.ts'),
    import('../undo-index.ts'),
    import('./mass-change-hint.ts'),
  ])
  await using prepared = await compared(source, request, prepare)
  const { outlook } = prepared
  const massChange = await massChangeHint(source, outlook, place)
  if (!json && !request.dryRun) sayReport(outlook, target, request.torn)
  if (massChange !== undefined) warn(massChangeLine(massChange))
  if (request.dryRun) return { report: outlook, massChange }
  if (
    !yes &&
    !isNothing(outlook) &&
    !(await isAgreed(`Change ${request.to}? What is replaced can be brought back with \`restore undo\`. [y/N] `))
  ) {
    note('Nothing was changed.')
    return undefined
  }
  using progress = new Progress('Restoring')
  const report = await prepared.run(
    (now) => showProgress(progress, now),
    (id) => {
      remember(id, request.to, Index)
    },
  )
  return { report, massChange }
}

async function compared(source: HistorySource, request: RestoreRequest, prepare: typeof prepareInPlace): Promise<PreparedRestore> {
  using progress = new Progress('Comparing')
  let bytes = 0
  try {
    return await prepare(source, request, (read) => progress.bytes((bytes += read)))
  } catch (error) {
    await tellAbsence(source, request, error)
    throw error
  }
}

function isNothing({ inPlace }: RestoreReport): boolean {
  if (inPlace === undefined || inPlace.id !== undefined) return false
  return [inPlace.added, inPlace.replaced, inPlace.removed, inPlace.metadata].every((paths) => paths.length === 0)
}

/** So that the id alone finds it; what counts is beside what was restored. */
function remember(id: string, to: string, Index: typeof UndoIndex): void {
  try {
    new Index().add(id, to)
  } catch (error) {
    if (!(error instanceof PacsimileError)) throw error
    warn(`${error.message}: \`restore undo ${id}\` needs --in ${to}`)
  }
}

function exitOf(report: RestoreReport, isRepositoryDamaged: boolean): number {
  if (report.damaged || isRepositoryDamaged) return ERRORS.damage.exit
  return report.missing.length > 0 ? ERRORS.incomplete.exit : 0
}
