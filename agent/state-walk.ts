/**
 * A walk through the captured side of a volume, page by page, for a scan to merge with the disk.
 *
 * Pages grow while they are read one after the other, and the next one is fetched meanwhile.
 * Invariant: each page is the state as it is when it is fetched; no iterator stays open. It prevents a long scan from
 * comparing the disk with how things stood minutes ago. What the volume ignores is left out, as the walk of the disk leaves
 * it out: what was captured before a rule came would otherwise be missing at every scan.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import type { Database, ScanPage } from './database.ts'
import { type KnownWalk, LAST_KEY } from './scan.ts'
import { isPrintOf } from './stat-print.ts'
import { isWholeKnown, PRINT_AT, pathPrefix, rangeOfPrefix } from './state-keys.ts'

const PAGE_FIRST = 32
const PAGE_MAX = 2048

interface Fetching {
  readonly from: ByteString
  readonly page: Promise<ScanPage>
}

export class StateWalk implements KnownWalk<Buffer> {
  readonly #database: Database
  readonly #prefix: ByteString
  readonly #end: ByteString
  #entries: ScanPage['entries'] = []
  #at = 0
  #key: ByteString | undefined
  /** PATHKEY from which on the next page is. */
  #from: ByteString
  #isLast = false
  #limit = PAGE_FIRST
  #next: Fetching | undefined

  /** Entries from the PATHKEY `from` on, below `until`. */
  constructor(database: Database, volume: Label, from: ByteString, until: ByteString) {
    this.#database = database
    this.#prefix = pathPrefix(volume)
    this.#from = from
    this.#end = until === LAST_KEY ? rangeOfPrefix(this.#prefix).lt : this.#prefix + until
  }

  get isReady(): boolean {
    return this.#key !== undefined || this.#isLast
  }

  get key(): ByteString | undefined {
    return this.#key
  }

  isSame(now: Buffer): boolean {
    const [, value] = this.#entries[this.#at] ?? []
    return value !== undefined && isPrintOf(value, PRINT_AT, now) && isWholeKnown(value)
  }

  skip(): void {
    this.#at += 1
    this.#readKey()
  }

  skipTo(key: ByteString): void {
    while (this.#key !== undefined && this.#key < key) this.skip()
    if (this.#key !== undefined || key <= this.#from) return
    this.#from = key
    if (key === LAST_KEY) this.#isLast = true
  }

  async fetch(): Promise<void> {
    while (!this.isReady) {
      const isExpected = this.#next?.from === this.#from
      this.#limit = isExpected ? Math.min(this.#limit * 2, PAGE_MAX) : PAGE_FIRST
      const page = await (isExpected && this.#next !== undefined ? this.#next.page : this.#page())
      this.#next = undefined
      this.#entries = page.entries
      this.#isLast = page.isLast
      const last = page.entries.at(-1)
      if (last !== undefined) {
        this.#from = `${last[0].toString('latin1', this.#prefix.length)}\0`
        this.#prefetch()
      }
      this.#at = 0
      this.#readKey()
    }
  }

  #prefetch(): void {
    const page = this.#page()
    // Whoever waits for it is told; a page that is not needed any more may fail in silence.
    page.catch(() => {})
    this.#next = { from: this.#from, page }
  }

  #page(): Promise<ScanPage> {
    const gte = this.#prefix + this.#from
    return gte >= this.#end ? Promise.resolve({ entries: [], isLast: true }) : this.#database.scanPage({ gte, lt: this.#end }, this.#limit)
  }

  #readKey(): void {
    this.#key = this.#entries[this.#at]?.[0].toString('latin1', this.#prefix.length)
  }
}
