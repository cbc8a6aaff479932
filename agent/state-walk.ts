/**
 * A walk through the captured side of a volume, page by page, for a scan to merge with the disk.
 *
 * Invariant: each page is the state as it is when it is fetched; no iterator stays open. It prevents a long scan from
 * comparing the disk with how things stood minutes ago. What the volume ignores is left out, as the walk of the disk leaves
 * it out: what was captured before a rule came would otherwise be missing at every scan.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label, RelativePath } from '../shared/path.ts'
import { identityOf } from './file-stat.ts'
import type { KnownEntry, KnownWalk } from './scan.ts'
import type { State } from './state.ts'
import { keyAfterWithin } from './state-keys.ts'
import type { IgnoreRules } from './watch/ignore.ts'

interface Item {
  readonly key: ByteString
  readonly entry: KnownEntry
}

const PAGE_ENTRIES = 512

export class StateWalk implements KnownWalk {
  readonly #state: State
  readonly #volume: Label
  readonly #within: RelativePath
  readonly #ignore: IgnoreRules | undefined
  #page: Item[] = []
  #at = 0
  #from: ByteString | undefined
  #isAtEnd = false

  constructor(state: State, volume: Label, within: RelativePath, ignore?: IgnoreRules) {
    this.#state = state
    this.#volume = volume
    this.#within = within
    this.#ignore = ignore
  }

  peek(): KnownEntry | undefined | Promise<KnownEntry | undefined> {
    return this.#page[this.#at]?.entry ?? (this.#isAtEnd ? undefined : this.#fetch())
  }

  async #fetch(): Promise<KnownEntry | undefined> {
    while (this.#at >= this.#page.length && !this.#isAtEnd) {
      const page = await this.#state.page(this.#volume, this.#within, this.#from, PAGE_ENTRIES)
      this.#isAtEnd = page.length < PAGE_ENTRIES
      const last = page.at(-1)
      if (last !== undefined) this.#from = `${last.key}\0`
      this.#page = page.flatMap(({ key, path, known }) =>
        known === undefined || this.#ignore?.isIgnored(path, known.version.kind === 'directory') === true
          ? []
          : [{ key, entry: { path, identity: identityOf(known) } }],
      )
      this.#at = 0
    }
    return this.#page[this.#at]?.entry
  }

  skip(): void {
    this.#at += 1
  }

  skipWithin(path: RelativePath): void {
    const bound = keyAfterWithin(this.#volume, path)
    for (let item = this.#page[this.#at]; item !== undefined && item.key < bound; item = this.#page[this.#at]) this.#at += 1
    if (this.#at >= this.#page.length && (this.#from === undefined || this.#from < bound)) this.#from = bound
  }
}
