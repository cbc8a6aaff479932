/** `pacsimile log`, `ls`, `cat`: looking at history without restoring it. */
import { once } from 'node:events'
import type { Argv } from 'yargs'
import { digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { parentOf, showPath } from '../../shared/path.ts'
import type { HistorySource, ListedEntry } from '../history-source.ts'
import { type PointRequest, parsePoint } from '../point.ts'
import { entryFields, entryRow, logFields, logRow, nameBelow } from './listing.ts'
import { describePoint, pointWarnings } from './moment.ts'
import { AT_HELP, jsonOption, sourceOptions } from './options.ts'
import { note, paint, say, sayJson, sayTable, warn } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, type Target } from './target.ts'

const TARGET = { type: 'string', demandOption: true, describe: 'AGENT:VOLUME[/PATH]' } as const
const MOMENT = { type: 'string', requiresArg: true } as const

export function logCommand(yargs: Argv): Argv {
  return yargs.command(
    'log <target>',
    'Every record of a volume, or of a path and what is below it, oldest first',
    (options) =>
      jsonOption(sourceOptions(options))
        .positional('target', TARGET)
        .option('at', { ...MOMENT, describe: `Only up to then. ${AT_HELP}` })
        .option('from', { ...MOMENT, describe: 'Only after then' })
        .option('to', { ...MOMENT, describe: 'Only up to then' }),
    async ({ data, repository, keyFile, json, target, at, from, to }) => {
      if (at !== undefined && to !== undefined) throw new PacsimileError('usage', '--at and --to say the same; give one')
      const { agent, volume, path } = parseTarget(target)
      const until = at ?? to
      const query = {
        path,
        from: from === undefined ? undefined : parsePoint(from),
        until: until === undefined ? undefined : parsePoint(until),
      }
      await using source = await openSource({ data, repository, keyFile })
      if (!json) say(paint('bold', LOG_TITLES.join('  ')))
      let found = 0
      for await (const entry of source.log(agent, volume, query)) {
        found += 1
        if (json) sayJson(logFields(entry))
        else
          say(
            logRow(entry)
              .map((cell, i) => cell.padEnd(LOG_WIDTHS[i] ?? 0))
              .join('  '),
          )
        if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain')
      }
      if (found === 0) throw new PacsimileError('not-found', `No record of ${target} in that time`)
    },
  )
}

/** Fixed, because a log is too long to be measured before its first line is shown. */
const LOG_WIDTHS = [30, 10, 14, 8, 16]
const LOG_TITLES = ['TIME', 'SEQ', 'WHAT', 'SIZE', 'CONSISTENCY', 'PATH'].map((title, i) => title.padEnd(LOG_WIDTHS[i] ?? 0))

export function lsCommand(yargs: Argv): Argv {
  return yargs.command(
    'ls <target>',
    'What a directory held at a moment',
    (options) =>
      jsonOption(sourceOptions(options))
        .positional('target', TARGET)
        .option('at', { ...MOMENT, describe: AT_HELP, default: 'now' })
        .option('recursive', { alias: 'R', type: 'boolean', describe: 'And everything below it', default: false }),
    async ({ data, repository, keyFile, json, target, at, recursive }) => {
      const place = parseTarget(target)
      const moment = parsePoint(at)
      await using source = await openSource({ data, repository, keyFile })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) {
        note(`${place.agent}:${place.volume} at ${describePoint(point)}`)
        for (const warning of pointWarnings(point)) warn(warning)
      }
      const rows: string[][] = []
      let found = 0
      for await (const entry of source.tree(place.agent, place.volume, place.path, point.position)) {
        found += 1
        if (!isShown(entry, place, recursive)) continue
        if (json) sayJson(entryFields(entry))
        else rows.push(entryRow(entry, nameBelow(entry.path, place.path, recursive)))
      }
      if (found === 0 && place.path !== '') throw new PacsimileError('not-found', `${target} did not exist at that moment`)
      if (!json)
        sayTable([{ title: 'MODE' }, { title: 'OWNER' }, { title: 'SIZE', align: 'right' }, { title: 'MODIFIED' }, { title: 'NAME' }], rows)
    },
  )
}

/** A directory's children, a file itself; all that is below with --recursive. */
function isShown(entry: ListedEntry, place: Target, recursive: boolean): boolean {
  if (entry.path === place.path) return entry.version.kind !== 'directory'
  return recursive || parentOf(entry.path) === place.path
}

export function catCommand(yargs: Argv): Argv {
  return yargs.command(
    'cat <target>',
    'The content of a file at a moment, verified, to standard output',
    (options) =>
      jsonOption(sourceOptions(options))
        .positional('target', TARGET)
        .option('at', { ...MOMENT, describe: AT_HELP, default: 'now' }),
    async ({ data, repository, keyFile, json, target, at }) => {
      const place = parseTarget(target)
      const moment = parsePoint(at)
      await using source = await openSource({ data, repository, keyFile })
      const entry = await fileAt(source, place, moment, target)
      if (json) sayJson({ ...entryFields(entry), content: Buffer.concat(await contentOf(source, entry)).toString('base64') })
      else for await (const bytes of verified(source, entry)) if (!process.stdout.write(bytes)) await once(process.stdout, 'drain')
    },
  )
}

async function fileAt(source: HistorySource, place: Target, at: PointRequest, target: string): Promise<ListedEntry> {
  const point = await source.point(place.agent, place.volume, at)
  for await (const entry of source.tree(place.agent, place.volume, place.path, point.position)) {
    if (entry.version.kind !== 'file') throw new PacsimileError('usage', `${target} was a ${entry.version.kind} then, not a file`)
    if (entry.lost) throw new PacsimileError('incomplete', `The agent could not keep that version of ${target} until it was acknowledged`)
    return entry
  }
  throw new PacsimileError('not-found', `${target} did not exist at that moment`)
}

async function* verified(source: HistorySource, entry: ListedEntry): AsyncGenerator<Buffer> {
  if (entry.version.kind !== 'file') return
  let next = 0
  for await (const result of source.chunks(entry.version.chunks)) {
    const ref = entry.version.chunks[next]
    next += 1
    if ('failure' in result || ref === undefined || digestOf(result.bytes) !== ref.digest) {
      throw new PacsimileError(
        'damage',
        `${showPath(entry.path)}: ${'failure' in result ? result.failure : 'content that is not what its digest names'}`,
      )
    }
    yield result.bytes
  }
}

async function contentOf(source: HistorySource, entry: ListedEntry): Promise<Buffer[]> {
  return Array.fromAsync(verified(source, entry))
}
