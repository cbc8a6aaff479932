/**
 * What a scrub could not repair in a file from its parity: put right from a copy, else what is in it from whoever has it, with a word
 * in `heals.jsonl`.
 *
 * Invariant: what is called healed was read as it should be when it came, and is durable. It prevents a repository that is called
 * whole because somebody promised it.
 */
import type { Log } from '../shared/log.ts'
import type { Damage } from './catalog.ts'
import type { ChunkHealer } from './chunk-heal.ts'
import type { Ingest } from './ingest.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import type { ReadPosition, Repository } from './repository/repository.ts'
import { noteChunkHeal, noteCopyHeal } from './scrub.ts'
import type { ScrubbedFile } from './scrub-file.ts'

export interface FileHealerParts {
  readonly repository: Repository
  readonly ingest: Ingest
  readonly chunks: ChunkHealer
  /** Puts a copy's file in the place of a damaged one. @returns the copy's name */
  readonly fromCopy: (kind: FrameFileKind, number: number) => Promise<string | undefined>
  readonly log: Log
}

export interface FileHealing {
  /** What concerns something still. */
  readonly left: readonly Damage[]
  /** The file is a copy's now, and whole. */
  readonly isReplaced: boolean
}

export class FileHealer {
  readonly #parts: FileHealerParts

  constructor(parts: FileHealerParts) {
    this.#parts = parts
  }

  /** `durable`: up to where files of the kind were, before it was scrubbed. @throws io, space */
  async heal({ path, left, torn }: ScrubbedFile, kind: FrameFileKind, number: number, durable: ReadPosition): Promise<FileHealing> {
    const { repository, fromCopy, log } = this.#parts
    // What was durable is torn only by rot; behind that it is an append under way.
    const isBefore = (offset: number): boolean => number < durable.file || (number === durable.file && offset < durable.offset)
    const isRotten = torn !== undefined && isBefore(torn.offset)
    if (left.length === 0 && !isRotten) return { left, isReplaced: false }
    if (repository.end(kind).file === number) await this.#endOpenFiles()
    const copy = await fromCopy(kind, number)
    if (copy !== undefined) {
      log.warn('a file of the repository was damaged beyond its parity and is replaced by that of a copy', { file: path, copy })
      noteCopyHeal(repository, path, copy)
      return { left: [], isReplaced: true }
    }
    if (kind === 'segment') return { left, isReplaced: false }
    return { left: await this.#healContent(path, isRotten ? [...left, torn] : left, number), isReplaced: false }
  }

  /** Nobody writes a file that is replaced. */
  async #endOpenFiles(): Promise<void> {
    const { repository, ingest } = this.#parts
    repository.endOpenFiles()
    await ingest.note(() => [])
  }

  async #healContent(path: string, left: readonly Damage[], pack: number): Promise<readonly Damage[]> {
    const { repository, chunks, log } = this.#parts
    const { healed, lost, unasked } = await chunks.heal(pack)
    for (const [source, digests] of healed) {
      log.warn('content of a damaged pack was stored once more', { file: path, source, chunks: digests.length, lost: lost.length })
      noteChunkHeal(repository, path, source, digests)
    }
    if (lost.length === 0) return []
    for (const [agent, reason] of unasked) log.warn('an agent that may have lost content cannot be asked for it', { agent, reason })
    const why = [...unasked.values()].map((reason) => `; ${reason}`).join('')
    return left.map((damage) => ({ ...damage, reason: `${damage.reason}${why}` }))
  }
}
