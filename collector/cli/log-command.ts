/**
 * `pacsimile log`: every record of a volume, or of a path and what is below it, oldest first.
 *
 * Lines are written as records come, at the reader's pace. It prevents a log of 10^8 records from filling memory.
 */
import { setTimeout } from 'node:timers/promises'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { HistorySource, LogEntry, LogQuery } from '../history-source.ts'
import { parsePoint } from '../point.ts'
import { sayJson } from './json.ts'
import { LOG_OPS, logFilter } from './log-filter.ts'
import { LOG_TITLES, logFields, logLine, logRow } from './log-row.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { paint, readerKeepsUp, say } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, type Target } from './target.ts'

/** A collector is asked so often for what came since. */
const FOLLOW_MS = 300

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
          .option('to', { ...MOMENT, describe: 'Only up to then' })
          .option('match', { type: 'string', describe: 'Only of names that match this, as find does', requiresArg: true })
          .option('op', { type: 'string', describe: `Only these, joined by commas: ${LOG_OPS.join(', ')}`, requiresArg: true })
          .option('writer', {
            type: 'string',
            describe: 'Only what was written by it: a part of the path of the executable, uid:N or pid:N',
            requiresArg: true,
          })
          .option('follow', { alias: 'f', type: 'boolean', describe: 'Go on with what is recorded from now on', default: false }),
        'log pacs1:images --from 02:00 --to 03:00 | less',
        'log pacs1:images/2026/11/study-06 --json',
        'log pacs1:images --op put,remove --match "*.dcm" --writer dcmtk --follow',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, at, from, to, match, op, writer, follow }) => {
      if (at !== undefined && to !== undefined) throw new PacsimileError('usage', '--at and --to say the same; give one')
      const place = parseTarget(target)
      const end = at ?? to
      if (follow && end !== undefined) throw new PacsimileError('usage', '--follow has no end; leave out --at and --to')
      const query = {
        path: place.path,
        from: from === undefined ? undefined : parsePoint(from),
        until: end === undefined ? undefined : parsePoint(end),
      }
      const isWanted = logFilter({ match, op, writer })
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      if (follow && !source.isLive)
        throw new PacsimileError('usage', '--follow needs a running collector: nothing is added to what is read here')
      let found = 0
      for await (const entry of follow ? followed(source, place, query) : source.log(place.agent, place.volume, query)) {
        if (!isWanted(entry)) continue
        if (found === 0 && !json) say(paint('bold', logLine(LOG_TITLES)))
        found += 1
        if (json) sayJson(logFields(entry))
        else say(logLine(logRow(entry)))
        await readerKeepsUp()
      }
      if (found === 0) throw new PacsimileError('not-found', `No such record of ${target} in that time`)
    },
  )
}

/** What there is, and then what comes, for ever. Asked for up to a position that is known, so that nothing is passed over. */
async function* followed(source: HistorySource, { agent, volume }: Target, query: LogQuery): AsyncGenerator<LogEntry> {
  let seen = ''
  for (let { from } = query; ; await setTimeout(FOLLOW_MS)) {
    const { head } = await source.window(agent, volume)
    const now = `${head.epoch}:${head.seq}`
    if (head.seq === 0 || now === seen) continue
    seen = now
    const until = { kind: 'seq', ...head } as const
    yield* source.log(agent, volume, { ...query, from, until })
    from = until
  }
}
