/**
 * A record, as `log` shows it to people and as JSON with stable field names.
 *
 * Every kind of record is shown; a switch over them keeps it so when a kind is added. It prevents a log that leaves out
 * the gap which explains the rest.
 */
import { millisecondsOf } from '../../shared/clock.ts'
import { type RelativePath, showPath } from '../../shared/path.ts'
import type { RecordSummary } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { isInferred, writerOf } from '../../shared/version-extensions.ts'
import type { LogEntry } from '../history-source.ts'
import { showLocalTime } from '../point.ts'
import { showBytes } from './amounts.ts'
import { versionFields } from './entry-row.ts'
import { bytesFields, isoTime, spanFields } from './json.ts'

/**
 * Fixed, because a log is too long to be measured before its first line is shown; narrow, so that a path begins within
 * the first 80 columns. What is longer moves the rest of its line.
 */
const WIDTHS = [30, 8, 13, 8, 10]
export const LOG_TITLES = ['TIME', 'SEQ', 'WHAT', 'SIZE', 'CONSISTENCY', 'PATH']

/** Cells as a line of the log's fixed columns. */
export function logLine(cells: readonly string[]): string {
  return cells.map((cell, i) => cell.padEnd(WIDTHS[i] ?? 0)).join('  ')
}

/** What a record did, and to what. */
export function logRow({ record, version, absent }: LogEntry): string[] {
  return [
    showLocalTime(millisecondsOf(record.time)),
    `${record.epoch}:${record.seq}`,
    version === undefined ? record.kind : `${record.kind} ${version.kind}`,
    version?.kind === 'file' ? showBytes(version.size) : '-',
    stateOf(version, absent),
    `${subjectOf(record)}${version === undefined ? '' : originOf(version)}`,
  ]
}

export function stateOf(version: Version | undefined, absent: LogEntry['absent']): string {
  if (absent !== undefined) return absent === 'lost' ? 'content lost' : 'expired'
  return version?.kind === 'file' ? version.consistency : '-'
}

/** Behind the path: who wrote the version, and whether the path itself was never seen. */
export function originOf(version: Version): string {
  const writer = writerOf(version)
  const inferred = isInferred(version) ? '  (inferred)' : ''
  if (writer === undefined) return inferred
  const { executable, uid, pid } = writer
  return `  by ${executable === '' ? `uid ${uid}` : `${showPath(executable)} (${uid})`}${pid === 0 ? '' : `, pid ${pid}`}${inferred}`
}

function subjectOf(record: RecordSummary): string {
  const path = (bytes: RelativePath): string => (bytes === '' ? '.' : showPath(bytes))
  switch (record.kind) {
    case 'put':
    case 'remove':
      return path(record.path)
    case 'rename':
      return `${path(record.path)} -> ${path(record.to)}`
    case 'lost':
      return `${path(record.path)} (seq ${record.lostSeq})`
    case 'epoch':
      return `epoch ${record.epoch} begins: ${record.reason}`
    case 'volume':
      return `volume ${record.volume}: ${showPath(record.root)}`
    case 'sweep':
      return 'full scan done: what was not found is gone'
    case 'gap':
      return `${showLocalTime(millisecondsOf(record.from))} to ${showLocalTime(millisecondsOf(record.until))}: ${record.cause}`
    case 'coverage':
      return `${record.mode}, ${showLocalTime(millisecondsOf(record.from))} to ${showLocalTime(millisecondsOf(record.until))}`
    case 'mark':
      return record.name
  }
}

export function logFields({ record, version, absent }: LogEntry): object {
  return {
    time: isoTime(millisecondsOf(record.time)),
    epoch: record.epoch,
    seq: record.seq,
    op: record.kind,
    ...changeFields(record),
    ...(version === undefined ? {} : { version: versionFields(version), lost: absent === 'lost', expired: absent === 'expired' }),
  }
}

function changeFields(record: RecordSummary): object {
  switch (record.kind) {
    case 'put':
    case 'remove':
      return bytesFields('path', record.path)
    case 'rename':
      return { ...bytesFields('path', record.path), ...bytesFields('to', record.to) }
    case 'lost':
      return { ...bytesFields('path', record.path), lostSeq: record.lostSeq }
    case 'epoch':
      return { reason: record.reason, previousEpoch: record.previousEpoch }
    case 'volume':
      return { ...bytesFields('root', record.root), mode: record.mode }
    case 'sweep':
      return { since: record.since }
    case 'gap':
      return { ...spanFields(record), cause: record.cause }
    case 'coverage':
      return { ...spanFields(record), mode: record.mode }
    case 'mark':
      return { name: record.name }
  }
}
