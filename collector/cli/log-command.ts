/**
 * `pacsimile log`: every record of a volume, or of a path and what is below it, oldest first.
 *
 * Lines are written as records come, at the reader's pace. It prevents a log of 10^8 records from filling memory.
 */
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { parsePoint } from '../point.ts'
import { sayJson } from './json.ts'
import { LOG_TITLES, logFields, logLine, logRow } from './log-row.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { paint, readerKeepsUp, say } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget } from './target.ts'

export function logCommand(yargs: Argv): Argv {
  return yargs.command(
    'log <target>',
    'Every record of a volume, or of a path and what is below it, oldest first',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .option('at', { ...MOMENT, describe: `Only up to then. ${AT_HELP}` })
          .option('from', { ...MOMENT, describe: 'Only after then' })
          .option('to', { ...MOMENT, describe: 'Only up to then' }),
        'log pacs1:images --from 02:00 --to 03:00 | less',
        'log pacs1:images/2026/11/study-06 --json',
      ),
    async ({ data, repository, keyFile, checkpoint, json, target, at, from, to }) => {
      if (at !== undefined && to !== undefined) throw new PacsimileError('usage', '--at and --to say the same; give one')
      const place = parseTarget(target)
      const end = at ?? to
      const query = {
        path: place.path,
        from: from === undefined ? undefined : parsePoint(from),
        until: end === undefined ? undefined : parsePoint(end),
      }
      await using source = await openSource({ data, repository, keyFile, checkpoint })
      let found = 0
      for await (const entry of source.log(place.agent, place.volume, query)) {
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
