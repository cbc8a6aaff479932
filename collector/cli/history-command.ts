/**
 * `pacsimile history`: everything that became of one path.
 *
 * Asked by path, so that it costs as much as the path has versions, and not as much as the volume has records. It prevents the
 * question "who changed this image?" from taking an hour.
 */
import type { Argv } from 'yargs'
import { millisecondsOf } from '../../shared/clock.ts'
import { digestHex } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import type { LogEntry } from '../history-source.ts'
import { showLocalTime } from '../point.ts'
import { showAge, showBytes } from './amounts.ts'
import { sayJson } from './json.ts'
import { logFields, originOf, stateOf } from './log-row.ts'
import { historyOptions, jsonOption, withExamples } from './options.ts'
import { openSource } from './source.ts'
import { type Column, sayTable } from './table.ts'
import { parseTarget, showTarget } from './target.ts'

/** Hex digits of a digest that are shown: as many as people compare. */
const DIGEST_SHOWN = 12

const COLUMNS: readonly Column[] = [
  { title: 'TIME' },
  { title: 'AGE' },
  { title: 'SEQ' },
  { title: 'WHAT' },
  { title: 'SIZE', align: 'right' },
  { title: 'DIGEST' },
  { title: 'CONSISTENCY' },
  { title: 'WRITER' },
]

export function historyCommand(yargs: Argv): Argv {
  return yargs.command(
    'history <target>',
    'Every version of one path: when, how large, which content, written by whom',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options)).positional('target', { type: 'string', demandOption: true, describe: 'AGENT:VOLUME/PATH' }),
        'history pacs1:images/2026/11/study-06/0001.dcm',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target }) => {
      const place = parseTarget(target)
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const rows: string[][] = []
      let found = 0
      for await (const entry of source.versions(place.agent, place.volume, place.path)) {
        found += 1
        if (json) sayJson(logFields(entry))
        else rows.push(historyRow(entry))
      }
      if (found === 0) throw new PacsimileError('not-found', `${showTarget(place)} was never there; pacsimile find looks for names`)
      if (!json) sayTable(COLUMNS, rows)
    },
  )
}

function historyRow({ record, version, absent }: LogEntry): string[] {
  const ms = millisecondsOf(record.time)
  const isFile = version?.kind === 'file'
  return [
    showLocalTime(ms),
    showAge(ms),
    `${record.epoch}:${record.seq}`,
    whatOf(record.kind, version?.kind),
    isFile ? showBytes(version.size) : '-',
    isFile ? digestHex(version.digest).slice(0, DIGEST_SHOWN) : '-',
    stateOf(version, absent),
    version === undefined ? '-' : originOf(version).trim().replace(/^by /, '') || '-',
  ]
}

/** A rename gives the path a version or takes it away, and so does what happens to a directory above. */
function whatOf(record: LogEntry['record']['kind'], kind: string | undefined): string {
  if (record === 'put') return kind === undefined ? 'gone (replaced above)' : `put ${kind}`
  if (record === 'rename') return kind === undefined ? 'renamed away' : `renamed here (${kind})`
  return kind === undefined ? `gone (${record})` : `${record} ${kind}`
}
