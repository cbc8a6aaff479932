/**
 * Packs read by place, in whatever thread, beside the collector that writes them.
 *
 * Invariant: what is returned is exactly what the digest names. That it cannot be read, or is not there any more, is no error here: whoever wants it asks
 * the history, which knows where it is by now, and why it is nowhere. It prevents a place that was true a moment ago from passing for damage.
 */
import { asBuffer } from '../shared/bytes.ts'
import type { Digest } from '../shared/digest.ts'
import { errnoOf, PacsimileError } from '../shared/errors.ts'
import type { FramePlace } from './repository/frame-file.ts'
import { Repository } from './repository/repository.ts'

/** All that it takes to open a repository. */
export interface OpenRepository {
  readonly directory: string
  readonly dataKey: Buffer
}

export interface PackAccess extends OpenRepository {
  /** Where each chunk is; undefined where it is in no pack. */
  places(names: readonly Digest[]): Promise<(FramePlace | undefined)[]>
}

export class PackReader implements Disposable {
  readonly #repository: Repository

  /** @throws not-found, format-unknown, format-invalid */
  constructor({ directory, dataKey }: OpenRepository) {
    this.#repository = Repository.open(directory, asBuffer(dataKey))
  }

  /** Undefined where it is not, or not whole, at that place. */
  read(place: FramePlace, name: Digest): Buffer | undefined {
    try {
      return this.#repository.readChunk(place, name)
    } catch (error) {
      if (error instanceof PacsimileError || errnoOf(error) !== undefined) return undefined
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#repository.close()
  }
}
