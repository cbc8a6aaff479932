/**
 * `pacsimile hold`: what is kept whatever the retention says.
 *
 * Invariant: a hold is in the ledger when the command ends well. It prevents a lawyer's request from being lost with a configuration file.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { label, parseShownPath, showPath } from '../../shared/path.ts'
import { parsePoint, showLocalTime } from '../point.ts'
import type { Hold } from '../repository/ledger-entry.ts'
import { bytesFields, isoTime, sayJson } from './json.ts'
import { dataOption, jsonOption, MOMENT, withExamples } from './options.ts'
import { say } from './output.ts'
import { usePruning } from './pruning-source.ts'
import { sayTable } from './table.ts'

const COLUMNS = [{ title: 'HOLD' }, { title: 'VOLUME' }, { title: 'FROM' }, { title: 'TO' }, { title: 'PATHS' }]

export function holdCommand(yargs: Argv): Argv {
  return yargs.command('hold', 'What is kept whatever the retention says', (group) =>
    removeCommand(listCommand(addCommand(group))).demandCommand(1, 'Name what to do: add, list or remove'),
  )
}

function keyOption<T>(yargs: Argv<T>): Argv<T & { 'key-file': string | undefined }> {
  return yargs.option('key-file', { type: 'string', describe: 'Key file of the repository, where no collector runs', requiresArg: true })
}

function addCommand(yargs: Argv): Argv {
  return yargs.command(
    'add <name> <target>',
    'Keep what has not expired of a volume, or of paths in it, until the hold is removed',
    (options) =>
      withExamples(
        keyOption(jsonOption(dataOption(options)))
          .positional('name', { type: 'string', demandOption: true, describe: 'A name of your choice' })
          .positional('target', {
            type: 'string',
            demandOption: true,
            describe: 'AGENT:VOLUME[/PATTERN]; * and ? within a name, ** over names, with all that is below',
          })
          .option('from', { ...MOMENT, describe: 'Only what was there then or later' })
          .option('to', { ...MOMENT, describe: 'Only what was there then or earlier' }),
        "hold add trial-4711 'pacs1:images/2026/11/study-0815'",
        "hold add audit 'pacs1:images/**/*.dcm' --from 2026-01-01 --to 2026-07-01",
      ),
    async ({ data, keyFile, json, name, target, from, to }) => {
      const hold: Hold = { name: label(name, 'The name'), ...parseHeld(target), fromMs: momentMs(from), untilMs: momentMs(to) }
      await usePruning({ data: resolve(data), keyFile }, (pruning) => pruning.hold(hold))
      if (json) sayJson(holdFields(hold))
      else say(`Held as ${hold.name}: what has not expired by now stays until the hold is removed.`)
    },
  )
}

/** @throws usage */
function parseHeld(text: string): Pick<Hold, 'agent' | 'volume' | 'pattern'> {
  const [, agent, volume, pattern = ''] = /^([^:/]+):([^/]+)(?:\/(.*))?$/s.exec(text) ?? []
  if (agent === undefined || volume === undefined)
    throw new PacsimileError('usage', `${JSON.stringify(text)} is not AGENT:VOLUME or AGENT:VOLUME/PATTERN`)
  return {
    agent: label(agent, 'The agent name'),
    volume: label(volume, 'The volume name'),
    pattern: parseShownPath(pattern.replace(/\/+$/, '')),
  }
}

/** @throws usage */
function momentMs(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const point = parsePoint(text)
  if (point.kind === 'head') return Date.now()
  if (point.kind === 'time') return Math.floor(point.ms)
  throw new PacsimileError('usage', `The span of a hold is given by times, not by a ${point.kind}`)
}

function listCommand(yargs: Argv): Argv {
  return yargs.command(
    'list',
    'Show the holds',
    (options) => withExamples(keyOption(jsonOption(dataOption(options))), 'hold list'),
    async ({ data, keyFile, json }) => {
      const holds = await usePruning({ data: resolve(data), keyFile }, (pruning) => pruning.holds())
      if (json) sayJson({ holds: holds.map(holdFields) })
      else if (holds.length === 0) say('Nothing is held.')
      else sayTable(COLUMNS, holds.map(holdRow))
    },
  )
}

function holdRow({ name, agent, volume, pattern, fromMs, untilMs }: Hold): string[] {
  const time = (ms: number | undefined): string => (ms === undefined ? '-' : showLocalTime(ms))
  return [name, `${agent}:${volume}`, time(fromMs), time(untilMs), pattern === '' ? 'all' : showPath(pattern)]
}

export function holdFields({ name, agent, volume, pattern, fromMs, untilMs }: Hold): object {
  const time = (ms: number | undefined): string | null => (ms === undefined ? null : isoTime(ms))
  return { name, agent, volume, ...bytesFields('pattern', pattern), from: time(fromMs), to: time(untilMs) }
}

function removeCommand(yargs: Argv): Argv {
  return yargs.command(
    'remove <name>',
    'Let the retention decide again about what was held',
    (options) =>
      withExamples(
        keyOption(jsonOption(dataOption(options))).positional('name', { type: 'string', demandOption: true, describe: 'Of the hold' }),
        'hold remove trial-4711',
      ),
    async ({ data, keyFile, json, name }) => {
      const hold = label(name, 'The name')
      await usePruning({ data: resolve(data), keyFile }, (pruning) => pruning.release(hold))
      if (json) sayJson({ name: hold })
      else say(`The hold ${hold} is removed.`)
    },
  )
}
