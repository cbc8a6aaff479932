/**
 * Folds what the repository holds beyond what the catalog reflects: after a crash, for a new catalog, or for a reader
 * beside a dead collector.
 *
 * Invariant: whatever whole frames exist are folded, in order; what is damaged is reported once, with its place, and
 * stepped over. It prevents one bad sector from hiding the history behind it.
 */
import { setImmediate, setTimeout } from 'node:timers/promises'
import { type HybridTime, millisecondsOf } from '../shared/clock.ts'
import { digestOf } from '../shared/digest.ts'
import { reasonOf } from '../shared/errors.ts'
import type { Label } from '../shared/path.ts'
import { type ChainEnd, decodeRecord, type JournalRecord } from '../shared/record.ts'
import type { Catalog, Damage, Operation, Reflected } from './catalog.ts'
import { CatalogBatch } from './catalog-batch.ts'
import { keys, ranges } from './catalog-keys.ts'
import { readChunkPlace } from './catalog-values.ts'
import { retiredPacks } from './ledger-view.ts'
import type { FoundFrame } from './repository/frame-file.ts'
import { decodeLedgerEntry } from './repository/ledger-entry.ts'
import { decodeRecordGroup } from './repository/record-group.ts'
import type { ReadPosition, Repository } from './repository/repository.ts'
import { framesFrom, isUnreadable, retiredBy } from './tail.ts'

export interface ReplayResult {
  readonly chunks: number
  readonly records: number
  readonly damage: readonly Damage[]
}

export interface ReplayOptions {
  /** Up to there; without, all that stands there when this is called. */
  readonly until?: Reflected
  /** Packs that are retired, where that is known; without, the ledger is asked. */
  readonly retired?: ReadonlySet<number>
  readonly onProgress?: ((records: number) => void) | undefined
  /** Longer than to let everything else have its turn: the pause between two slices of work, in ms. */
  readonly pauseMs?: number | undefined
  /** Ends it before its time, with everything written up to where the catalog says. */
  readonly signal?: AbortSignal
}

/** Operations gathered before a write. More are held longer, and no faster. */
const BATCH_OPERATIONS = 4096
/** The event loop is let go at least this often. */
const SLICE_MS = 20

/** @throws io, space */
export async function replay(repository: Repository, catalog: Catalog, options: ReplayOptions = {}): Promise<ReplayResult> {
  const { onProgress, signal } = options
  const damage: Damage[] = []
  let noted = 0
  const start = catalog.reflected()
  // While a collector writes: what stands in the segments by now names only chunks that stand in the packs.
  const until = options.until?.segments ?? endOfSegments(repository)
  let packs = start.packs
  let segments = start.segments
  let chunks = 0
  let records = 0
  let batch = new CatalogBatch(catalog)
  let pending = 0
  const flush = async (): Promise<void> => {
    // Who is killed behind it goes on behind it, and meets the damage no more.
    for (; noted < damage.length; noted++) batch.addDamage(damage[noted] as Damage)
    if (pending === 0 && batch.isEmpty) return
    await batch.write({ packs, segments })
    batch = new CatalogBatch(catalog)
    pending = 0
  }
  let sliceMs = performance.now()
  /** @returns whether it is to go on */
  const pause = async (): Promise<boolean> => {
    if (batch.size >= BATCH_OPERATIONS) await flush()
    if (performance.now() - sliceMs >= SLICE_MS) {
      await (options.pauseMs === undefined ? setImmediate() : setTimeout(options.pauseMs))
      sliceMs = performance.now()
    }
    return signal?.aborted !== true
  }

  const retired = options.retired ?? (await retiredBy(repository, catalog, until))
  for (const step of framesFrom(repository, 'pack', start.packs, damage, { until: options.until?.packs, retired })) {
    if (step.frame?.type === 'chunk') {
      const { digest, offset, storedLength, plainLength } = step.frame
      // One that stands twice was sent again after a failed commit, or stored again because its first frame is damaged.
      batch.addChunk(digest, { file: step.next.file, offset, storedLength, plainLength })
      pending += 1
      chunks += 1
    }
    packs = step.next
    if (!(await pause())) break
  }
  for (const step of framesFrom(repository, 'segment', start.segments, damage, { until })) {
    if (signal?.aborted === true) break
    if (step.frame?.type === 'records') {
      const added = await addGroup(repository, batch, step.next.file, step.frame, damage)
      records += added
      pending += added
      onProgress?.(records)
    }
    if (step.frame?.type === 'ledger') {
      await addLedger(repository, batch, step.next.file, step.frame, damage)
      pending += 1
    }
    segments = step.next
    if (!(await pause())) break
  }
  pending += 1
  await flush()
  if (signal?.aborted !== true && catalog.get(keys.retiring) !== undefined) await dropRetired(catalog)
  return { chunks, records, damage }
}

function endOfSegments(repository: Repository): ReadPosition {
  const file = repository.numbers('segment').at(-1) ?? 0
  return { file, offset: repository.sizeOf('segment', file) }
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
    if (!isUnreadable(error)) throw error
    damage.push({ file: file.path, offset: frame.offset, reason: reasonOf(error) })
  }
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
    if (!isUnreadable(error)) throw error
    damage.push({ file: file.path, offset: frame.offset, reason: reasonOf(error) })
  }
  return added
}
