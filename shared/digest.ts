/**
 * BLAKE3-256: the name of content, and the hash that chains records. The only door to the hash library.
 *
 * A `Digest` is a ByteString of 32 bytes, so that it compares with `===` and is a Map key.
 * Source: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), default hash mode, 32 bytes of output.
 */
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash'
import { asBuffer, type ByteString } from './bytes.ts'
import { PacsimileError } from './errors.ts'

export type Digest = ByteString & { readonly __brand: 'Digest' }

export const DIGEST_BYTES = 32

/** 32 zero bytes: what the first record of an epoch follows. */
export const NO_DIGEST = '\0'.repeat(DIGEST_BYTES) as Digest

export function digestOf(bytes: Uint8Array): Digest {
  return blake3(asBuffer(bytes)).toString('latin1') as Digest
}

/** Brands 32 bytes that were read. @throws format-invalid */
export function digest(bytes: ByteString): Digest {
  if (bytes.length !== DIGEST_BYTES) throw new PacsimileError('format-invalid', `A digest has ${DIGEST_BYTES} bytes, not ${bytes.length}`)
  return bytes as Digest
}

export function digestHex(value: Digest): string {
  return Buffer.from(value, 'latin1').toString('hex')
}

export function digestFromHex(hex: string): Digest {
  return digest(Buffer.from(hex, 'hex').toString('latin1'))
}

/** Hash of content that comes in pieces; feed it at least 64 KiB at a time where speed matters. */
export class StreamingDigest {
  readonly #hasher = new Blake3Hasher()

  update(bytes: Uint8Array): void {
    this.#hasher.update(asBuffer(bytes))
  }

  finish(): Digest {
    return this.#hasher.digestBuffer().toString('latin1') as Digest
  }
}
