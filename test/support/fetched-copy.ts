/** A copy in a bucket, brought into a directory file by file, so that everything that reads a repository can read it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { COPIED_KINDS, type Copy, DESCRIPTION_NAME, KEYS_PREFIX, prefixOf } from '../../collector/repository/copy.ts'
import { scratchDirectory } from './scratch.ts'

/** @returns the directory */
export async function fetchCopy(copy: Copy): Promise<string> {
  const directory = join(scratchDirectory(), 'fetched')
  const put = (name: string, bytes: Buffer): void => {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), bytes)
  }
  for (const kind of COPIED_KINDS) mkdirSync(join(directory, prefixOf(kind)), { recursive: true })
  // Segments first, as the commits come: what they name was there before.
  for (const prefix of ['segments/', 'packs/', KEYS_PREFIX])
    for await (const { name, bytes } of copy.list(prefix)) put(name, await copy.read(name, 0, bytes))
  put(DESCRIPTION_NAME, (await copy.find(DESCRIPTION_NAME))?.bytes ?? Buffer.alloc(0))
  return directory
}
