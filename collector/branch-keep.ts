/**
 * Moves what a branch lists from the replica into the branch.
 *
 * By rename(2), so that whoever has a file open still writes into the one that is kept. Invariant: when this ends well everything that
 * is listed as there is in the branch, durably, also when it was begun before. It prevents a failover whose last file is neither here nor there.
 */
import { closeSync, lstatSync, mkdirSync, openSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, PacsimileError } from '../shared/errors.ts'
import { makeDirectory } from '../shared/files.ts'
import { libc } from '../shared/libc.ts'
import { byteString, pathBuffer } from '../shared/path.ts'
import type { BranchEntry } from './branch.ts'

/** `entries`: parents before what is in them. @throws unsupported, or the system's error */
export function keepEntries(entries: readonly BranchEntry[], replica: string, branchDirectory: string): void {
  const files = join(branchDirectory, 'files')
  makeDirectory(files)
  for (const entry of entries) keepEntry(entry, replica, files)
  for (const place of [branchDirectory, replica]) syncFilesystemOf(place)
}

/** What is in the branch already was moved before. */
function keepEntry({ path, before, after }: BranchEntry, replica: string, files: string): void {
  if (after === null) return
  const [from, to] = [`${byteString(replica)}/${path}`, `${byteString(files)}/${path}`].map(pathBuffer) as [Buffer, Buffer]
  if (after.kind === 'directory') {
    mkdirSync(to, { recursive: true, mode: 0o700 })
    return
  }
  const isSameContent = before?.kind === after.kind && before.digest === after.digest && before.target === after.target
  if (isSameContent || isThere(to)) return
  const above = path.lastIndexOf('/')
  if (above > 0) mkdirSync(pathBuffer(`${byteString(files)}/${path.slice(0, above)}`), { recursive: true, mode: 0o700 })
  try {
    renameSync(from, to)
  } catch (error) {
    if (errnoOf(error) !== 'EXDEV') throw error
    throw new PacsimileError(
      'unsupported',
      `${replica} and ${files} lie on different filesystems: what was written cannot be kept safely`,
      {
        cause: error,
      },
    )
  }
}

function isThere(at: Buffer): boolean {
  return lstatSync(at, { throwIfNoEntry: false }) !== undefined
}

function syncFilesystemOf(directory: string): void {
  const fd = openSync(directory, 'r')
  try {
    libc?.syncFilesystem(fd)
  } finally {
    closeSync(fd)
  }
}
