/**
 * Makes a place a copy of this repository.
 *
 * Order: the writer's name, then the key slots, and what makes it a repository at last. Invariant: nothing is begun in a place that
 * holds something else. It prevents a mistyped path from mixing two repositories, or a repository and somebody's files.
 */
import { PacsimileError } from '../shared/errors.ts'
import { beginPlace, instanceOf, type NamedDefinition } from './copy-definition.ts'
import { COPIED_KINDS, prefixOf } from './repository/copy.ts'
import { Lease } from './repository/copy-lease.ts'
import { SmallFiles } from './small-files.ts'

/** Looking into a place and writing a few small files there. */
const BEGIN_MS_MAX = 120_000

/** @throws already-exists where it is another repository's, fenced where another collector writes it, target-not-empty, io */
export async function beginCopy(
  dataDir: string,
  repository: { readonly id: string; readonly directory: string },
  { definition }: NamedDefinition,
): Promise<void> {
  await using copy = await beginPlace(definition, AbortSignal.timeout(BEGIN_MS_MAX))
  await copy.prove?.()
  const small = new SmallFiles(repository.directory)
  if (!(await small.isCopy(copy))) {
    for (const kind of COPIED_KINDS)
      for await (const { name } of copy.list(prefixOf(kind)))
        throw new PacsimileError('target-not-empty', `${copy.url} holds ${name}, but no repository.json: it is no copy that was begun here`)
  }
  await Lease.take(copy, { repository: repository.id, instance: instanceOf(dataDir) })
  await small.bring(copy)
}
