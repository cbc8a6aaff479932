/** A directory as it is on disk, in a form that compares: path -> everything that a restore must bring back. */

import { createHash } from 'node:crypto'
import { type BigIntStats, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { libc } from '../../shared/libc.ts'

export interface WalkedEntry {
  readonly kind: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeNs: bigint
  readonly size: number
  /** Of a device. */
  readonly device: bigint
  readonly content: string
  readonly xattrs: string
  /** The first path, in walk order, that names the same file. */
  readonly sameAs: string
}

function kindOf(stat: BigIntStats): string {
  if (stat.isDirectory()) return 'directory'
  if (stat.isFile()) return 'file'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isFIFO()) return 'fifo'
  if (stat.isSocket()) return 'socket'
  return stat.isCharacterDevice() ? 'character-device' : 'block-device'
}

/** Keys are byte strings, the root is ''. What is skipped is so with all that is below it. */
export function walkTree(root: string, isSkipped: (path: string) => boolean = () => false): Map<string, WalkedEntry> {
  const entries = new Map<string, WalkedEntry>()
  const firstOf = new Map<bigint, string>()
  const visit = (path: string): void => {
    const at = Buffer.from(path === '' ? root : `${Buffer.from(root).toString('latin1')}/${path}`, path === '' ? 'utf8' : 'latin1')
    const stat = lstatSync(at, { bigint: true })
    const kind = kindOf(stat)
    const sameAs = kind === 'directory' ? path : (firstOf.get(stat.ino) ?? path)
    if (kind !== 'directory') firstOf.set(stat.ino, sameAs)
    entries.set(path, {
      kind,
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtimeNs: stat.mtimeNs,
      size: kind === 'file' ? Number(stat.size) : 0,
      device: kind === 'character-device' || kind === 'block-device' ? stat.rdev : 0n,
      content:
        kind === 'file'
          ? createHash('sha256').update(readFileSync(at)).digest('hex')
          : kind === 'symlink'
            ? readlinkSync(at, { encoding: 'buffer' }).toString('latin1')
            : '',
      xattrs: JSON.stringify(libc?.xattrs(at.toString('latin1')) ?? []),
      sameAs,
    })
    if (kind !== 'directory') return
    const names = readdirSync(at, { encoding: 'buffer' }).map((name) => name.toString('latin1'))
    const below = names.sort().map((name) => (path === '' ? name : `${path}/${name}`))
    for (const child of below) if (!isSkipped(child)) visit(child)
  }
  visit('')
  return entries
}

/** All but what restores in place keep for themselves. */
export function archiveTree(root: string): Map<string, WalkedEntry> {
  return walkTree(root, (path) => /(^|\/)\.pacsimile-restore-[0-9a-f]{12}$/.test(path))
}
