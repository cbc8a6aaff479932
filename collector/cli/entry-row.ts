/**
 * An entry of a tree, as `ls` shows it to people and as JSON with stable field names.
 *
 * Invariant: what is not certain about a version stands beside its name. It prevents a torn file from being taken for a
 * whole one because a listing was pretty.
 */
import { digestHex } from '../../shared/digest.ts'
import { nameOf, type RelativePath, showPath } from '../../shared/path.ts'
import type { Version } from '../../shared/version.ts'
import { holesOf, isInferred, writerOf } from '../../shared/version-extensions.ts'
import type { ListedEntry } from '../history-source.ts'
import { showLocalTime } from '../point.ts'
import { showBytes } from './amounts.ts'
import { bytesFields, isoTime } from './json.ts'
import type { Column } from './table.ts'

const LETTERS = {
  'directory': 'd',
  'file': '-',
  'symlink': 'l',
  'fifo': 'p',
  'socket': 's',
  'character-device': 'c',
  'block-device': 'b',
} as const

const PERMISSIONS = ['---', '--x', '-w-', '-wx', 'r--', 'r-x', 'rw-', 'rwx'] as const

export const ENTRY_COLUMNS: readonly Column[] = [
  { title: 'MODE' },
  { title: 'OWNER' },
  { title: 'SIZE', align: 'right' },
  { title: 'MODIFIED' },
  { title: 'NAME' },
]

export function entryRow(entry: ListedEntry, shownAs: string): string[] {
  const { version } = entry
  const size = version.kind === 'file' ? showBytes(version.size) : '-'
  const target = version.kind === 'symlink' ? ` -> ${showPath(version.target)}` : ''
  return [showMode(version), `${version.uid}:${version.gid}`, size, showLocalTime(mtimeMs(version)), `${shownAs}${target}${doubtOf(entry)}`]
}

function doubtOf({ version, absent }: ListedEntry): string {
  if (absent !== undefined) return absent === 'lost' ? ' (content lost)' : ' (expired)'
  return version.kind === 'file' && version.consistency !== 'stable' ? ` (${version.consistency})` : ''
}

/** As ls shows it: `drwxr-xr-x`. */
function showMode({ kind, mode }: Version): string {
  const bits = (shift: number, special: number, on: string, off: string): string => {
    const three = PERMISSIONS[(mode >> shift) & 7] ?? ''
    return mode & special ? `${three.slice(0, 2)}${three.endsWith('x') ? on : off}` : three
  }
  return `${LETTERS[kind]}${bits(6, 0o4000, 's', 'S')}${bits(3, 0o2000, 's', 'S')}${bits(0, 0o1000, 't', 'T')}`
}

function mtimeMs(version: Version): number {
  return Number(version.mtimeNs / 1_000_000n)
}

/** The name below a directory, or the path itself for that directory. */
export function nameBelow(path: RelativePath, directory: RelativePath, recursive: boolean): string {
  if (path === directory) return path === '' ? '.' : showPath(nameOf(path))
  if (!recursive) return showPath(nameOf(path))
  return showPath(directory === '' ? path : path.slice(directory.length + 1))
}

export function entryFields(entry: ListedEntry): object {
  return {
    ...bytesFields('path', entry.path),
    ...versionFields(entry.version),
    epoch: entry.position.epoch,
    seq: entry.position.seq,
    lost: entry.absent === 'lost',
    expired: entry.absent === 'expired',
  }
}

export function versionFields(version: Version): object {
  return {
    kind: version.kind,
    mode: version.mode.toString(8).padStart(4, '0'),
    uid: version.uid,
    gid: version.gid,
    mtime: isoTime(mtimeMs(version)),
    mtimeNs: version.mtimeNs.toString(),
    links: version.links,
    ...kindFields(version),
    ...(version.xattrs.length === 0
      ? {}
      : {
          xattrs: version.xattrs.map(({ name, value }) => ({
            ...bytesFields('name', name),
            value: Buffer.from(value, 'latin1').toString('base64'),
          })),
        }),
    ...originFields(version),
  }
}

function originFields(version: Version): object {
  const holes = holesOf(version).reduce((sum, { length }) => sum + length, 0)
  const writer = writerOf(version)
  return {
    ...(holes === 0 ? {} : { holes }),
    ...(writer === undefined ? {} : { writer: { pid: writer.pid, uid: writer.uid, ...bytesFields('executable', writer.executable) } }),
    inferred: isInferred(version),
  }
}

function kindFields(version: Version): object {
  switch (version.kind) {
    case 'file':
      return { size: version.size, digest: digestHex(version.digest), chunks: version.chunks.length, consistency: version.consistency }
    case 'symlink':
      return bytesFields('target', version.target)
    case 'character-device':
    case 'block-device':
      return { device: version.device.toString() }
    case 'directory':
    case 'fifo':
    case 'socket':
      return {}
  }
}
