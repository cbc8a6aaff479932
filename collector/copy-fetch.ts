/**
 * Brings the files of a copy into a repository's directory.
 *
 * Invariant: a file has its name only when all of it was written, durably, and read back; one that is damaged in the copy is
 * repaired from its parity, and what is left of the damage is told. It prevents a fetch that was cut short, or that believed what it
 * was given, from passing for the archive.
 */
import { chmodSync, closeSync, constants, fsyncSync, openSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { asPacsimileError } from '../shared/errors.ts'
import { makeDirectory, syncDirectory, TEMPORARY_PREFIX, writeFully } from '../shared/files.ts'
import type { Damage } from './catalog.ts'
import { COPIED_KINDS, type CopiedFile, type Copy, copiedSource, fileOf, piecesOf, prefixOf } from './repository/copy.ts'
import { DEFAULT_PARITY } from './repository/parity.ts'
import type { ScrubbedFile } from './scrub-file.ts'
import { ScrubThread } from './scrub-thread.ts'

export interface FetchProgress {
  readonly bytes: number
  readonly totalBytes: number
}

export interface Fetched {
  readonly files: number
  readonly bytes: number
  readonly damage: readonly Damage[]
}

/** All of them; those that are there already are left as they are. @throws io, space */
export async function fetchFiles(
  copy: Copy,
  repository: { readonly id: string; readonly directory: string },
  dataKey: Buffer,
  onProgress: (progress: FetchProgress) => void = () => {},
): Promise<Fetched> {
  await using thread = new ScrubThread(dataKey, { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY })
  const files: CopiedFile[] = []
  for (const kind of COPIED_KINDS) for await (const file of copy.list(prefixOf(kind))) if (fileOf(file.name) !== undefined) files.push(file)
  const totalBytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const damage: Damage[] = []
  let bytes = 0
  for (const file of files) {
    const path = join(repository.directory, file.name)
    if (statSync(path, { throwIfNoEntry: false }) === undefined) {
      const { left } = await fetchFile(copy, file, repository.id, path, thread)
      damage.push(...left)
    }
    bytes += file.bytes
    onProgress({ bytes, totalBytes })
  }
  return { files: files.length, bytes, damage }
}

/** One file, to the path that it is to have. @throws io, space, not-found */
async function fetchFile(
  copy: Copy,
  { name, bytes }: Pick<CopiedFile, 'name' | 'bytes'>,
  repository: string,
  path: string,
  thread: ScrubThread,
): Promise<ScrubbedFile> {
  const file = fileOf(name)
  if (file === undefined) throw new TypeError(`${name} is no file of frames`)
  const prefix = `${TEMPORARY_PREFIX}${basename(path)}-fetched`
  const temporary = join(dirname(path), prefix)
  try {
    makeDirectory(dirname(path))
    // What an earlier fetch left when it died.
    for (const left of readdirSync(dirname(path))) if (left.startsWith(prefix)) rmSync(join(dirname(path), left))
    await fetchTo(copy, { name, bytes }, temporary)
    const scrubbed = await thread.scrub(temporary, { ...file, repository })
    if (scrubbed.protection !== 'open') chmodSync(temporary, 0o400)
    renameSync(temporary, path)
    syncDirectory(dirname(path))
    const left = scrubbed.left.map((damage) => ({ ...damage, file: path }))
    return { ...scrubbed, path, left }
  } catch (error) {
    throw asPacsimileError(error, `Fetching ${name} from ${copy.url}`)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** As it is, durably, into a new file. */
export async function fetchTo(copy: Copy, { name, bytes }: Pick<CopiedFile, 'name' | 'bytes'>, path: string): Promise<void> {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    for await (const piece of piecesOf(copiedSource(copy, name, bytes))) writeFully(fd, piece)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
