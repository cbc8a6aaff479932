/**
 * `pacsimile ls`: what a directory held at a moment.
 *
 * The moment as it was understood goes to stderr first. It prevents a list of another hour from being taken for the one
 * that was meant.
 */
import type { Argv } from 'yargs'
import { parentOf } from '../../shared/path.ts'
import type { ListedEntry } from '../history-source.ts'
import { parsePoint } from '../point.ts'
import { absenceOf } from './absence.ts'
import { ENTRY_COLUMNS, entryFields, entryRow, nameBelow } from './entry-row.ts'
import { sayJson } from './json.ts'
import { sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, readerKeepsUp } from './output.ts'
import { openSource } from './source.ts'
import { sayTable } from './table.ts'
import { parseTarget, type Target } from './target.ts'

export function lsCommand(yargs: Argv): Argv {
  return yargs.command(
    'ls <target>',
    'What a directory held at a moment',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .option('at', { ...MOMENT, describe: AT_HELP, default: 'now' })
          .option('recursive', { alias: 'R', type: 'boolean', describe: 'And everything below it', default: false }),
        'ls pacs1:images/2026 --at "2026-11-24 02:59:59"',
        'ls pacs1:images -R --at "10m ago" --json',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, at, recursive }) => {
      const place = parseTarget(target)
      const moment = parsePoint(at)
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) sayPoint(target, point)
      const rows: string[][] = []
      let found = 0
      const depth = recursive ? 'all' : 'directory'
      for await (const entry of source.tree(place.agent, place.volume, place.path, point.position, depth)) {
        found += 1
        if (!isShown(entry, place, recursive)) continue
        if (json) sayJson(entryFields(entry))
        else rows.push(entryRow(entry, nameBelow(entry.path, place.path, recursive)))
        await readerKeepsUp()
      }
      // A volume that holds nothing is a state like any other.
      if (found === 0 && place.path !== '') throw await absenceOf(source, place, point.position)
      if (json) return
      if (rows.length === 0) note('(empty)')
      else sayTable(ENTRY_COLUMNS, rows)
    },
  )
}

/** A directory's children, a file itself; all that is below with --recursive. */
function isShown(entry: ListedEntry, place: Target, recursive: boolean): boolean {
  if (entry.path === place.path) return entry.version.kind !== 'directory'
  return recursive || parentOf(entry.path) === place.path
}
