/**
 * `pacsimile log`: every record of a volume, or of a path and what is below it, oldest first.
 *
 * Lines are written as records come, at the reader's pace. It prevents a log of 10^8 records from filling memory.
 */
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { HistorySource } from '../history-source.ts'
import { type PointRequest, parsePoint } from '../point.ts'
import { sayJson } from './json.ts'
import { LOG_TITLES, logFields, logLine, logRow } from './log-row.ts'
import { AT_HELP, jsonOption, MOMENT, sourceOptions, TARGET, withExamples } from './options.ts'
import { paint, readerKeepsUp, say } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, type Target } from './target.ts'

export function logCommand(yargs: Argv): Argv {
  return yargs.command(
    'log <target>',
    'Every record of a volume, or of a path and what is below it, oldest first',
    (options) =>
      withExamples(
        jsonOption(sourceOptions(options))
          .positional('target', TARGET)
          .option('at', { ...MOMENT, describe: `Only up to then. ${AT_HELP}` })
          .option('from', { ...MOMENT, describe: 'Only after then' })
          .option('to', { ...MOMENT, describe: 'Only up to then' }),
        'log pacs1:images --from 02:00 --to 03:00 | less',
        'log pacs1:images/2026/11/study-06 --json',
      ),
    async ({ data, repository, keyFile, json, target, at, from, to }) => {
      if (at !== undefined && to !== undefined) throw new PacsimileError('usage', '--at and --to say the same; give one')
      const place = parseTarget(target)
      const start = from === undefined ? undefined : parsePoint(from)
      const end = at ?? to
      const until = end === undefined ? undefined : parsePoint(end)
      await using source = await openSource({ data, repository, keyFile })
      let found = 0
      for await (const entry of source.log(place.agent, place.volume, {
        path: place.path,
        from: await startOf(source, place, start),
        until,
      })) {
        if (found === 0 && !json) say(paint('bold', logLine(LOG_TITLES)))
        found += 1
        if (json) sayJson(logFields(entry))
        else say(logLine(logRow(entry)))
        await readerKeepsUp()
      }
      if (found === 0) throw new PacsimileError('not-found', `No record of ${target} in that time`)
    },
  )
}

/** A time before the first record means: from the first record on. */
async function startOf(source: HistorySource, place: Target, from: PointRequest | undefined): Promise<PointRequest | undefined> {
  if (from?.kind !== 'time') return from
  try {
    await source.point(place.agent, place.volume, from)
    return from
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'outside-window') return undefined
    throw error
  }
}
