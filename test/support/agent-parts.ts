/** Parts of an agent for tests: a journal in a scratch directory, versions and chunks made of a few bytes. */
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { StoredChunk } from '../../agent/capture-thread.ts'
import { Journal } from '../../agent/journal.ts'
import { HybridClock, systemClock, type WallClock } from '../../shared/clock.ts'
import { type Digest, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { silentLog } from '../../shared/log.ts'
import { type Label, label, type RelativePath, relativePath } from '../../shared/path.ts'
import type { Change } from '../../shared/record.ts'
import type { FileVersion, PlainVersion } from '../../shared/version.ts'

export const AGENT = label('agent1', 'agent')
export const VOLUME = label('images', 'volume')

export const FIRST: Change = {
  kind: 'epoch',
  agent: AGENT,
  reason: 'first',
  previousEpoch: 0,
  previousHash: NO_DIGEST,
  nonce: '\0'.repeat(16),
}

export async function openJournal(directory: string, epoch = 1, wall: WallClock = systemClock): Promise<Journal> {
  const journal = await Journal.open({ directory: join(directory, 'log'), epoch, clock: new HybridClock(wall), log: silentLog })
  onTestFinished(() => journal.close())
  return journal
}

const METADATA = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 1n, ctimeNs: 1n, inode: 1n, links: 1, xattrs: [] }

export function fileVersion(content: string | readonly string[], changes: Partial<FileVersion> = {}): FileVersion {
  const parts = (typeof content === 'string' ? [content] : content).filter((part) => part !== '')
  const chunks = parts.map((part) => ({ digest: digestOf(Buffer.from(part)), length: part.length }))
  const whole = Buffer.from(parts.join(''))
  return { kind: 'file', ...METADATA, consistency: 'stable', size: whole.length, digest: digestOf(whole), chunks, ...changes }
}

export function directoryVersion(changes: Partial<PlainVersion> = {}): PlainVersion {
  return { kind: 'directory', ...METADATA, mode: 0o755, ...changes }
}

export function put(path: string, version: FileVersion | PlainVersion, volume: Label = VOLUME): Change {
  return { kind: 'put', volume, path: relativePath(path), version }
}

export function path(text: string): RelativePath {
  return relativePath(text)
}

export function chunkOf(content: string): { readonly digest: Digest; readonly chunk: StoredChunk } {
  const bytes = Buffer.from(content)
  return { digest: digestOf(bytes), chunk: { length: bytes.length, filtered: false, compressed: false, bytes } }
}
