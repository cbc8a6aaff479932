/**
 * The catalog's key layout, in one place (docs/format.md, "Catalog"). Keys sort as bytes; numbers are big-endian in keys.
 *
 *     v AGENT 00 VOLUME 00 PATHKEY 00 00 EPOCH SEQ   version of a path (or its end) made by that record
 *     h AGENT 00 VOLUME 00 PATHKEY                   epoch and seq of the path's newest version, while it exists
 *     s AGENT 00 EPOCH SEQ                           the record's time, and the record without its version
 *     e AGENT 00 EPOCH                               time of the epoch's first record
 *     a AGENT 00                                     end of the agent's chain
 *     w AGENT 00 VOLUME 00                           the volume: root, mode, first time
 *     o AGENT 00 VOLUME 00 TIME                      coverage that begins then
 *     g AGENT 00 VOLUME 00 TIME EPOCH SEQ            gap that begins then, declared by that record
 *     f AGENT 00 VOLUME 00 TIME EPOCH SEQ            mark that was set then, by that record
 *     l AGENT 00 EPOCH SEQ                           the version of that record has no content
 *     i AGENT 00 VOLUME 00 INODE PATHKEY             a path that was put with that inode and more than one link (may be stale)
 *     x AGENT 00 EPOCH SEQ                           records before this one could not be read when it was folded in
 *     d FILE 00 OFFSET                               damage that was met in the repository
 *     c DIGEST                                       where a chunk is
 *     y AGENT 00 EPOCH SEQ                           the content of what that record put has expired
 *     t AGENT 00 NUMBER                              the end of the agent's chain at that entry of the ledger, where it was another one before
 *     k NUMBER                                       an entry of the ledger, without its lists
 *     b NUMBER                                       an entry of the ledger that does not continue it
 *     u NUMBER                                       one of the two newest checkpoints, whole
 *     n NAME                                         a hold
 *     r PACK                                         a pack from which nothing is to be read: by which entries it was retired and deleted
 *     j                                              end of the ledger
 *     q                                              places in retired packs are still to be removed
 *     m                                              how far packs and segments are reflected here
 *
 * PATHKEY joins names by NUL, so that byte order is a depth-first walk and everything below a path is one range.
 */
import type { ByteString } from '../shared/bytes.ts'
import { type HybridTime, hybridTime } from '../shared/clock.ts'
import type { Digest } from '../shared/digest.ts'
import { NAME_BYTES_MAX } from '../shared/limits.ts'
import { type Label, pathFromKey, pathKey, type RelativePath } from '../shared/path.ts'
import type { Position } from '../shared/record.ts'

export const POSITION_BYTES = 16

export function positionBytes(position: Position): ByteString {
  const bytes = Buffer.allocUnsafe(POSITION_BYTES)
  bytes.writeBigUInt64BE(BigInt(position.epoch), 0)
  bytes.writeBigUInt64BE(BigInt(position.seq), 8)
  return bytes.toString('latin1')
}

export function readPosition(bytes: Buffer, at = 0): Position {
  return { epoch: readNumber(bytes, at), seq: readNumber(bytes, at + 8) }
}

function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4)
}

function timeBytes(time: HybridTime): ByteString {
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeBigUInt64BE(time, 0)
  return bytes.toString('latin1')
}

function numberBytes(number: number): ByteString {
  return timeBytes(BigInt(number) as HybridTime)
}

function key(text: ByteString): Buffer {
  return Buffer.from(text, 'latin1')
}

function inodeBytes(inode: bigint): ByteString {
  return timeBytes(inode as HybridTime)
}

/** From the first to before the second key. */
export interface KeyRange {
  readonly gte: Buffer
  readonly lt: Buffer
}

function prefixRange(prefix: ByteString): KeyRange {
  // No prefix ends in 0xff: all end in NUL or a letter.
  return { gte: key(prefix), lt: key(prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)) }
}

const volumePrefix = (kind: string, agent: Label, volume: Label): ByteString => `${kind}${agent}\0${volume}\0`

export const keys = {
  version: (agent: Label, volume: Label, path: RelativePath, position: Position): Buffer =>
    key(`${volumePrefix('v', agent, volume)}${pathKey(path)}\0\0${positionBytes(position)}`),
  newest: (agent: Label, volume: Label, path: RelativePath): Buffer => key(`${volumePrefix('h', agent, volume)}${pathKey(path)}`),
  summary: (agent: Label, position: Position): Buffer => key(`s${agent}\0${positionBytes(position)}`),
  epoch: (agent: Label, epoch: number): Buffer => key(`e${agent}\0${positionBytes({ epoch, seq: 0 })}`),
  agent: (agent: Label): Buffer => key(`a${agent}\0`),
  volume: (agent: Label, volume: Label): Buffer => key(volumePrefix('w', agent, volume)),
  coverage: (agent: Label, volume: Label, from: HybridTime): Buffer => key(volumePrefix('o', agent, volume) + timeBytes(from)),
  gap: (agent: Label, volume: Label, from: HybridTime, position: Position): Buffer =>
    key(volumePrefix('g', agent, volume) + timeBytes(from) + positionBytes(position)),
  mark: (agent: Label, volume: Label, time: HybridTime, position: Position): Buffer =>
    key(volumePrefix('f', agent, volume) + timeBytes(time) + positionBytes(position)),
  lost: (agent: Label, position: Position): Buffer => key(`l${agent}\0${positionBytes(position)}`),
  linked: (agent: Label, volume: Label, inode: bigint, path: RelativePath): Buffer =>
    key(`${volumePrefix('i', agent, volume)}${inodeBytes(inode)}${pathKey(path)}`),
  interruption: (agent: Label, position: Position): Buffer => key(`x${agent}\0${positionBytes(position)}`),
  damage: (file: string, offset: number): Buffer =>
    Buffer.concat([Buffer.from(`d${file}\0`, 'utf8'), key(positionBytes({ epoch: 0, seq: offset }))]),
  chunk: (name: Digest): Buffer => key(`c${name}`),
  expired: (agent: Label, position: Position): Buffer => key(`y${agent}\0${positionBytes(position)}`),
  headAt: (agent: Label, number: number): Buffer => key(`t${agent}\0${numberBytes(number)}`),
  ledgerEntry: (number: number): Buffer => key(`k${numberBytes(number)}`),
  hold: (name: Label): Buffer => key(`n${name}`),
  retiredPack: (pack: number): Buffer => key(`r${numberBytes(pack)}`),
  ledgerEnd: key('j'),
  retiring: key('q'),
  ledgerBreak: (number: number): Buffer => key(`b${numberBytes(number)}`),
  checkpoint: (number: number): Buffer => key(`u${numberBytes(number)}`),
  reflected: key('m'),
} as const

export const ranges = {
  agents: prefixRange('a'),
  damage: prefixRange('d'),
  chunks: prefixRange('c'),
  allSummaries: (agent: Label): KeyRange => prefixRange(`s${agent}\0`),
  lost: (agent: Label): KeyRange => prefixRange(`l${agent}\0`),
  expired: (agent: Label): KeyRange => prefixRange(`y${agent}\0`),
  headsAt: (agent: Label): KeyRange => prefixRange(`t${agent}\0`),
  ledger: prefixRange('k'),
  ledgerBreaks: prefixRange('b'),
  checkpoints: prefixRange('u'),
  interruptions: prefixRange('x'),
  holds: prefixRange('n'),
  retiredPacks: prefixRange('r'),
  epochs: (agent: Label): KeyRange => prefixRange(`e${agent}\0`),
  volumes: (agent: Label): KeyRange => prefixRange(`w${agent}\0`),
  coverage: (agent: Label, volume: Label): KeyRange => prefixRange(volumePrefix('o', agent, volume)),
  gaps: (agent: Label, volume: Label): KeyRange => prefixRange(volumePrefix('g', agent, volume)),
  marks: (agent: Label, volume: Label): KeyRange => prefixRange(volumePrefix('f', agent, volume)),
  linked: (agent: Label, volume: Label, inode: bigint): KeyRange => {
    const prefix = `${volumePrefix('i', agent, volume)}${inodeBytes(inode)}`
    // No name is as long as that, so no path sorts behind it.
    return { gte: key(prefix), lt: Buffer.concat([key(prefix), Buffer.alloc(NAME_BYTES_MAX + 1, 0xff)]) }
  },
  /** Summaries after one position, up to and with another. */
  summaries: (agent: Label, after: Position, until: Position): KeyRange => ({
    gte: keys.summary(agent, { epoch: after.epoch, seq: after.seq + 1 }),
    lt: keys.summary(agent, { epoch: until.epoch, seq: until.seq + 1 }),
  }),
  /** All versions of one path. */
  versionsOf: (agent: Label, volume: Label, path: RelativePath): KeyRange =>
    prefixRange(`${volumePrefix('v', agent, volume)}${pathKey(path)}\0\0`),
  /** What exists now strictly below a path, and all versions strictly below it. */
  newestBelow: (agent: Label, volume: Label, path: RelativePath): KeyRange => below('h', agent, volume, path),
  versionsBelow: (agent: Label, volume: Label, path: RelativePath): KeyRange => below('v', agent, volume, path),
} as const

function below(kind: string, agent: Label, volume: Label, path: RelativePath): KeyRange {
  const prefix = volumePrefix(kind, agent, volume)
  // Below the root: every key whose next byte begins a name, that is, is not NUL.
  if (path === '') return { gte: key(`${prefix}\x01`), lt: prefixRange(prefix).lt }
  return { gte: key(`${prefix}${pathKey(path)}\0\x01`), lt: key(`${prefix}${pathKey(path)}\x01`) }
}

/** Path and position of a version key of the given volume. */
export function readVersionKey(bytes: Buffer, agent: Label, volume: Label): { path: RelativePath; position: Position } {
  const start = agent.length + volume.length + 3
  const end = bytes.length - POSITION_BYTES - 2
  return { path: pathFromKey(bytes.toString('latin1', start, end)), position: readPosition(bytes, bytes.length - POSITION_BYTES) }
}

/** Time and position of a mark. */
export function readMarkKey(bytes: Buffer): { time: HybridTime; position: Position } {
  const at = bytes.length - POSITION_BYTES
  return { time: hybridTime(bytes.readBigUInt64BE(at - 8)), position: readPosition(bytes, at) }
}

/** Path of a newest key of the given volume. */
export function readNewestKey(bytes: Buffer, agent: Label, volume: Label): RelativePath {
  return pathFromKey(bytes.toString('latin1', agent.length + volume.length + 3))
}
