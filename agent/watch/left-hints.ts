/**
 * What an earlier life of this agent left in the log of hints (hint-log.ts), for the life that begins.
 *
 * Invariant: it is read before the thread begins that goes on writing the log. It prevents what one life left from being taken for the other's.
 */
import { lstatSync, readSync, writeSync } from 'node:fs'
import { z } from 'zod'
import type { ByteString } from '../../shared/bytes.ts'
import { PINS_OPEN_MAX } from '../../shared/limits.ts'
import { pathBuffer } from '../../shared/path.ts'
import {
  AT,
  clearSlot,
  DATA,
  EVENT_METADATA_BYTES,
  type LeftPin,
  MAGIC,
  PAGE,
  positionsOf,
  SLOT_BYTES,
  SLOT_HEADER_BYTES,
  VERSION,
  type Verified,
} from './hint-log.ts'
import type { Loss } from './watcher.ts'

const VERIFIED = z.array(z.tuple([z.string(), z.array(z.object({ sinceMs: z.number(), cause: z.string() }))]))
const EVENT_VERSION = 3

/** What an earlier life left. */
export interface LeftHints {
  readonly verified: Verified
  readonly pins: readonly LeftPin[]
  /** It died while it read versions: some may have been lost that are not in `pins`. ms since 1970. */
  readonly readingPinsSinceMs: number | undefined
}

/** What an earlier life left in it, which is then cleared but for the events; undefined where it is not one of ours. */
export function inspectHints(fd: number): LeftHints | undefined {
  const header = Buffer.alloc(PAGE)
  if (readSync(fd, header, 0, PAGE, 0) < PAGE || !header.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  if (header.readUInt32LE(AT.version) !== VERSION) return undefined
  const { base, head } = positionsOf(header)
  const end = Buffer.alloc(8)
  end.writeBigUInt64LE(BigInt(base + endOfEvents(fd, head - base)))
  writeSync(fd, end, 0, 8, AT.head)
  const since = header.readUInt32LE(AT.reading)
  const left = { verified: volumesOf(header), pins: leftPins(fd), readingPinsSinceMs: since === 0 ? undefined : since * 1000 }
  for (let slot = 0; slot < PINS_OPEN_MAX; slot++) clearSlot(fd, slot)
  writeSync(fd, Buffer.alloc(4), 0, 4, AT.reading)
  return left
}

function leftPins(fd: number): LeftPin[] {
  const pins: LeftPin[] = []
  const slotBytes = Buffer.alloc(SLOT_BYTES)
  for (let slot = 0; slot < PINS_OPEN_MAX; slot++) {
    readSync(fd, slotBytes, 0, SLOT_BYTES, PAGE + slot * SLOT_BYTES)
    if (slotBytes.readUInt32LE(0) !== 1) continue
    const length = Math.min(slotBytes.readUInt32LE(4), SLOT_BYTES - SLOT_HEADER_BYTES)
    const path = slotBytes.toString('latin1', SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + length)
    pins.push({ path, inode: slotBytes.readBigUInt64LE(8), ms: Number(slotBytes.readBigUInt64LE(16)) })
  }
  return pins
}

function volumesOf(header: Buffer): Verified {
  const length = header.readUInt32LE(AT.volumesLength)
  if (length === 0 || AT.volumes + length > PAGE) return new Map()
  return new Map(VERIFIED.parse(JSON.parse(header.toString('utf8', AT.volumes, AT.volumes + length))))
}

/** The kernel may have written events whose number the killed process did not note any more. */
function endOfEvents(fd: number, head: number): number {
  const metadata = Buffer.alloc(EVENT_METADATA_BYTES)
  for (let at = head; ; ) {
    if (readSync(fd, metadata, 0, EVENT_METADATA_BYTES, DATA + at) < EVENT_METADATA_BYTES) return at
    const length = metadata.readUInt32LE(0)
    if (length < EVENT_METADATA_BYTES || metadata[4] !== EVENT_VERSION) return at
    at += length
  }
}

/** What the life before did not record of losses, and what became of the versions that were in its hands. */
export function lossesLeft(left: LeftHints, volume: string, directory: string): Loss[] {
  const losses = [...(left.verified.get(volume) ?? [])]
  const below = `${Buffer.from(directory).toString('latin1')}/`
  const lost = left.pins.filter(({ path, inode }) => path.startsWith(below) && inodeAt(path) !== inode)
  if (lost.length > 0) {
    const cause = `the agent was ended while it captured ${lost.length} files that have since been replaced or deleted`
    losses.push({ sinceMs: Math.min(...lost.map(({ ms }) => ms)), cause })
  }
  const sinceMs = left.readingPinsSinceMs
  if (sinceMs !== undefined) losses.push({ sinceMs, cause: 'the agent was ended while it took over closed files' })
  return losses
}

function inodeAt(path: ByteString): bigint | undefined {
  try {
    return lstatSync(pathBuffer(path), { bigint: true, throwIfNoEntry: false })?.ino
  } catch {
    // A directory above it is gone or is none any more.
    return undefined
  }
}
