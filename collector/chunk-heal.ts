/**
 * What parity cannot repair of a pack, from the replica: content that a file there still has is stored once more.
 *
 * Order: the chunk is durable in another pack before the catalog leads there. Invariant: only what has the digest is stored. It
 * prevents a replica that somebody wrote into from becoming history; and the damaged frame stays where it is, for nothing is ever
 * written into a pack that is full.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { type Digest, digestOf } from '../shared/digest.ts'
import { errnoOf } from '../shared/errors.ts'
import { byteString, type Label, pathBuffer, type RelativePath, ROOT } from '../shared/path.ts'
import type { Catalog } from './catalog.ts'
import type { Ingest } from './ingest.ts'
import { retirementOf } from './ledger-view.ts'
import { brokenChunks, unknownChunks } from './needed-chunks.ts'
import type { Replica } from './replica.ts'
import type { Repository } from './repository/repository.ts'

export interface ChunkHealing {
  readonly healed: readonly Digest[]
  /** Chunks that versions name and that cannot be read, and that no file of the replica holds. */
  readonly lost: readonly Digest[]
}

/** A place in a file of the replica where a chunk may be. */
interface Spot {
  readonly file: Buffer
  readonly offset: number
  readonly length: number
}

export class ChunkHealer {
  readonly #catalog: Catalog
  readonly #repository: Repository
  readonly #ingest: Ingest
  readonly #replica: Replica | undefined

  constructor(parts: { catalog: Catalog; repository: Repository; ingest: Ingest; replica: Replica | undefined }) {
    this.#catalog = parts.catalog
    this.#repository = parts.repository
    this.#ingest = parts.ingest
    this.#replica = parts.replica
  }

  /** @throws io, space */
  async heal(pack: number): Promise<ChunkHealing> {
    const broken = await brokenChunks(this.#catalog, this.#repository, pack)
    const lost = broken.union(await unknownChunks(this.#catalog))
    const healed: Digest[] = []
    if (lost.size === 0) return { healed, lost: [] }
    for await (const [name, spot] of this.#spots(lost)) {
      // A file before it may have held the same.
      if (!lost.has(name)) continue
      const plain = readSpot(spot)
      if (plain === undefined || digestOf(plain) !== name) continue
      await this.#ingest.rewrite(name, plain)
      healed.push(name)
      lost.delete(name)
    }
    return { healed, lost: [...lost] }
  }

  /** Brings into the catalog what it lacks of a pack, because that was damaged when the catalog was made. */
  async fold(pack: number): Promise<void> {
    const frames = [...this.#repository.file('pack', pack).scan({ bodies: false })]
    // In the order of commits: it may be retired meanwhile, and what stands in a retired pack is not there.
    await this.#ingest.note((batch) => {
      if (retirementOf(this.#catalog, pack) !== undefined) return []
      for (const found of frames) {
        if (found.kind !== 'frame' || found.type !== 'chunk' || batch.chunk(found.digest) !== undefined) continue
        const { digest, offset, storedLength, plainLength } = found
        batch.addChunk(digest, { file: pack, offset, storedLength, plainLength })
      }
      return []
    })
  }

  /** Where the newest versions have these chunks. */
  async *#spots(names: ReadonlySet<Digest>): AsyncGenerator<[Digest, Spot]> {
    for (const agent of this.#replica === undefined ? [] : await this.#catalog.agents())
      for (const volume of await this.#catalog.volumes(agent)) yield* this.#spotsIn(agent, volume.name, names)
  }

  async *#spotsIn(agent: Label, volume: Label, names: ReadonlySet<Digest>): AsyncGenerator<[Digest, Spot]> {
    const root = this.#replica?.pathOf(agent, volume)
    if (root === undefined) return
    for await (const { path, position } of this.#catalog.newestPositions(agent, volume, ROOT)) {
      const version = this.#catalog.versionBy(agent, volume, path, position)
      if (version?.kind !== 'file') continue
      let offset = 0
      for (const { digest, length } of version.chunks) {
        if (names.has(digest)) yield [digest, { file: fileOf(root, path), offset, length }]
        offset += length
      }
    }
  }
}

function fileOf(root: string, path: RelativePath): Buffer {
  return pathBuffer(`${byteString(root)}/${path}`)
}

/** Undefined where there is no such file, or it is shorter. */
function readSpot({ file, offset, length }: Spot): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    // Whatever is there, it is not what was put there.
    if (errnoOf(error) === undefined) throw error
    return undefined
  }
  try {
    const plain = Buffer.alloc(length)
    return fstatSync(fd).isFile() && readSync(fd, plain, 0, length, offset) === length ? plain : undefined
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return undefined
  } finally {
    closeSync(fd)
  }
}
