/** What the catalog holds of the ledger, as those need it who decide what may go. */
import { ByteReader } from '../shared/bytes.ts'
import type { Label } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'
import type { AccessEnd } from './access-chain.ts'
import type { Catalog } from './catalog.ts'
import { keys, ranges, readPosition } from './catalog-keys.ts'
import { readLedgerEnd } from './catalog-values.ts'
import { decodeHold, decodeLedgerEntry, type Hold, LEDGER_START, type LedgerEnd, type LedgerEntry } from './repository/ledger-entry.ts'

export interface Retirement {
  /** Numbers of entries; `deletedBy` 0: it may be there still. */
  readonly retiredBy: number
  readonly deletedBy: number
}

/** What an agent had sent by an entry of the ledger. */
export interface HeadAt {
  readonly number: number
  readonly position: Position
}

export function endOfLedger(catalog: Catalog): LedgerEnd {
  const value = catalog.get(keys.ledgerEnd)
  return value === undefined ? LEDGER_START : readLedgerEnd(value)
}

/** Every entry, without its lists, from the first one. */
export async function* ledgerEntries(catalog: Catalog): AsyncGenerator<LedgerEntry> {
  for await (const [, value] of catalog.entries(ranges.ledger)) yield decodeLedgerEntry(value)
}

/** What the ledger says of the access log, oldest first. */
export async function accessAnchors(catalog: Catalog): Promise<AccessEnd[]> {
  const found: AccessEnd[] = []
  for await (const { body } of ledgerEntries(catalog))
    if (body.kind === 'access') found.push({ day: body.day, bytes: body.bytes, hash: body.hash })
  return found
}

/** The newest checkpoints, oldest first. */
export async function checkpointsOf(catalog: Catalog): Promise<LedgerEntry[]> {
  const found: LedgerEntry[] = []
  for await (const [, value] of catalog.entries(ranges.checkpoints)) found.push(decodeLedgerEntry(value))
  return found
}

/**
 * Why the catalog may lack a part of what the repository was given, and with it what would be needed, held or kept; empty
 * where nothing is known.
 */
export async function gapsInCatalog(catalog: Catalog): Promise<string[]> {
  const found = (await catalog.damage()).map(({ file, offset, reason }) => `${file} at byte ${offset}: ${reason}`)
  for await (const [, value] of catalog.entries(ranges.ledgerBreaks)) found.push(`the ledger is broken: ${value.toString('utf8')}`)
  for await (const _ of catalog.entries(ranges.interruptions, { limit: 1 }))
    found.push('records of an agent could not be read when the catalog was made')
  return found
}

export async function holdsOf(catalog: Catalog): Promise<Hold[]> {
  const found: Hold[] = []
  for await (const [, value] of catalog.entries(ranges.holds)) found.push(decodeHold(new ByteReader(value, 'Hold')))
  return found
}

/** Rising; only where it had changed. */
export async function headsAt(catalog: Catalog, agent: Label): Promise<HeadAt[]> {
  const found: HeadAt[] = []
  for await (const [key, value] of catalog.entries(ranges.headsAt(agent)))
    found.push({ number: Number(key.readBigUInt64BE(key.length - 8)), position: readPosition(value) })
  return found
}

export async function lastHeadAt(catalog: Catalog, agent: Label): Promise<Position | undefined> {
  for await (const [, value] of catalog.entries(ranges.headsAt(agent), { reverse: true, limit: 1 })) return readPosition(value)
  return undefined
}

export function retirementOf(catalog: Catalog, pack: number): Retirement | undefined {
  const value = catalog.get(keys.retiredPack(pack))
  return value === undefined ? undefined : readRetirement(value)
}

export async function retiredPacks(catalog: Catalog): Promise<Map<number, Retirement>> {
  const found = new Map<number, Retirement>()
  for await (const [key, value] of catalog.entries(ranges.retiredPacks)) found.set(Number(key.readBigUInt64BE(1)), readRetirement(value))
  return found
}

function readRetirement(value: Buffer): Retirement {
  const from = new ByteReader(value, 'Retired pack')
  return { retiredBy: from.u64(), deletedBy: from.u64() }
}
