/**
 * Makes the version of one open file: content under a lease where it is to be had, metadata and xattrs by the same
 * descriptor.
 *
 * Invariant: everything in a version is of the one file that was open. It prevents the content of a file from being
 * recorded with the owner or the times of another that took its name meanwhile.
 */
import type { ByteString } from '../shared/bytes.ts'
import type { ChunkSizes } from '../shared/chunker.ts'
import { DIGEST_BYTES, type Digest } from '../shared/digest.ts'
import { libc } from '../shared/libc.ts'
import { CHUNKS_PER_VERSION_MAX, NAME_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX } from '../shared/limits.ts'
import type { FileVersion, Xattr } from '../shared/version.ts'
import { withAdditions } from '../shared/version-extensions.ts'
import type { Beneath } from './beneath.ts'
import type { Side } from './capture-job.ts'
import type { Content, ContentReader, TakeChunk } from './content-reader.ts'
import { fileStat, type VolumeRoot } from './file-stat.ts'
import type { Leases } from './lease.ts'
import type { Outbox } from './outbox.ts'
import type { Reflinks } from './reflink.ts'
import type { Stat } from './system-calls.ts'

/** What the jobs of one batch share. */
export interface Workplace {
  readonly reader: ContentReader
  readonly reflinks: Reflinks
  readonly leases: Leases
  readonly outbox: Outbox
  readonly root: VolumeRoot
  readonly sizes: ChunkSizes
  readonly beneath: Beneath
}

/** Errors that say that a path is not what it was a moment ago. */
export const CHANGED_MEANWHILE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ESTALE', 'ENXIO', 'EISDIR', 'EINVAL'])
/** Those of them that say that it is not there. */
export const GONE_MEANWHILE = new Set(['ENOENT', 'ENOTDIR', 'ESTALE'])

/** Ships what the collector does not have of a side's content, unless it is too large for that. */
export function shipment(
  { outbox }: Workplace,
  id: number,
  { storedDigests, shipBytesMax }: Side,
  size: bigint,
  had = splitDigests(storedDigests),
): TakeChunk {
  const isShipping = Number(size) <= shipBytesMax
  return (chunk, plain, samples, isInterrupted) => {
    if (!isShipping || had.has(chunk.digest)) return true
    had.add(chunk.digest)
    return outbox.ship(id, chunk.digest, plain, samples, isInterrupted)
  }
}

/** Undefined: it has more chunks than a version can name. */
export function fileVersion({ stat, consistency, size, digest, chunks, holes }: Content, fd: number): FileVersion | undefined {
  if (chunks.length > CHUNKS_PER_VERSION_MAX) return undefined
  const xattrs = recordable(libc?.xattrsOf(fd) ?? [])
  return withAdditions({ kind: 'file', ...metadata(stat, xattrs), consistency, size, digest, chunks }, { holes })
}

export const TOO_MANY_CHUNKS = `it has more than ${CHUNKS_PER_VERSION_MAX} chunks`

export function metadata(stat: Stat, xattrs: readonly Xattr[]) {
  const { mode, uid, gid, mtimeNs, ctimeNs, inode } = fileStat(stat)
  // A file that has lost its last name had one when it was pinned.
  return { mode, uid, gid, mtimeNs, ctimeNs, inode, links: Math.max(1, stat.nlink), xattrs }
}

/** All that a record takes. */
export function recordable(xattrs: readonly Xattr[]): readonly Xattr[] {
  let bytes = 0
  return xattrs.filter(({ name, value }, i) => {
    bytes += name.length + value.length
    return i < XATTRS_MAX && bytes <= XATTRS_BYTES_MAX && name.length <= NAME_BYTES_MAX
  })
}

export function splitDigests(joined: ByteString): Set<Digest> {
  const digests = new Set<Digest>()
  for (let at = 0; at < joined.length; at += DIGEST_BYTES) digests.add(joined.slice(at, at + DIGEST_BYTES) as Digest)
  return digests
}
