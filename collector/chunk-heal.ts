/**
 * What parity cannot repair of a pack, from whoever else has the content: a copy, the replica, or the agent whose file holds it still. It
 * is stored once more.
 *
 * Order: the chunk is durable in another pack before the catalog leads there. Invariant: only what has the digest is stored. It
 * prevents a replica that somebody wrote into, or a file that is another one by now, from becoming history; and the damaged frame stays
 * where it is, for nothing is ever written into a pack that is full.
 */
import { type Digest, digestOf } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { ASKED_SPOTS_MAX } from '../shared/limits.ts'
import { byteString, type Label, type RelativePath, ROOT } from '../shared/path.ts'
import type { ChunkRef } from '../shared/version.ts'
import type { AskedSpot } from '../shared/wire.ts'
import type { Catalog } from './catalog.ts'
import type { Ingest } from './ingest.ts'
import { retirementOf } from './ledger-view.ts'
import { brokenChunks, unknownChunks } from './needed-chunks.ts'
import type { Replica } from './replica.ts'
import { readReplicaSpot } from './replica-spot.ts'
import type { Payload } from './repository/frame.ts'
import type { Repository } from './repository/repository.ts'

export type ChunkSource = `copy ${string}` | 'replica' | `agent ${string}`

export interface ChunkHealing {
  readonly healed: ReadonlyMap<ChunkSource, readonly Digest[]>
  /** Chunks that versions name and that cannot be read, and that nobody could give. */
  readonly lost: readonly Digest[]
  /** Agents whose files may hold some of what is lost, and why they could not be asked. */
  readonly unasked: ReadonlyMap<Label, string>
}

export interface ChunkHealerParts {
  readonly catalog: Catalog
  readonly repository: Repository
  readonly ingest: Ingest
  readonly replica: Replica | undefined
  /** Chunks of a pack that copies have whole. */
  readonly fromCopies: (pack: number, names: ReadonlySet<Digest>) => AsyncIterable<{ readonly copy: string; readonly payload: Payload }>
  /** Undefined where no file of the agent holds it any more. @throws unsupported, agent-unreachable, timeout, protocol */
  readonly ask: (agent: Label, chunk: ChunkRef, spots: readonly AskedSpot[]) => Promise<Buffer | undefined>
}

/** Where the newest versions have a chunk. */
interface Place {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
  readonly offset: number
  readonly chunk: ChunkRef
}

/** A chunk, and where an agent may find it. */
interface Sought {
  readonly chunk: ChunkRef
  readonly spots: AskedSpot[]
}

/** What is not had yet. */
class Lost {
  readonly names: Set<Digest>
  readonly healed = new Map<ChunkSource, Digest[]>()

  constructor(names: Set<Digest>) {
    this.names = names
  }

  /** It is stored once more. */
  had(name: Digest, from: ChunkSource): void {
    this.names.delete(name)
    const list = this.healed.get(from)
    if (list === undefined) this.healed.set(from, [name])
    else list.push(name)
  }
}

export class ChunkHealer {
  readonly #parts: ChunkHealerParts

  constructor(parts: ChunkHealerParts) {
    this.#parts = parts
  }

  /** @throws io, space */
  async heal(pack: number): Promise<ChunkHealing> {
    const { catalog, repository } = this.#parts
    const broken = await brokenChunks(catalog, repository, pack)
    const lost = new Lost(broken.union(await unknownChunks(catalog)))
    if (lost.names.size > 0) await this.#fromCopies(pack, lost)
    if (lost.names.size > 0) await this.#fromReplica(lost)
    const unasked = lost.names.size > 0 ? await this.#fromAgents(lost) : new Map<Label, string>()
    return { healed: lost.healed, lost: [...lost.names], unasked }
  }

  async #fromCopies(pack: number, lost: Lost): Promise<void> {
    const { ingest, fromCopies } = this.#parts
    for await (const { copy, payload } of fromCopies(pack, lost.names)) {
      if (!lost.names.has(payload.digest)) continue
      await ingest.move(payload)
      lost.had(payload.digest, `copy ${copy}`)
    }
  }

  async #fromReplica(lost: Lost): Promise<void> {
    const { ingest, replica } = this.#parts
    if (replica === undefined) return
    for await (const { agent, volume, path, offset, chunk } of this.#places(lost.names)) {
      // A file before it may have held the same.
      if (!lost.names.has(chunk.digest)) continue
      const plain = readReplicaSpot(byteString(replica.pathOf(agent, volume)), path, offset, chunk.length)
      if (plain === undefined || digestOf(plain) !== chunk.digest) continue
      await ingest.rewrite(chunk.digest, plain)
      lost.had(chunk.digest, 'replica')
    }
  }

  /** @returns who could not be asked, and why */
  async #fromAgents(lost: Lost): Promise<Map<Label, string>> {
    const { ingest, ask } = this.#parts
    const unasked = new Map<Label, string>()
    for (const [agent, chunks] of await this.#spotsByAgent(lost.names)) {
      for (const { chunk, spots } of chunks.values()) {
        // An agent before it may have had the same.
        if (!lost.names.has(chunk.digest)) continue
        try {
          const plain = await ask(agent, chunk, spots)
          if (plain === undefined) continue
          await ingest.rewrite(chunk.digest, plain)
          lost.had(chunk.digest, `agent ${agent}`)
        } catch (error) {
          if (!(error instanceof PacsimileError) || !UNASKABLE.has(error.code)) throw error
          unasked.set(agent, error.message)
          break
        }
      }
    }
    return unasked
  }

  async #spotsByAgent(names: ReadonlySet<Digest>): Promise<Map<Label, Map<Digest, Sought>>> {
    const agents = new Map<Label, Map<Digest, Sought>>()
    for await (const { agent, volume, path, offset, chunk } of this.#places(names)) {
      const chunks = agents.get(agent) ?? new Map<Digest, Sought>()
      const sought: Sought = chunks.get(chunk.digest) ?? { chunk, spots: [] }
      if (sought.spots.length < ASKED_SPOTS_MAX) sought.spots.push({ volume, path, offset })
      agents.set(agent, chunks.set(chunk.digest, sought))
    }
    return agents
  }

  async *#places(names: ReadonlySet<Digest>): AsyncGenerator<Place> {
    const { catalog } = this.#parts
    for (const agent of await catalog.agents())
      for (const { name: volume } of await catalog.volumes(agent))
        for await (const { path, position } of catalog.newestPositions(agent, volume, ROOT)) {
          const version = catalog.versionBy(agent, volume, path, position)
          if (version?.kind !== 'file') continue
          let offset = 0
          for (const chunk of version.chunks) {
            if (names.has(chunk.digest)) yield { agent, volume, path, offset, chunk }
            offset += chunk.length
          }
        }
  }

  /** Brings into the catalog what it lacks of a pack, because that was damaged when the catalog was made. */
  async fold(pack: number): Promise<void> {
    const { catalog, repository, ingest } = this.#parts
    const frames = [...repository.file('pack', pack).scan({ bodies: false })]
    // In the order of commits: it may be retired meanwhile, and what stands in a retired pack is not there.
    await ingest.note((batch) => {
      if (retirementOf(catalog, pack) !== undefined) return []
      for (const found of frames) {
        if (found.kind !== 'frame' || found.type !== 'chunk' || batch.chunk(found.digest) !== undefined) continue
        const { digest, offset, storedLength, plainLength } = found
        batch.addChunk(digest, { file: pack, offset, storedLength, plainLength })
      }
      return []
    })
  }
}

/** What is wrong with an agent, and not with the repository. */
const UNASKABLE = new Set<string>(['unsupported', 'agent-unreachable', 'timeout', 'protocol'])
