/**
 * Folds what the repository holds beyond what the catalog reflects: after a crash, for a new catalog, or for a reader
 * beside a dead collector.
 *
 * Invariant: whatever whole frames exist are folded, in order; what is damaged is reported once, with its place, and
 * stepped over. It prevents one bad sector from hiding the history behind it.
 */

import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { digestOf } from '../shared/digest.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { type ChainEnd, decodeRecord, type JournalRecord } from '../shared/record.ts'
import type { Catalog, Damage, Operation } from './catalog.ts'
import { CatalogBatch } from './catalog-batch.ts'
import { keys, ranges } from './catalog-keys.ts'
import { readChunkPlace } from './catalog-values.ts'
import { retiredPacks } from './ledger-view.ts'
import type { FrameFileKind } from './repository/file-header.ts'
import { FRAME_OVERHEAD_BYTES } from './repository/frame.ts'
import type { FoundFrame } from './repository/frame-file.ts'
import { decodeLedgerEntry } from './repository/ledger-entry.ts'
import { decodeRecordGroup } from './repository/record-group.ts'
import { type ReadPosition, type Repository } from './repository/repository.ts'

export interface ReplayResult {
  readonly chunks: number
  readonly records: number
  readonly damage: readonly Damage[]
}

/** Operations gathered before a write. More are held longer, and no faster. */
const BATCH_OPERATIONS = 4096

export async function replay(repository: Repository, catalog: Catalog, onProgress?: (records: number) => void): Promise<ReplayResult> {
  const damage: Damage[] = []
  const start = catalog.reflected()
  // While a collector writes: what stands in the segments by now names only chunks that stand in the packs.
  const until = endOfSegments(repository)
  let packs = start.packs
  let segments = start.segments
  let chunks = 0
  let records = 0
  let batch = new CatalogBatch(catalog)
  let pending = 0
  const flush = async (): Promise<void> => {
    if (pending === 0 && batch.isEmpty) return
    await batch.write({ packs, segments })
    batch = new CatalogBatch(catalog)
    pending = 0
  }

  const retired = await retiredBy(repository, catalog, start.segments, until)
  for (const step of frames(repository, 'pack', start.packs, damage, { retired })) {
    if (step.frame?.type === 'chunk') {
      const { digest, offset, storedLength, plainLength } = step.frame
      // One that stands twice was sent again after a failed commit, or stored again because its first frame is damaged.
      batch.addChunk(digest, { file: step.next.file, offset, storedLength, plainLength })
      pending += 1
      chunks += 1
    }
    packs = step.next
    if (batch.size >= BATCH_OPERATIONS) await flush()
  }
  for (const step of frames(repository, 'segment', start.segments, damage, { until })) {
    if (step.frame?.type === 'records') {
      const added = await addGroup(repository, batch, step.next.file, step.frame, damage)
      records += added
      pending += added
    }
    if (step.frame?.type === 'ledger') {
      await addLedger(repository, batch, step.next.file, step.frame, damage)
      pending += 1
    }
    segments = step.next
    if (batch.size >= BATCH_OPERATIONS) {
      await flush()
      onProgress?.(records)
    }
  }
  for (const found of damage) batch.addDamage(found)
  pending += 1
  await flush()
  if (catalog.get(keys.retiring) !== undefined) await dropRetired(catalog)
  return { chunks, records, damage }
}

function endOfSegments(repository: Repository): ReadPosition {
  const file = repository.numbers('segment').at(-1) ?? 0
  return { file, offset: repository.sizeOf('segment', file) }
}

/** The frames of a kind of file from a place on, each with the place behind it. */
function* frames(
  repository: Repository,
  kind: FrameFileKind,
  start: ReadPosition,
  damage: Damage[],
  { until, retired }: { readonly until?: ReadPosition; readonly retired?: ReadonlySet<number> },
): Generator<{ frame: FoundFrame | undefined; next: ReadPosition }> {
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
        // Without an index nothing vouches for a body but itself.
        for (const found of file.scan({ bodies: sealed === undefined, ...(from === 0 ? {} : { start: from }) })) {
          if (number === until?.file && found.offset >= until.offset) break
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

async function addLedger(
  repository: Repository,
  batch: CatalogBatch,
  fileNumber: number,
  frame: FoundFrame,
  damage: Damage[],
): Promise<void> {
  const file = repository.file('segment', fileNumber)
  try {
    const encoded = file.read(frame.offset, frame.storedLength, frame.digest)
    const entry = decodeLedgerEntry(encoded)
    if (digestOf(encoded) === batch.ledgerEnd.hash) return
    const broken = await batch.addLedgerEntry(entry, encoded)
    if (broken !== undefined) damage.push({ file: file.path, offset: frame.offset, reason: broken })
    if (entry.body.kind === 'retired') batch.noteRetiring()
  } catch (error) {
    if (!(error instanceof PacsimileError) || (error.code !== 'damage' && error.code !== 'format-invalid')) throw error
    damage.push({ file: file.path, offset: frame.offset, reason: reasonOf(error) })
  }
}

/** The packs from which nothing is to be read, by the catalog and by what of the ledger is not folded yet. */
async function retiredBy(repository: Repository, catalog: Catalog, start: ReadPosition, until: ReadPosition): Promise<ReadonlySet<number>> {
  const retired = new Set((await retiredPacks(catalog)).keys())
  // Whatever is damaged there is met again, and told, when it is folded.
  for (const { frame, next } of frames(repository, 'segment', start, [], { until })) {
    if (frame?.type !== 'ledger') continue
    try {
      const { body } = decodeLedgerEntry(repository.file('segment', next.file).read(frame.offset, frame.storedLength, frame.digest))
      if (body.kind === 'retired') for (const pack of body.packs) retired.add(pack)
    } catch (error) {
      if (!(error instanceof PacsimileError) || (error.code !== 'damage' && error.code !== 'format-invalid')) throw error
    }
  }
  return retired
}

/** What was folded from packs before they were retired. */
async function dropRetired(catalog: Catalog): Promise<void> {
  const retired = await retiredPacks(catalog)
  let operations: Operation[] = []
  for await (const [key, value] of catalog.entries(ranges.chunks)) {
    if (retired.has(readChunkPlace(value).file)) operations.push({ type: 'del', key })
    if (operations.length < BATCH_OPERATIONS) continue
    await catalog.write(operations)
    operations = []
  }
  await catalog.write([...operations, { type: 'del', key: keys.retiring }])
}

/** Which records are missing before this one, and of which time. */
function interruption(agent: Label, end: ChainEnd | undefined, record: JournalRecord, broken: string): string {
  const showTime = (time: HybridTime): string => new Date(millisecondsOf(time)).toISOString()
  if (end === undefined || end.epoch !== record.epoch || record.seq <= end.seq + 1)
    return `the history of agent ${agent} is broken before ${record.epoch}:${record.seq} (${showTime(record.time)}): ${broken}`
  return `the records ${end.epoch}:${end.seq + 1} to ${record.epoch}:${record.seq - 1} of agent ${agent}, made between ${showTime(end.time)} and ${showTime(record.time)}, cannot be read`
}

async function addGroup(
  repository: Repository,
  batch: CatalogBatch,
  fileNumber: number,
  frame: FoundFrame,
  damage: Damage[],
): Promise<number> {
  const file = repository.file('segment', fileNumber)
  let added = 0
  try {
    const { agent, records } = decodeRecordGroup(file.read(frame.offset, frame.storedLength, frame.digest))
    for (const encoded of records) {
      const record = decodeRecord(encoded)
      const end = batch.chainEnd(agent)
      // Written before a crash or a failed disk and sent again since: known already.
      if (end !== undefined && (record.epoch < end.epoch || (record.epoch === end.epoch && record.seq <= end.seq))) continue
      const broken = batch.break(agent, record)
      if (broken !== undefined) damage.push({ file: file.path, offset: frame.offset, reason: interruption(agent, end, record, broken) })
      await batch.addRecord(agent, record, encoded, true)
      added += 1
    }
  } catch (error) {
    if (!(error instanceof PacsimileError) || (error.code !== 'damage' && error.code !== 'format-invalid')) throw error
    damage.push({ file: file.path, offset: frame.offset, reason: reasonOf(error) })
  }
  return added
}
