/**
 * What stands in the repository behind a place: every whole frame, in order, each with the place behind it.
 *
 * Invariant: what is damaged is reported once, with its place, and stepped over; what was never made durable, because the disk failed
 * under it, is not read. It prevents one bad sector from hiding the history behind it.
 */
import { PacsimileError } from '../shared/errors.ts'
import type { Catalog, Damage, Reflected } from './catalog.ts'
import { retiredPacks } from './ledger-view.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { FRAME_OVERHEAD_BYTES } from './repository/frame.ts'
import type { FoundFrame } from './repository/frame-file.ts'
import { decodeLedgerEntry, type LedgerEntry } from './repository/ledger-entry.ts'
import type { ReadPosition, Repository } from './repository/repository.ts'

export interface TailOptions {
  /** Nothing that begins there or behind it. */
  readonly until?: ReadPosition | undefined
  /** Packs from which nothing is to be read. */
  readonly retired?: ReadonlySet<number>
}

export interface TailStep {
  /** Undefined where a file ends. */
  readonly frame: FoundFrame | undefined
  readonly next: ReadPosition
}

/** Up to where everything is durable. */
export function endsOf(repository: Repository): Reflected {
  return { packs: repository.end('pack'), segments: repository.end('segment') }
}

/** The frames of a kind of file from a place on, each with the place behind it; what is damaged is added to `damage`. @throws io */
export function* framesFrom(
  repository: Repository,
  kind: FrameFileKind,
  start: ReadPosition,
  damage: Damage[],
  { until, retired }: TailOptions,
): Generator<TailStep> {
  const numbers = repository.numbers(kind).filter((number) => number >= start.file && (until === undefined || number <= until.file))
  for (const number of numbers) {
    const from = number === start.file ? start.offset : 0
    const isLast = number === numbers.at(-1)
    let next: ReadPosition = { file: number, offset: from }
    if (retired?.has(number) === true) {
      yield { frame: undefined, next: isLast ? next : { file: number + 1, offset: 0 } }
      continue
    }
    try {
      const file = repository.file(kind, number)
      const sealed = from === 0 ? file.sealedIndex() : undefined
      // The index does not list what of the ledger is in a segment.
      if (sealed !== undefined && kind === 'pack') {
        for (const frame of sealed) yield { frame, next }
        next = { file: number + 1, offset: 0 }
      } else {
        if (file.size < from)
          damage.push({ file: file.path, offset: file.size, reason: `it ends here, but was durable up to byte ${from}` })
        const extent = repository.extentOf(kind, number)
        const durable = extent?.state === 'ended' ? extent.bytes : Number.POSITIVE_INFINITY
        const end = number === until?.file ? Math.min(until.offset, durable) : durable
        // Without an index nothing vouches for a body but itself.
        for (const found of file.scan({ bodies: sealed === undefined, ...(from === 0 ? {} : { start: from }) })) {
          if (found.offset >= end) break
          if (found.kind === 'damage') {
            // Nothing whole follows: an append that a crash or a full disk cut short, before anything of it was acknowledged.
            if (!found.tail) damage.push({ file: file.path, offset: found.offset, reason: found.reason })
            continue
          }
          next =
            found.type === 'index'
              ? { file: number + 1, offset: 0 }
              : { file: number, offset: found.offset + FRAME_OVERHEAD_BYTES + found.storedLength }
          yield { frame: found, next: { file: number, offset: next.offset } }
        }
      }
    } catch (error) {
      if (!(error instanceof PacsimileError) || error.code !== 'damage') throw error
      damage.push({ file: repository.pathOf(kind, number), offset: 0, reason: error.message })
      next = { file: number, offset: from }
    }
    yield { frame: undefined, next: isLast ? next : { file: number + 1, offset: 0 } }
  }
}

/** The entries of the ledger from a place on that can be read; whatever is damaged there is told by who folds it. @throws io */
function* ledgerFrom(repository: Repository, start: ReadPosition, until: ReadPosition): Generator<LedgerEntry> {
  for (const { frame, next } of framesFrom(repository, 'segment', start, [], { until })) {
    if (frame?.type !== 'ledger') continue
    try {
      yield decodeLedgerEntry(repository.file('segment', next.file).read(frame.offset, frame.storedLength, frame.digest))
    } catch (error) {
      if (!isUnreadable(error)) throw error
    }
  }
}

/** The packs from which nothing is to be read, by the catalog and by what of the ledger is not folded yet. @throws io */
export async function retiredBy(repository: Repository, catalog: Catalog, until: ReadPosition): Promise<Set<number>> {
  const retired = new Set((await retiredPacks(catalog)).keys())
  for (const { body } of ledgerFrom(repository, catalog.reflected().segments, until))
    if (body.kind === 'retired') for (const pack of body.packs) retired.add(pack)
  return retired
}

/** Whether what was read is not as it was written. */
export function isUnreadable(error: unknown): error is PacsimileError {
  return error instanceof PacsimileError && (error.code === 'damage' || error.code === 'format-invalid')
}
