/**
 * Looks at one path and says what became of it; runs in a capture thread, with synchronous calls only (measured 6.5 times
 * faster than promises).
 *
 * Invariant: whatever the filesystem answers, the outcome is a value. It prevents one path that cannot be read from
 * stopping the capture of the rest.
 */
import { type BigIntStats, readlinkSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import type { ChunkSizes } from '../shared/chunker.ts'
import { DIGEST_BYTES, type Digest } from '../shared/digest.ts'
import { errnoOf, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { CHUNKS_PER_VERSION_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX } from '../shared/limits.ts'
import { pathBuffer } from '../shared/path.ts'
import type { Version, Xattr } from '../shared/version.ts'
import { Ancestry } from './ancestry.ts'
import type { ExamineJob, Outcome } from './capture-job.ts'
import { type ContentReader, isSameState } from './content-reader.ts'
import { absolutePath, fileStat, isUnchanged, statAt, type VolumeRoot } from './file-stat.ts'
import type { Outbox } from './outbox.ts'

/** Errors that say that the path is not what it was a moment ago. */
const CHANGED_MEANWHILE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ESTALE', 'ENXIO', 'EISDIR', 'EINVAL'])

export class Examiner {
  readonly #reader: ContentReader
  readonly #outbox: Outbox
  readonly #root: VolumeRoot
  readonly #sizes: ChunkSizes
  readonly #ancestry: Ancestry

  /** For one batch of jobs: directories seen at its beginning are not looked at again. */
  constructor(parts: { reader: ContentReader; outbox: Outbox; root: VolumeRoot; sizes: ChunkSizes }) {
    this.#reader = parts.reader
    this.#outbox = parts.outbox
    this.#root = parts.root
    this.#sizes = parts.sizes
    this.#ancestry = new Ancestry(parts.root)
  }

  examine(job: ExamineJob): Outcome {
    try {
      return this.#look(job)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === undefined) throw error
      return CHANGED_MEANWHILE.has(errno) && !job.asIs ? { kind: 'busy' } : { kind: 'unreadable', reason: reasonOf(error) }
    }
  }

  #look(job: ExamineJob): Outcome {
    const obstacle = this.#ancestry.obstacleAbove(job.path)
    // What was seen at the beginning of the batch is not enough to call something gone.
    if (obstacle !== undefined) return this.#confirmed(job, obstacle)
    const stats = statAt(absolutePath(this.#root.directory, job.path))
    if (stats === undefined) return this.#confirmed(job, { kind: 'gone', topmost: job.path })
    if (stats.dev !== this.#root.device) return { kind: 'foreign' }
    const isSame = job.known !== undefined && isUnchanged(job.known, fileStat(stats))
    const isReadAgain = isSame && job.isDeep && stats.isFile()
    if (isSame && job.known?.doubt === 'none' && !isReadAgain) return { kind: 'same' }
    if (!stats.isFile()) return this.#captureOther(job, stats)
    const isOnlyUnstable = isSame && job.known?.doubt === 'unstable'
    const outcome = this.#captureFile(job, stats, isOnlyUnstable)
    if (isReadAgain && !isOnlyUnstable && hasStoredContent(outcome, job)) return { kind: 'same' }
    return isOnlyUnstable && outcome.kind === 'busy' ? { kind: 'still-open' } : outcome
  }

  #confirmed(job: ExamineJob, seen: Outcome): Outcome {
    if (seen.kind !== 'gone') return seen
    const afresh = new Ancestry(this.#root)
    const obstacle = afresh.obstacleAbove(job.path)
    const isBack = obstacle === undefined && statAt(absolutePath(this.#root.directory, job.path)) !== undefined
    if (isBack) return { kind: 'busy' }
    // The disk may have been unmounted between the two looks.
    return afresh.obstacleAtRoot() ?? obstacle ?? { kind: 'gone', topmost: job.path }
  }

  #captureFile(job: ExamineJob, expected: BigIntStats, isOnlyIfStable: boolean): Outcome {
    const startedMs = performance.now()
    const absolute = absolutePath(this.#root.directory, job.path)
    const isShipping = Number(expected.size) <= job.shipBytesMax
    const had = splitDigests(job.storedDigests)
    const content = this.#reader.read({
      absolute,
      expected,
      asIs: job.asIs,
      isOnlyIfStable,
      sizes: this.#sizes,
      take: (chunk, plain, isInterrupted) => {
        if (!isShipping || had.has(chunk.digest)) return true
        had.add(chunk.digest)
        return this.#outbox.ship(job.id, chunk.digest, plain, isInterrupted)
      },
    })
    if (content === undefined) return { kind: 'busy' }
    const { stats, consistency, size, digest, chunks } = content
    if (chunks.length > CHUNKS_PER_VERSION_MAX) return { kind: 'unreadable', reason: `it has more than ${CHUNKS_PER_VERSION_MAX} chunks` }
    const xattrs = readXattrs(absolute)
    const after = statAt(absolute)
    // The xattrs were read by name: it must still be the same file, and for a stable version in the same state.
    if (after === undefined || after.ino !== stats.ino || (consistency === 'stable' && !isSameState(after, stats))) return { kind: 'busy' }
    const version: Version = { kind: 'file', ...metadata(stats, xattrs), consistency, size, digest, chunks }
    return { kind: 'version', version, durationMs: performance.now() - startedMs }
  }

  #captureOther(job: ExamineJob, stats: BigIntStats): Outcome {
    const absolute = absolutePath(this.#root.directory, job.path)
    const described = describe(stats, absolute)
    const after = statAt(absolute)
    if (after === undefined || !isSameState(after, stats)) return { kind: 'busy' }
    return { kind: 'version', version: described, durationMs: 0 }
  }
}

function describe(stats: BigIntStats, absolute: ByteString): Version {
  const shared = metadata(stats, readXattrs(absolute))
  const { kind } = fileStat(stats)
  switch (kind) {
    case 'symlink':
      return { kind, ...shared, target: readlinkSync(pathBuffer(absolute), { encoding: 'buffer' }).toString('latin1', 0, PATH_BYTES_MAX) }
    case 'character-device':
    case 'block-device':
      return { kind, ...shared, device: stats.rdev }
    case 'directory':
    case 'fifo':
    case 'socket':
      return { kind, ...shared }
    case 'file':
      throw new TypeError('a file has content')
  }
}

function metadata(stats: BigIntStats, xattrs: readonly Xattr[]) {
  const { mode, uid, gid, mtimeNs, ctimeNs, inode } = fileStat(stats)
  return { mode, uid, gid, mtimeNs, ctimeNs, inode, links: Number(stats.nlink), xattrs }
}

/** All that are readable, as far as a record takes them. */
function readXattrs(absolute: ByteString): readonly Xattr[] {
  const xattrs = libc?.xattrs(absolute) ?? []
  let bytes = 0
  return xattrs.filter(({ name, value }, i) => {
    bytes += name.length + value.length
    return i < XATTRS_MAX && bytes <= XATTRS_BYTES_MAX && name.length <= NAME_BYTES_MAX
  })
}

/** Whether what was read is what was captured before. */
function hasStoredContent(outcome: Outcome, { storedDigests, known }: ExamineJob): boolean {
  if (outcome.kind !== 'version' || outcome.version.kind !== 'file' || known?.doubt !== 'none') return false
  const { size, chunks } = outcome.version
  return size === known.size && chunks.map(({ digest }) => digest).join('') === storedDigests
}

function splitDigests(joined: ByteString): Set<Digest> {
  const digests = new Set<Digest>()
  for (let at = 0; at < joined.length; at += DIGEST_BYTES) digests.add(joined.slice(at, at + DIGEST_BYTES) as Digest)
  return digests
}
