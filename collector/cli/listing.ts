/**
 * How entries and records are shown, to people and as JSON with stable field names.
 */
import { millisecondsOf } from '../../shared/clock.ts'
import { digestHex } from '../../shared/digest.ts'
import { nameOf, type RelativePath, showPath } from '../../shared/path.ts'
import type { RecordSummary } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import type { ListedEntry, LogEntry } from '../history-source.ts'
import { showLocalTime } from '../point.ts'
import { pathFields, showBytes } from './output.ts'

const LETTERS = {
  'directory': 'd',
  'file': '-',
  'symlink': 'l',
  'fifo': 'p',
  'socket': 's',
  'character-device': 'c',
  'block-device': 'b',
} as const

/** As ls shows it: `drwxr-xr-x`. */
function showMode(version: Version): string {
  const bits = Array.from('rwxrwxrwx', (letter, i) => ((version.mode >> (8 - i)) & 1 ? letter : '-'))
  const special = (bit: number, at: number, on: string, off: string): void => {
    if (version.mode & bit) bits[at] = bits[at] === 'x' ? on : off
  }
  special(0o4000, 2, 's', 'S')
  special(0o2000, 5, 's', 'S')
  special(0o1000, 8, 't', 'T')
  return `${LETTERS[version.kind]}${bits.join('')}`
}

function mtimeMs(version: Version): number {
  return Number(version.mtimeNs / 1_000_000n)
}

export function entryRow(entry: ListedEntry, shownAs: string): string[] {
  const { version } = entry
  const size = version.kind === 'file' ? showBytes(version.size) : '-'
  const target = version.kind === 'symlink' ? ` -> ${showPath(version.target)}` : ''
  const remark = entry.lost
    ? ' (content lost)'
    : version.kind === 'file' && version.consistency !== 'stable'
      ? ` (${version.consistency})`
      : ''
  return [showMode(version), `${version.uid}:${version.gid}`, size, showLocalTime(mtimeMs(version)), `${shownAs}${target}${remark}`]
}

function versionFields(version: Version): object {
  return {
    kind: version.kind,
    mode: version.mode.toString(8).padStart(4, '0'),
    uid: version.uid,
    gid: version.gid,
    mtime: new Date(mtimeMs(version)).toISOString(),
    mtimeNs: version.mtimeNs.toString(),
    links: version.links,
    ...(version.kind === 'file'
      ? { size: version.size, digest: digestHex(version.digest), chunks: version.chunks.length, consistency: version.consistency }
      : {}),
    ...(version.kind === 'symlink' ? { target: pathFields(version.target).path } : {}),
    ...(version.xattrs.length === 0
      ? {}
      : { xattrs: Object.fromEntries(version.xattrs.map(({ name, value }) => [name, Buffer.from(value, 'latin1').toString('base64')])) }),
  }
}

export function entryFields(entry: ListedEntry): object {
  return {
    ...pathFields(entry.path),
    ...versionFields(entry.version),
    epoch: entry.position.epoch,
    seq: entry.position.seq,
    lost: entry.lost,
  }
}

/** The name below a directory, or the path itself for that directory. */
export function nameBelow(path: RelativePath, directory: RelativePath, recursive: boolean): string {
  if (path === directory) return path === '' ? '.' : showPath(nameOf(path))
  if (!recursive) return showPath(nameOf(path))
  return showPath(directory === '' ? path : path.slice(directory.length + 1))
}

/** What a record did, and to what. */
export function logRow(entry: LogEntry): string[] {
  const { record, version } = entry
  return [
    showLocalTime(millisecondsOf(record.time)),
    `${record.epoch}:${record.seq}`,
    operationOf(record, version),
    version?.kind === 'file' ? showBytes(version.size) : '-',
    remarkOf(entry),
    subjectOf(record),
  ]
}

function operationOf(record: RecordSummary, version: Version | undefined): string {
  return record.kind === 'put' && version !== undefined ? `put ${version.kind}` : record.kind
}

function remarkOf({ lost, version }: LogEntry): string {
  if (lost) return 'content lost'
  return version?.kind === 'file' ? version.consistency : '-'
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

export function logFields({ record, version, lost }: LogEntry): object {
  const iso = (ms: number): string => new Date(ms).toISOString()
  return {
    time: iso(millisecondsOf(record.time)),
    epoch: record.epoch,
    seq: record.seq,
    op: record.kind,
    ...('path' in record ? pathFields(record.path) : {}),
    ...(record.kind === 'rename' ? { to: pathFields(record.to).path } : {}),
    ...(record.kind === 'gap'
      ? { from: iso(millisecondsOf(record.from)), until: iso(millisecondsOf(record.until)), cause: record.cause }
      : {}),
    ...(record.kind === 'coverage'
      ? { from: iso(millisecondsOf(record.from)), until: iso(millisecondsOf(record.until)), mode: record.mode }
      : {}),
    ...(record.kind === 'lost' ? { lostSeq: record.lostSeq } : {}),
    ...(record.kind === 'mark' ? { name: record.name } : {}),
    ...(record.kind === 'epoch' ? { reason: record.reason } : {}),
    ...(version === undefined ? {} : { version: versionFields(version), lost }),
  }
}
