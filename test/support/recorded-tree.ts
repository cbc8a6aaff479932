/** A directory as a journal that puts all of it: the history of a tree that a test has made on disk. */
import { lstatSync, readFileSync, readlinkSync } from 'node:fs'
import { libc } from '../../shared/libc.ts'
import type { Version } from '../../shared/version.ts'
import type { JournalWriter } from './journal-writer.ts'
import { walkTree } from './tree-walk.ts'

/** Names are byte strings; fifos and sockets are left out. */
export function recordTree(writer: JournalWriter, root: string): void {
  for (const path of walkTree(root).keys()) {
    const at = Buffer.from(path === '' ? root : `${root}/${path}`, 'latin1')
    const stat = lstatSync(at, { bigint: true })
    const metadata = {
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtimeNs: stat.mtimeNs,
      ctimeNs: stat.ctimeNs,
      inode: stat.ino,
      links: Number(stat.nlink),
      xattrs: libc?.xattrs(at.toString('latin1')) ?? [],
    }
    const version: Version | undefined = stat.isDirectory()
      ? { kind: 'directory', ...metadata }
      : stat.isSymbolicLink()
        ? { kind: 'symlink', ...metadata, target: readlinkSync(at, { encoding: 'buffer' }).toString('latin1') }
        : stat.isFile()
          ? writer.fileVersion(readFileSync(at), metadata)
          : undefined
    if (version !== undefined) writer.put(path, version)
  }
}
