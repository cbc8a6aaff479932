/**
 * What a scan thread reports of the disk: entries in the order of a depth-first walk with sorted names, packed into buffers.
 *
 * Invariant: a directory that could not be listed is followed by `closed`, so that nothing is concluded about what may be
 * in it. It prevents a permission error from looking like a deletion.
 */
import { ByteReader, type ByteWriter } from '../shared/bytes.ts'
import { PATH_BYTES_MAX } from '../shared/limits.ts'
import { type RelativePath, relativePath } from '../shared/path.ts'
import { FILE_KINDS } from '../shared/version.ts'
import type { FileStat, VolumeRoot } from './file-stat.ts'

export type ScanEntry =
  | { readonly kind: 'present'; readonly path: RelativePath; readonly stat: FileStat }
  /** What is below (or at) the path cannot be known. */
  | { readonly kind: 'closed'; readonly path: RelativePath; readonly reason: string }
  /** Another filesystem is mounted there; it is not entered. */
  | { readonly kind: 'foreign'; readonly path: RelativePath }

/** To a scan thread: walk this. */
export interface ScanRequest {
  readonly id: number
  readonly root: VolumeRoot
  readonly path: RelativePath
  /** Only the path and its direct children. */
  readonly isShallow: boolean
  /** Not looked at, with everything below. */
  readonly ignored: readonly RelativePath[]
  /** In gitignore syntax: what they name is left out as well. */
  readonly ignorePatterns: readonly string[]
}

/** From a scan thread. After the last one of a walk comes its end. */
export type ScanMessage =
  | { readonly kind: 'entries'; readonly id: number; readonly bytes: Uint8Array }
  | { readonly kind: 'end'; readonly id: number; readonly rootProblem: string | undefined }

/** What a scan thread is started with. */
export interface ScanThreadData {
  /** Batches under way; the main thread lowers it. */
  readonly batchesInFlight: SharedArrayBuffer
  /** The id of a walk that is to end early. */
  readonly cancelled: SharedArrayBuffer
}

const CLOSED = 0
const FOREIGN = 255
const REASON_BYTES_MAX = 1024

export function encodeScanEntry(entry: ScanEntry, to: ByteWriter): void {
  switch (entry.kind) {
    case 'present': {
      const { kind, mode, uid, gid, size, inode, mtimeNs, ctimeNs } = entry.stat
      to.u8(FILE_KINDS.indexOf(kind) + 1).string(entry.path)
      to.varint(mode).varint(uid).varint(gid).varint(size).big64(inode).signed64(mtimeNs).signed64(ctimeNs)
      return
    }
    case 'closed':
      to.u8(CLOSED).string(entry.path).bytes(Buffer.from(entry.reason, 'utf8').subarray(0, REASON_BYTES_MAX))
      return
    case 'foreign':
      to.u8(FOREIGN).string(entry.path)
  }
}

export function* decodeScanEntries(bytes: Uint8Array): Generator<ScanEntry, void> {
  const from = new ByteReader(bytes, 'Scan entries')
  while (from.remaining > 0) {
    const tag = from.u8()
    const path = relativePath(from.string(PATH_BYTES_MAX))
    if (tag === CLOSED) {
      yield { kind: 'closed', path, reason: from.bytes(REASON_BYTES_MAX).toString('utf8') }
    } else if (tag === FOREIGN) {
      yield { kind: 'foreign', path }
    } else {
      const kind = FILE_KINDS[tag - 1] ?? from.fail('unknown kind')
      const [mode, uid, gid, size] = [from.varint(), from.varint(), from.varint(), from.varint()]
      yield {
        kind: 'present',
        path,
        stat: { kind, mode, uid, gid, size, inode: from.big64(), mtimeNs: from.signed64(), ctimeNs: from.signed64() },
      }
    }
  }
}
