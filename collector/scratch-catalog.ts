/**
 * A catalog in a temporary directory, for readers of a bare repository.
 *
 * It holds names in the clear, so it is nobody else's to read, and it goes away with its reader however that ends, but
 * by SIGKILL. It prevents an archive's file names from staying behind in /tmp.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { asPacsimileError } from '../shared/errors.ts'
import { Catalog } from './catalog.ts'
import { type MakeFiles, tryMaking } from './catalog-opening.ts'

/** 128 + the signal's number. */
const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143 } as const

export class ScratchCatalog implements AsyncDisposable {
  readonly catalog: Catalog
  readonly #directory: string
  readonly #remove: () => void

  private constructor(catalog: Catalog, directory: string, remove: () => void) {
    this.catalog = catalog
    this.#directory = directory
    this.#remove = remove
    process.on('exit', this.#remove)
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, exitBySignal)
  }

  /** `make` may make the files of an older catalog. @throws io, space */
  static async open(make: MakeFiles = () => false): Promise<ScratchCatalog> {
    let directory: string
    try {
      directory = mkdtempSync(join(tmpdir(), 'pacsimile-catalog-'))
    } catch (error) {
      throw asPacsimileError(error, `Making a temporary directory in ${tmpdir()}`)
    }
    const remove = (): void => rmSync(directory, { recursive: true, force: true })
    try {
      const at = join(directory, 'catalog')
      return new ScratchCatalog((await tryMaking(at, make)) ?? (await Catalog.open(at)), directory, remove)
    } catch (error) {
      remove()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#remove)
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, exitBySignal)
    await this.catalog.close()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** Ends the process as the signal would have, but with what is done at exit. */
function exitBySignal(signal: NodeJS.Signals): void {
  process.exit(signal === 'SIGINT' ? EXIT_BY_SIGNAL.SIGINT : EXIT_BY_SIGNAL.SIGTERM)
}
