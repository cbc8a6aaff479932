/**
 * What was last read from, or written to, the state: the same few thousand places are asked for on the way from a look to its
 * record, and the directories above them again and again.
 *
 * Invariant: it is told of every change before anybody asks again. It prevents three reads of the database for every file.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Known } from './state.ts'

const ENTRIES_MAX = 4096
/** A version with more chunks is not worth its memory here. */
const CHUNKS_MAX = 64

export class KnownCache {
  /** Oldest first; `undefined` for what is known to be absent. */
  readonly #entries = new Map<ByteString, Known | undefined>()

  has(key: ByteString): boolean {
    return this.#entries.has(key)
  }

  get(key: ByteString): Known | undefined {
    return this.#entries.get(key)
  }

  set(key: ByteString, known: Known | undefined): void {
    this.#entries.delete(key)
    if (known?.version.kind === 'file' && known.version.chunks.length > CHUNKS_MAX) return
    this.#entries.set(key, known)
    if (this.#entries.size <= ENTRIES_MAX) return
    const [oldest] = this.#entries.keys()
    if (oldest !== undefined) this.#entries.delete(oldest)
  }
}
