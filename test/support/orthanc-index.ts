/**
 * What Orthanc's index says of the files beside it, read as Orthanc itself would find it: with its log replayed.
 *
 * It is looked at in a copy, for opening a database changes it. It prevents an index that is whole, beside a storage that is
 * whole, from being called right where the two are of different moments.
 */
import { hash } from 'node:crypto'
import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { scratchDirectory } from './scratch.ts'

interface NamedFile {
  /** Below the storage. */
  readonly path: string
  readonly size: number
  readonly md5: string
}

/** What is wrong with an index, in words, and the files that it names. */
export function readIndex(directory: string): { readonly faults: string[]; readonly files: NamedFile[] } {
  const copy = scratchDirectory()
  for (const name of ['index', 'index-wal']) if (existsSync(join(directory, name))) copyFileSync(join(directory, name), join(copy, name))
  const index = new DatabaseSync(join(copy, 'index'))
  try {
    const verdict = String(index.prepare('PRAGMA integrity_check').get()?.['integrity_check'])
    const hasFiles = index.prepare("SELECT 1 FROM sqlite_master WHERE name = 'AttachedFiles'").get() !== undefined
    const rows = hasFiles ? index.prepare('SELECT uuid, compressedSize AS size, compressedMD5 AS md5 FROM AttachedFiles').all() : []
    const files = rows.map(({ uuid, size, md5 }) => ({ path: pathOf(String(uuid)), size: Number(size), md5: String(md5) }))
    return { faults: verdict === 'ok' ? [] : [`integrity_check: ${verdict}`], files }
  } finally {
    index.close()
  }
}

/** What is wrong, in words, with an index and each of the files that it names. */
export function storageFaults(directory: string): string[] {
  const { faults, files } = readIndex(directory)
  return [...faults, ...files.flatMap((file) => fileFaults(directory, file))]
}

/** Where Orthanc keeps a file. */
function pathOf(uuid: string): string {
  return join(uuid.slice(0, 2), uuid.slice(2, 4), uuid)
}

function fileFaults(directory: string, { path, size, md5 }: NamedFile): string[] {
  try {
    const bytes = readFileSync(join(directory, path))
    return bytes.length === size && hash('md5', bytes) === md5 ? [] : [`${path} is another file`]
  } catch (error) {
    return [error instanceof Error && 'code' in error && error.code === 'ENOENT' ? `${path} is not there` : String(error)]
  }
}
