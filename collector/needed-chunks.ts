/**
 * Which chunks are needed and cannot be had: what damage of a pack comes to.
 *
 * Invariant: damage concerns nothing only where every chunk that a version names is known, and every one that is to be read from
 * that pack can be. It prevents damage from being called harmless because the catalog was made after it, and never knew.
 */
import { relative } from 'node:path'
import type { Digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { absenceOfContent } from './absent-content.ts'
import type { Catalog, Damage } from './catalog.ts'
import { fileOf } from './repository/copy.ts'
import type { Repository } from './repository/repository.ts'

/**
 * The chunks that versions name and the catalog does not know: their frames were damaged when it was made. Of which file they
 * were is not known. What an agent declared lost, or has expired, is not among them.
 */
export async function unknownChunks(catalog: Catalog): Promise<Set<Digest>> {
  const unknown = new Set<Digest>()
  for (const agent of await catalog.agents()) {
    for (const volume of await catalog.volumes(agent)) {
      for await (const { path, position, version } of catalog.allVersions(agent, volume.name)) {
        if (version?.kind !== 'file') continue
        const missing = version.chunks.filter(({ digest }) => !unknown.has(digest) && catalog.chunk(digest) === undefined)
        if (missing.length === 0 || (await absenceOfContent(catalog, agent, volume.name, { path, position })) !== undefined) continue
        for (const { digest } of missing) unknown.add(digest)
      }
    }
  }
  return unknown
}

/** The chunks that are to be read from a pack, and cannot be. @throws io */
export async function brokenChunks(catalog: Catalog, repository: Repository, pack: number): Promise<Set<Digest>> {
  const broken = new Set<Digest>()
  for await (const { name, place } of catalog.chunksIn(pack)) {
    try {
      repository.readChunk(place, name)
    } catch (error) {
      const isGone = error instanceof PacsimileError && error.details['errno'] === 'ENOENT'
      if (!isGone && !(error instanceof PacsimileError && error.code === 'damage')) throw error
      broken.add(name)
    }
  }
  return broken
}

/** Of damage that was found, what concerns nothing. */
export async function supersededBy(catalog: Catalog, repository: Repository, found: readonly Damage[]): Promise<Damage[]> {
  if (found.length === 0) return []
  const packOf = ({ file }: Damage): number | undefined => {
    const place = fileOf(relative(repository.directory, file))
    return place?.kind === 'pack' ? place.number : undefined
  }
  const numbers = new Set(found.map(packOf))
  // What damaged records name is not known; and a chunk of which nothing is known may have been in any damaged pack.
  if (numbers.has(undefined) || (await unknownChunks(catalog)).size > 0) return []
  const needed = new Set<number | undefined>()
  for (const number of numbers) if (number !== undefined && (await brokenChunks(catalog, repository, number)).size > 0) needed.add(number)
  return found.filter((damage) => !needed.has(packOf(damage)))
}
