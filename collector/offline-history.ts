/**
 * History read from a bare repository with its key: no collector, no catalog. What remains when everything else is gone.
 *
 * Folds the repository into a catalog in a temporary directory, so that both ways of reading use the same code, and
 * writes nothing into the repository.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Catalog } from './catalog.ts'
import { History } from './history.ts'
import { type Damage, replay } from './replay.ts'
import { Repository } from './repository/repository.ts'

export class OfflineHistory extends History {
  readonly repository: Repository
  readonly catalog: Catalog
  readonly #directory: string

  private constructor(catalog: Catalog, repository: Repository, damage: readonly Damage[], directory: string) {
    super(catalog, repository, { damage })
    this.catalog = catalog
    this.repository = repository
    this.#directory = directory
  }

  /** @throws not-found, format-unknown, io */
  static async open(repositoryDirectory: string, dataKey: Buffer, onProgress?: (records: number) => void): Promise<OfflineHistory> {
    const repository = Repository.open(repositoryDirectory, dataKey)
    const directory = mkdtempSync(join(tmpdir(), 'pacsimile-catalog-'))
    try {
      const catalog = await Catalog.open(join(directory, 'catalog'))
      const { damage } = await replay(repository, catalog, onProgress)
      return new OfflineHistory(catalog, repository, damage, directory)
    } catch (error) {
      repository.close()
      rmSync(directory, { recursive: true, force: true })
      throw error
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.catalog.close()
    this.repository.close()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
