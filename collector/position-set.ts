/**
 * A set of records of one agent, by where they stand in its history, in rising order.
 *
 * The numbers of an epoch are dense, so a bit for each, in pages that are there where one is set, is less than any list of them. Invariant:
 * what is asked for comes out once, rising. It prevents a plan of what expires from taking memory by the number of versions that there ever were.
 */
import type { Position } from '../shared/record.ts'

const PAGE_BYTES = 4096
const PAGE_BITS = 8 * PAGE_BYTES

export class PositionSet {
  /** By epoch, then by number of the page. */
  readonly #epochs = new Map<number, Map<number, Uint8Array>>()

  add({ epoch, seq }: Position): void {
    let pages = this.#epochs.get(epoch)
    if (pages === undefined) this.#epochs.set(epoch, (pages = new Map()))
    const number = Math.floor(seq / PAGE_BITS)
    let page = pages.get(number)
    if (page === undefined) pages.set(number, (page = new Uint8Array(PAGE_BYTES)))
    const bit = seq % PAGE_BITS
    page[bit >> 3] = (page[bit >> 3] ?? 0) | (1 << (bit & 7))
  }

  has({ epoch, seq }: Position): boolean {
    const bit = seq % PAGE_BITS
    const byte = this.#epochs.get(epoch)?.get(Math.floor(seq / PAGE_BITS))?.[bit >> 3] ?? 0
    return (byte & (1 << (bit & 7))) !== 0
  }

  *[Symbol.iterator](): Generator<Position> {
    for (const [epoch, pages] of rising(this.#epochs))
      for (const [number, page] of rising(pages))
        for (const [at, byte] of page.entries()) {
          if (byte === 0) continue
          for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield { epoch, seq: number * PAGE_BITS + 8 * at + bit }
        }
  }

  /** So many at a time. */
  *groups(count: number): Generator<readonly Position[]> {
    let group: Position[] = []
    for (const position of this) {
      group.push(position)
      if (group.length < count) continue
      yield group
      group = []
    }
    if (group.length > 0) yield group
  }
}

function rising<Value>(map: ReadonlyMap<number, Value>): [number, Value][] {
  return [...map].sort(([a], [b]) => a - b)
}
