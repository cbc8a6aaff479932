/**
 * Holds the content of one file, piece by piece as it is written, against the digest that its version names.
 *
 * Invariant: `end` returns only where the pieces, one behind the other, were exactly the content of that digest and length. It is all the proof
 * that a file needs, wherever its pieces came from: digests of the pieces would say the same once more, and only which of them is wrong.
 */
import { type Digest, digestOf, StreamingDigest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { FileVersion } from '../shared/version.ts'

const NOTHING = Buffer.alloc(0)

export class ContentCheck {
  readonly #version: FileVersion
  #whole: StreamingDigest | undefined
  /** Of a file in one piece. */
  #only: Digest | undefined
  #bytes = 0

  constructor(version: FileVersion) {
    this.#version = version
  }

  /** `known`: the digest that the piece was held against already. @throws damage where there are more bytes than the version has */
  add(piece: Uint8Array, known?: Digest): void {
    this.#bytes += piece.length
    if (this.#bytes > this.#version.size) this.#fail()
    if (piece.length === this.#version.size) this.#only = known ?? digestOf(piece)
    else (this.#whole ??= new StreamingDigest()).update(piece)
  }

  /** @throws damage */
  end(): void {
    const found = this.#only ?? this.#whole?.finish() ?? digestOf(NOTHING)
    if (this.#bytes !== this.#version.size || found !== this.#version.digest) this.#fail()
  }

  #fail(): never {
    throw new PacsimileError('damage', 'The content is not what the digest of the whole file names')
  }
}
