/**
 * History read from a bare repository with its key: no collector, no catalog. What remains when everything else is gone.
 *
 * Folds the repository into a catalog in a temporary directory, from the last checkpoint on, so that both ways of reading use the
 * same code, and writes nothing into the repository.
 */
import type { Catalog, Damage } from './catalog.ts'
import { catalogFromCheckpoint } from './checkpoint.ts'
import { History } from './history.ts'
import { supersededBy } from './needed-chunks.ts'
import type { PackAccess } from './pack-reader.ts'
import { replay } from './replay.ts'
import { Repository } from './repository/repository.ts'
import { ScratchCatalog } from './scratch-catalog.ts'

export interface OfflineOptions {
  readonly onProgress?: (records: number) => void
  /** False: every record is folded. */
  readonly isFromCheckpoint?: boolean
}

export class OfflineHistory extends History {
  override readonly isLive = false
  readonly repository: Repository
  readonly #scratch: ScratchCatalog
  readonly #dataKey: Buffer

  private constructor(scratch: ScratchCatalog, repository: Repository, dataKey: Buffer, damage: readonly Damage[]) {
    super(scratch.catalog, repository, { damage: () => damage })
    this.repository = repository
    this.#scratch = scratch
    this.#dataKey = dataKey
  }

  /** @throws not-found, format-unknown, io */
  static async open(
    repositoryDirectory: string,
    dataKey: Buffer,
    { onProgress, isFromCheckpoint = true }: OfflineOptions = {},
  ): Promise<OfflineHistory> {
    const repository = Repository.open(repositoryDirectory, dataKey)
    let scratch: ScratchCatalog | undefined
    try {
      scratch = await ScratchCatalog.open((directory) => isFromCheckpoint && catalogFromCheckpoint(repository, directory))
      const { damage } = await replay(repository, scratch.catalog, { onProgress })
      const superseded = await supersededBy(scratch.catalog, repository, damage)
      return new OfflineHistory(
        scratch,
        repository,
        dataKey,
        damage.filter((found) => !superseded.includes(found)),
      )
    } catch (error) {
      repository.close()
      await scratch?.[Symbol.asyncDispose]()
      throw error
    }
  }

  get catalog(): Catalog {
    return this.#scratch.catalog
  }

  packs(): Promise<PackAccess> {
    const { directory } = this.repository
    return Promise.resolve({ directory, dataKey: this.#dataKey, places: (names) => Promise.resolve(this.places(names)) })
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.repository.close()
    await this.#scratch[Symbol.asyncDispose]()
  }
}
