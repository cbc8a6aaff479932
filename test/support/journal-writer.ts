/**
 * Writes an agent's journal in memory: records with a right chain, and the chunks that they name.
 *
 * What an agent sends, without an agent: for tests of the collector.
 */
import { randomBytes } from 'node:crypto'
import { HybridClock, type HybridTime, systemClock } from '../../shared/clock.ts'
import { type Digest, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { type Label, label, type RelativePath, ROOT } from '../../shared/path.ts'
import {
  type ChainEnd,
  type Change,
  chainStart,
  type EpochReason,
  encodeRecord,
  type JournalRecord,
  recordHash,
} from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { ChunkRef, FileVersion, PlainVersion, SymlinkVersion } from '../../shared/version.ts'
import type { Message } from '../../shared/wire.ts'

export const VOLUME = label('images', 'Volume')

export interface WrittenRecord {
  readonly record: JournalRecord
  readonly bytes: Buffer
}

let inodes = 1000n

const METADATA = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, ctimeNs: 0n, links: 1, xattrs: [] }

export function directoryVersion(change: Partial<PlainVersion> = {}): PlainVersion {
  return { kind: 'directory', ...METADATA, mode: 0o755, mtimeNs: 1_700_000_000_000_000_001n, inode: inodes++, ...change }
}

export function symlinkVersion(target: string): SymlinkVersion {
  return { kind: 'symlink', ...METADATA, mode: 0o777, mtimeNs: 1_700_000_000_000_000_003n, inode: inodes++, target }
}

export class JournalWriter {
  readonly agent: Label
  readonly written: WrittenRecord[] = []
  readonly chunks = new Map<Digest, Buffer>()
  readonly #clock: HybridClock
  #end: ChainEnd

  constructor({ agent = 'pacs1', epoch = 1, clock = new HybridClock(systemClock) } = {}) {
    this.agent = label(agent, 'Agent')
    this.#clock = clock
    this.#end = chainStart(epoch)
    this.append({
      kind: 'epoch',
      agent: this.agent,
      reason: 'first',
      previousEpoch: 0,
      previousHash: NO_DIGEST,
      nonce: randomBytes(16).toString('latin1'),
    })
    this.append({ kind: 'volume', volume: VOLUME, root: '/srv/images', mode: 'best-effort' })
    this.put('', directoryVersion())
  }

  get end(): ChainEnd {
    return this.#end
  }

  append(change: Change, time: HybridTime = this.#clock.tick()): WrittenRecord {
    const record: JournalRecord = { ...change, previous: this.#end.hash, epoch: this.#end.epoch, seq: this.#end.seq + 1, time }
    const bytes = encodeRecord(record)
    this.#end = { epoch: record.epoch, seq: record.seq, hash: recordHash(bytes), time }
    const entry = { record, bytes }
    this.written.push(entry)
    return entry
  }

  put(path: string, version: Extract<Change, { kind: 'put' }>['version']): WrittenRecord {
    return this.append({ kind: 'put', volume: VOLUME, path: path as RelativePath, version })
  }

  /** A file whose content is cut into chunks of `chunkBytes`. */
  file(path: string, content: Buffer, change: Partial<FileVersion> = {}, chunkBytes = 1000): WrittenRecord {
    return this.put(path, this.fileVersion(content, change, chunkBytes))
  }

  fileVersion(content: Buffer, change: Partial<FileVersion> = {}, chunkBytes = 1000): FileVersion {
    const chunks: ChunkRef[] = []
    for (let at = 0; at < content.length; at += chunkBytes) {
      const bytes = content.subarray(at, at + chunkBytes)
      const digest = digestOf(bytes)
      this.chunks.set(digest, bytes)
      chunks.push({ digest, length: bytes.length })
    }
    const metadata = { ...METADATA, mode: 0o644, mtimeNs: 1_700_000_000_123_456_789n, inode: inodes++ }
    return { kind: 'file', ...metadata, consistency: 'stable', size: content.length, digest: digestOf(content), chunks, ...change }
  }

  /** A new epoch, with the scan of everything that begins it. */
  beginEpoch(reason: EpochReason): void {
    const tree = new MemoryTree()
    for (const { record } of this.written) tree.apply(record)
    const { epoch, hash } = this.#end
    this.#end = chainStart(epoch + 1)
    const nonce = randomBytes(16).toString('latin1')
    this.append({ kind: 'epoch', agent: this.agent, reason, previousEpoch: epoch, previousHash: hash, nonce })
    this.append({ kind: 'volume', volume: VOLUME, root: '/srv/images', mode: 'best-effort' })
    const since = this.#end.seq + 1
    for (const { path, version } of tree.within(ROOT)) this.put(path, version)
    this.append({ kind: 'sweep', volume: VOLUME, since })
  }

  /** Takes back everything written since `length` records were. */
  undo(length: number): void {
    this.written.length = length
    const last = this.written.at(-1)
    if (last === undefined) throw new Error('the first records stay')
    const { epoch, seq, time } = last.record
    this.#end = { epoch, seq, time, hash: recordHash(last.bytes) }
  }

  remove(path: string): WrittenRecord {
    return this.append({ kind: 'remove', volume: VOLUME, path: path as RelativePath })
  }

  rename(path: string, to: string): WrittenRecord {
    return this.append({ kind: 'rename', volume: VOLUME, path: path as RelativePath, to: to as RelativePath })
  }

  chunkMessage(digest: Digest): Extract<Message, { kind: 'chunk' }> {
    const bytes = this.chunks.get(digest)
    if (bytes === undefined) throw new Error('no such chunk was written')
    return { kind: 'chunk', digest, length: bytes.length, filtered: false, compressed: false, bytes }
  }
}
