/**
 * `pacsimile find`: where a name was at a moment.
 *
 * Entries are printed as they are found. It prevents a search through 10^7 files from being silent until its end.
 */
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { parseShownPath } from '../../shared/path.ts'
import type { FileKind } from '../../shared/version.ts'
import type { ListedEntry } from '../history-source.ts'
import { nameMatcher } from '../path-pattern.ts'
import { parsePoint } from '../point.ts'
import { absenceOf } from './absence.ts'
import { showCount } from './amounts.ts'
import { entryFields, entryRow, nameBelow } from './entry-row.ts'
import { sayJson } from './json.ts'
import { sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, readerKeepsUp, say } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget } from './target.ts'

const TYPES = ['file', 'directory', 'symlink', 'other'] as const

export function findCommand(yargs: Argv): Argv {
  return yargs.command(
    'find <target> <pattern>',
    'Where names that match a pattern were at a moment',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .positional('pattern', {
            type: 'string',
            demandOption: true,
            describe: '* and ? within a name; with a / it is matched with the whole path below the volume, where ** goes over names',
          })
          .option('at', { ...MOMENT, describe: AT_HELP, default: 'now' })
          .option('type', { choices: TYPES, describe: 'Only these', requiresArg: true })
          .option('ignore-case', { alias: 'i', type: 'boolean', describe: 'a is A, of ASCII letters', default: false }),
        'find pacs1:images "*.dcm" --at "2026-11-24 02:59:59"',
        "find pacs1:images/2026 '**/study-0815/*' --at 1h\\ ago --json",
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, pattern, at, type, ignoreCase }) => {
      if (pattern === '') throw new PacsimileError('usage', 'The pattern is empty; "*" matches every name')
      const place = parseTarget(target)
      const moment = parsePoint(at)
      const matches = nameMatcher(parseShownPath(pattern), ignoreCase)
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const point = await source.point(place.agent, place.volume, moment)
      if (!json) sayPoint(target, point)
      const count = { looked: 0, found: 0 }
      for await (const entry of source.tree(place.agent, place.volume, place.path, point.position)) {
        count.looked += 1
        if (entry.path === '' || !matches(entry.path) || !isOfType(entry, type)) continue
        count.found += 1
        if (json) sayJson(entryFields(entry))
        else say(entryLine(entry))
        await readerKeepsUp()
      }
      if (count.looked === 0 && place.path !== '') throw await absenceOf(source, place, point.position)
      if (!json) note(`${showCount(count.found, 'match', 'matches')} among ${showCount(count.looked, 'path')}`)
    },
  )
}

function isOfType({ version }: ListedEntry, type: (typeof TYPES)[number] | undefined): boolean {
  if (type === undefined) return true
  const known: readonly FileKind[] = ['file', 'directory', 'symlink']
  return type === 'other' ? !known.includes(version.kind) : version.kind === type
}

/** Fixed columns, because the widest entry is not known before the last. */
function entryLine(entry: ListedEntry): string {
  const [mode = '', owner = '', size = '', modified = '', name = ''] = entryRow(entry, nameBelow(entry.path, '' as typeof entry.path, true))
  return `${mode}  ${owner.padEnd(11)}  ${size.padStart(8)}  ${modified}  ${name}`
}
