/**
 * `pacsimile mark` and `marks`: names for moments.
 *
 * Invariant: when `mark` ends well, the mark is durable at the collector, behind every change made before the call. It prevents an
 * upgrade that begins with a mark which exists on the host alone that is about to be changed.
 */
import type { Argv } from 'yargs'
import { millisecondsOf } from '../../shared/clock.ts'
import { label } from '../../shared/path.ts'
import type { Mark } from '../marks.ts'
import { showLocalTime, showMoment } from '../point.ts'
import { askCollector, expectVolume } from './admin-call.ts'
import { showAge } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { isoTime, sayJson } from './json.ts'
import { dataOption, historyOptions, jsonOption, withExamples } from './options.ts'
import { note, paint, say } from './output.ts'
import { openSource } from './source.ts'
import { type Column, sayTable } from './table.ts'
import { parseVolume } from './target.ts'

const COLUMNS: readonly Column[] = [{ title: 'TIME' }, { title: 'AGE' }, { title: 'SEQ' }, { title: 'MARK' }]
const VOLUME = { type: 'string', demandOption: true, describe: 'AGENT:VOLUME' } as const

export function markCommand(yargs: Argv): Argv {
  return yargs.command(
    'mark <target> <name>',
    'Give this moment of a volume a name, behind every change made before the call',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .positional('name', { type: 'string', demandOption: true, describe: 'A name of your choice; the newest of a name counts' })
          .option('timeout', { type: 'string', describe: 'How long to wait', default: '60s', requiresArg: true }),
        'mark pacs1:images before-upgrade    # later: pacsimile restore pacs1:images --at mark:before-upgrade …',
      ),
    async ({ data, json, target, name, timeout }) => {
      const { agent, volume } = parseVolume(target, 'A mark')
      const asked = { agent, volume, name: label(name, 'The name'), timeoutMs: parseDuration(timeout, '--timeout') }
      await expectVolume(data, agent, volume)
      const { epoch, seq, time } = (await askCollector(data, 'mark', asked)) as { epoch: number; seq: number; time: string }
      const mark: Mark = { name, time: BigInt(time) as Mark['time'], position: { epoch, seq } }
      if (json) sayJson(markFields(mark))
      else say(`Marked ${target} as ${paint('bold', name)}: ${showMoment(millisecondsOf(mark.time))}, seq ${epoch}:${seq}`)
    },
  )
}

export function marksCommand(yargs: Argv): Argv {
  return yargs.command(
    'marks <target>',
    'The moments of a volume that were given a name, oldest first',
    (options) => withExamples(jsonOption(historyOptions(options)).positional('target', VOLUME), 'marks pacs1:images'),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target }) => {
      const { agent, volume } = parseVolume(target, 'A mark')
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const marks = await source.marks(agent, volume)
      if (json) for (const mark of marks) sayJson(markFields(mark))
      else if (marks.length === 0) note('No moment was given a name yet: pacsimile mark AGENT:VOLUME NAME')
      else sayTable(COLUMNS, marks.map(markRow))
    },
  )
}

function markRow({ name, time, position }: Mark): string[] {
  const ms = millisecondsOf(time)
  return [showLocalTime(ms), showAge(ms), `${position.epoch}:${position.seq}`, name]
}

export function markFields({ name, time, position }: Mark): object {
  return { name, time: isoTime(millisecondsOf(time)), epoch: position.epoch, seq: position.seq }
}
