/**
 * The ledger's clock: an entry at each hour, at each start and stop, and when the retention is another one; with it how far the access log is.
 *
 * What every agent had sent by a tick is a point that retention may keep, and how long the collector had run by then is how old that is.
 * Invariant: an entry that says that a retention is in force stands before anything that is removed by it.
 */
import { setTimeout } from 'node:timers/promises'
import type { Digest } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import type { AccessEnd } from './access-chain.ts'
import type { Catalog } from './catalog.ts'
import type { Ingest } from './ingest.ts'
import { ledgerEntries } from './ledger-view.ts'
import type { LedgerBody } from './repository/ledger-entry.ts'
import type { Repository } from './repository/repository.ts'
import { encodePolicy, KEEP_ALL, type RetentionPolicy } from './retention.ts'

const HOUR_MS = 3_600_000
/** How late a tick may be where the clock was set. */
const LOOK_MS = 60_000

export interface TicksParts {
  readonly catalog: Catalog
  readonly repository: Repository
  readonly ingest: Ingest
  readonly policy: RetentionPolicy
  /** Behind the last line of the access log, durably; undefined where this run has written none. */
  readonly accessEnd?: () => AccessEnd | undefined
}

export class Ticks {
  readonly #parts: TicksParts
  /** What the ledger says of the access log. */
  #noted: Digest | undefined

  constructor(parts: TicksParts) {
    this.#parts = parts
  }

  /** @throws io, space */
  async tick(): Promise<void> {
    const { repository, ingest } = this.#parts
    const access = this.#parts.accessEnd?.()
    await ingest.note((): LedgerBody[] => {
      const tick: LedgerBody = { kind: 'tick', newestPack: repository.numbers('pack').at(-1) ?? 0 }
      return access === undefined || access.hash === this.#noted ? [tick] : [tick, { kind: 'access', ...access }]
    })
    this.#noted = access?.hash
  }

  /** @throws io, space */
  async notePolicy(): Promise<void> {
    const text = encodePolicy(this.#parts.policy)
    let last = encodePolicy(KEEP_ALL)
    for await (const { body } of ledgerEntries(this.#parts.catalog)) if (body.kind === 'policy') last = body.text
    if (text !== last) await this.#parts.ingest.note(() => [{ kind: 'policy', text }])
  }

  /** Until the signal is given. */
  async run(signal: AbortSignal): Promise<void> {
    const { ingest } = this.#parts
    let hour = Number.NaN
    while (!signal.aborted) {
      const nowMs = Date.now()
      // An entry that may or may not be on the disk costs a restart: none is tried before that takes something.
      if (Math.floor(nowMs / HOUR_MS) !== hour && ingest.isProven) {
        if (await this.#isTicked()) hour = Math.floor(nowMs / HOUR_MS)
      }
      const waitMs = Math.min(LOOK_MS, HOUR_MS - (nowMs % HOUR_MS))
      // A pause that is broken off is over.
      await setTimeout(waitMs, undefined, { signal }).catch(() => {})
    }
    if (ingest.isProven) await this.#isTicked()
  }

  /** False where it was refused, for want of room: nothing was written then, and the next look tries again. */
  async #isTicked(): Promise<boolean> {
    try {
      await this.notePolicy()
      await this.tick()
      return true
    } catch (error) {
      if (error instanceof PacsimileError && (error.code === 'space' || error.code === 'io')) return false
      throw error
    }
  }
}
