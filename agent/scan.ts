/**
 * A scan: what is on disk against what the journal says, as differences. This is the merge of the two sides.
 *
 * Both sides come in the order of a depth-first walk with sorted names; neither is ever held as a whole. Whoever walks the disk
 * calls `passTo` before each of its entries, in order.
 * Invariant: a difference is only a reason to look. Nothing is recorded, and above all nothing removed, because a scan did
 * not see it: the capture thread looks again, and it knows whether the disk is there at all.
 */
import type { ByteString } from '../shared/bytes.ts'
import { pathFromKey, type RelativePath } from '../shared/path.ts'

export type Difference =
  /** On disk otherwise than captured, or not captured. */
  | { readonly kind: 'changed'; readonly path: RelativePath; readonly isNewDirectory: boolean }
  /** Captured, and not on disk; of a directory, only itself is told. */
  | { readonly kind: 'missing'; readonly path: RelativePath }
  /** As captured so far as the system tells; a deep scan wants its content read. */
  | { readonly kind: 'unread'; readonly path: RelativePath }
  /** What is below (or at) the path cannot be known. */
  | { readonly kind: 'closed'; readonly path: RelativePath; readonly reason: string }
  /** Another filesystem, or another mount, begins there; it is not entered. */
  | { readonly kind: 'foreign'; readonly path: RelativePath }

/** Behind every PATHKEY. */
export const LAST_KEY = '\u0100'

/** The first PATHKEY behind the path and all below it. */
export function keyAfter(key: ByteString): ByteString {
  return key === '' ? LAST_KEY : `${key}\x01`
}

/** The captured side, in order. `Now` is what the system says of a path. */
export interface KnownWalk<Now> {
  /** Whether `key` can be asked for; if not, `fetch`. */
  readonly isReady: boolean
  fetch(): Promise<void>
  /** PATHKEY of the next entry; undefined at the end. */
  readonly key: ByteString | undefined
  /** Whether the next entry was captured as it is now, without doubt. */
  isSame(now: Now): boolean
  skip(): void
  /** Leaves out what comes before `key`. */
  skipTo(key: ByteString): void
}

export class Merge<Now> {
  readonly #known: KnownWalk<Now>
  readonly #found: (difference: Difference) => void
  /** Differences so far. */
  differences = 0

  constructor(known: KnownWalk<Now>, found: (difference: Difference) => void) {
    this.#known = known
    this.#found = found
  }

  /** What was captured and comes before `key` is missing. Resolves when that is told; undefined where it is at once. */
  passTo(key: ByteString): Promise<void> | undefined {
    const known = this.#known
    for (;;) {
      if (!known.isReady) return this.#fetchAndPassTo(key)
      const at = known.key
      if (at === undefined || at >= key) return undefined
      this.#tell({ kind: 'missing', path: pathFromKey(at) })
      known.skipTo(keyAfter(at))
    }
  }

  async #fetchAndPassTo(key: ByteString): Promise<void> {
    await this.#known.fetch()
    await this.passTo(key)
  }

  /** `key`, to which was passed, is on disk. @returns whether it was captured as it is */
  present(key: ByteString, now: Now, isDirectory: boolean, isEntered: boolean): boolean {
    const known = this.#known
    const isKnown = known.key === key
    const isSame = isKnown && known.isSame(now)
    if (!isSame) this.#tell({ kind: 'changed', path: pathFromKey(key), isNewDirectory: isDirectory && !isKnown })
    if (isEntered || (isSame && !isDirectory)) {
      if (isKnown) known.skip()
    } else {
      known.skipTo(keyAfter(key))
    }
    return isSame
  }

  /** Unknown is not missing: whatever was captured there stays as it is. */
  unknown(difference: Difference, key: ByteString): void {
    this.#known.skipTo(keyAfter(key))
    this.#tell(difference)
  }

  /** It is on disk otherwise than captured, by another source than the captured side in order. */
  differs(key: ByteString): void {
    this.#tell({ kind: 'changed', path: pathFromKey(key), isNewDirectory: false })
  }

  /** Of what comes before `key`, nothing is said. */
  leaveOut(key: ByteString): void {
    this.#known.skipTo(key)
  }

  #tell(difference: Difference): void {
    this.differences += 1
    this.#found(difference)
  }
}
