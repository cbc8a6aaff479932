/**
 * What an entry of the ledger makes of the catalog.
 *
 * Invariant: what is derived here follows from the entry and from the records before it, and from nothing else, so that a catalog
 * that is made anew says the same of what has expired, is held, or is a point to keep.
 */
import { ByteWriter } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import { type ChainEnd, comparePositions, type Position } from '../shared/record.ts'
import type { Catalog } from './catalog.ts'
import { keys, positionBytes, ranges } from './catalog-keys.ts'
import { ledgerEndValue } from './catalog-values.ts'
import { endOfLedger, lastHeadAt, retirementOf } from './ledger-view.ts'
import {
  encodeHold,
  encodeLedgerEntry,
  type LedgerBody,
  type LedgerEnd,
  type LedgerEntry,
  ledgerBreak,
  ledgerEnd,
} from './repository/ledger-entry.ts'

/** With the one before the last. */
const CHECKPOINTS_KEPT = 2

export class LedgerFold {
  readonly #catalog: Catalog
  readonly #put: (key: Buffer, value: Buffer) => void
  readonly #delete: (key: Buffer) => void
  readonly #heads = new Map<Label, Position>()
  readonly #retired = new Map<number, number>()
  readonly #checkpoints = new Set<number>()
  #end: LedgerEnd | undefined

  constructor(catalog: Catalog, put: (key: Buffer, value: Buffer) => void, remove: (key: Buffer) => void) {
    this.#catalog = catalog
    this.#put = put
    this.#delete = remove
  }

  get end(): LedgerEnd {
    return this.#end ?? endOfLedger(this.#catalog)
  }

  /** `heads`: what of every agent stands before it. @returns why it is not the next one */
  async add(entry: LedgerEntry, encoded: Uint8Array, heads: ReadonlyMap<Label, ChainEnd | undefined>): Promise<string | undefined> {
    const broken = ledgerBreak(this.end, entry)
    if (broken !== undefined) this.#put(keys.ledgerBreak(entry.number), Buffer.from(broken))
    await this.#take(entry, heads)
    if (entry.body.kind !== 'unknown')
      this.#put(keys.ledgerEntry(entry.number), encodeLedgerEntry({ ...entry, body: withoutLists(entry.body) }))
    this.#end = ledgerEnd(entry, encoded)
    this.#put(keys.ledgerEnd, ledgerEndValue(this.#end))
    return broken
  }

  async #take(entry: LedgerEntry, heads: ReadonlyMap<Label, ChainEnd | undefined>): Promise<void> {
    const { number, body } = entry
    switch (body.kind) {
      case 'tick':
      case 'policy':
        for (const [agent, head] of heads) if (head !== undefined) await this.#noteHead(agent, number, head)
        return
      case 'hold': {
        const to = new ByteWriter()
        encodeHold(body.hold, to)
        this.#put(keys.hold(body.hold.name), to.take())
        return
      }
      case 'release':
        this.#delete(keys.hold(body.name))
        return
      case 'expired':
        for (const position of body.positions) this.#put(keys.expired(body.agent, position), Buffer.alloc(0))
        return
      case 'retired':
        for (const pack of body.packs) {
          this.#retired.set(pack, number)
          this.#put(keys.retiredPack(pack), new ByteWriter(16).u64(number).u64(0).take())
        }
        return
      case 'deleted':
        for (const pack of body.packs) {
          const retiredBy = this.#retired.get(pack) ?? retirementOf(this.#catalog, pack)?.retiredBy ?? number
          this.#put(keys.retiredPack(pack), new ByteWriter(16).u64(retiredBy).u64(number).take())
        }
        return
      case 'checkpoint':
        await this.#keepNewest(number)
        this.#put(keys.checkpoint(number), encodeLedgerEntry(entry))
        return
      // It stands among the entries; nothing here follows from it.
      case 'access':
      case 'unknown':
    }
  }

  /** Of the checkpoints before, one is kept: of the last one something may be damaged. */
  async #keepNewest(number: number): Promise<void> {
    for await (const [key] of this.#catalog.entries(ranges.checkpoints)) this.#checkpoints.add(Number(key.readBigUInt64BE(1)))
    this.#checkpoints.add(number)
    for (const old of [...this.#checkpoints].sort((a, b) => a - b).slice(0, -CHECKPOINTS_KEPT)) {
      this.#checkpoints.delete(old)
      this.#delete(keys.checkpoint(old))
    }
  }

  /** An agent that sent nothing since has the one that stands before. */
  async #noteHead(agent: Label, number: number, { epoch, seq }: Position): Promise<void> {
    const last = this.#heads.get(agent) ?? (await lastHeadAt(this.#catalog, agent))
    if (last !== undefined && comparePositions(last, { epoch, seq }) === 0) return
    this.#heads.set(agent, { epoch, seq })
    this.#put(keys.headAt(agent, number), Buffer.from(positionBytes({ epoch, seq }), 'latin1'))
  }
}

/** What has keys of its own. */
function withoutLists(body: LedgerBody): LedgerBody {
  switch (body.kind) {
    case 'expired':
      return { ...body, positions: [] }
    case 'retired':
    case 'deleted':
      return { ...body, packs: [] }
    case 'checkpoint':
      return { ...body, files: [] }
    default:
      return body
  }
}
