/**
 * Brings what a branch holds into a directory: the one that its source came from, or any that is like it.
 *
 * A path is changed only where the directory has there what the replica had when it was frozen. Invariant: what somebody else has changed
 * there meanwhile is a conflict: it is listed and left, and the branch keeps its own. May be done again from its beginning. It prevents a
 * study that was stored at the source after all from being replaced by an older one.
 */
import { closeSync, constants, openSync, readSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf, StreamingDigest } from '../shared/digest.ts'
import { errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { byteString, pathBuffer, type RelativePath } from '../shared/path.ts'
import type { ChunkRef, Version } from '../shared/version.ts'
import type { Branch, BranchEntry, PathState } from './branch.ts'
import { lookAt } from './live-tree.ts'
import { Materializer } from './materialize.ts'
import type { Side } from './tree-diff.ts'

export interface Conflict {
  readonly path: RelativePath
  readonly reason: string
}

export interface BroughtBack {
  /** Paths that were made what they are in the branch. */
  readonly applied: number
  /** Paths that were that already. */
  readonly same: number
  readonly conflicts: readonly Conflict[]
}

const PIECE_BYTES = 1 << 20

/** @throws io, space: nothing later can be written either */
export async function bringBack(branch: Branch, branchDirectory: string, to: string): Promise<BroughtBack> {
  const files = new BranchFiles(join(branchDirectory, 'files'))
  const target = new Materializer(to, (digest) => files.next(digest), { setuid: false, special: false })
  const conflicts: Conflict[] = []
  const count = { applied: 0, same: 0 }
  const directories: { path: RelativePath; version: Version }[] = []
  try {
    // What was removed goes from below, and before what has come: a name may be a directory on one side and a file on the other.
    const entries = branch.entries.filter(({ isTimeOnly }) => !isTimeOnly)
    const order = [...entries.filter(({ after }) => after === null).reverse(), ...entries.filter(({ after }) => after !== null)]
    for (const entry of order) {
      try {
        const found = await lookAt(to, entry.path)
        if (isAs(found, entry.after)) count.same += 1
        else if (!isAs(found, entry.before)) conflicts.push({ path: entry.path, reason: whyOf(found, entry) })
        else {
          await apply(entry, files, target, directories)
          count.applied += 1
        }
      } catch (error) {
        const errno = errnoOf(error)
        if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EROFS' || errno === 'EIO') throw error
        if (!(error instanceof PacsimileError) && errno === undefined) throw error
        conflicts.push({ path: entry.path, reason: reasonOf(error) })
      }
    }
    for (const { path, version } of directories.reverse()) target.finishDirectory(path, version)
    libc?.syncFilesystem(target.rootDescriptor)
  } finally {
    target.close()
    files.close()
  }
  return { ...count, conflicts }
}

async function apply(
  { path, after, before }: BranchEntry,
  files: BranchFiles,
  target: Materializer,
  directories: { path: RelativePath; version: Version }[],
): Promise<void> {
  if (after === null) {
    // Of a directory only the name: what is in it still is nobody's to remove.
    if (before?.kind === 'directory') rmdirSync(target.nameOf(path))
    else target.removeAll(path)
  } else if (after.kind === 'directory') {
    target.makeDirectory(path)
    directories.push({ path, version: versionOf(after, []) })
  } else {
    const isSameContent = after.kind === 'file' && before?.kind === 'file' && after.digest === before.digest
    if (isSameContent) {
      const version = versionOf(after, [])
      if (version.kind === 'file') target.putMetadata(path, version)
    } else {
      await target.put(path, versionOf(after, after.kind === 'file' ? files.open(path, after) : []))
    }
  }
}

function versionOf(state: PathState, chunks: readonly ChunkRef[]): Version {
  const { kind, mode, uid, gid, mtimeNs, xattrs } = state
  const metadata = { mode, uid, gid, mtimeNs, xattrs, ctimeNs: 0n, inode: 0n, links: 1 }
  switch (kind) {
    case 'file':
      if (state.digest === undefined || state.size === undefined)
        throw new PacsimileError('damage', 'The branch does not say what was there')
      return { kind, ...metadata, consistency: 'stable', size: state.size, digest: state.digest, chunks }
    case 'symlink':
      return { kind, ...metadata, target: state.target ?? '' }
    case 'directory':
      return { kind, ...metadata }
    default:
      throw new PacsimileError('unsupported', `A ${kind} is not brought back`)
  }
}

/** Of a directory only that it is one, for others write into it. */
function isAs(found: Side | undefined, state: PathState | null): boolean {
  if (found === undefined || state === null) return found === undefined && state === null
  if (found.kind !== state.kind) return false
  if (found.kind === 'symlink') return found.target === state.target
  const isSameMetadata = found.mode === state.mode && found.uid === state.uid && found.gid === state.gid
  if (found.kind === 'directory') return isSameMetadata
  return isSameMetadata && found.size === state.size && found.mtimeNs === state.mtimeNs && found.digest() === state.digest
}

function whyOf(found: Side | undefined, { before, after }: BranchEntry): string {
  const words = before === null ? 'was made' : found === undefined ? 'was removed' : 'was changed'
  return `it ${words} there meanwhile, and ${before === null ? 'made' : after === null ? 'removed' : 'changed'} in the branch`
}

/** Content of a branch, read twice: to know its pieces, and to write them. */
class BranchFiles {
  readonly #root: string
  #fd: number | undefined
  #at = 0

  constructor(root: string) {
    this.#root = root
  }

  /** The file's pieces. @throws damage where it is not what the list says */
  open(path: RelativePath, { digest }: PathState): ChunkRef[] {
    this.close()
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW
    const fd = openSync(pathBuffer(`${byteString(this.#root)}/${path}`), flags)
    this.#fd = fd
    this.#at = 0
    const chunks: ChunkRef[] = []
    const whole = new StreamingDigest()
    const buffer = Buffer.alloc(PIECE_BYTES)
    let at = 0
    for (let read = readSync(fd, buffer, 0, PIECE_BYTES, at); read > 0; read = readSync(fd, buffer, 0, PIECE_BYTES, at)) {
      const piece = buffer.subarray(0, read)
      whole.update(piece)
      chunks.push({ digest: digestOf(piece), length: read })
      at += read
    }
    if (whole.finish() !== digest) throw new PacsimileError('damage', 'The branch does not hold the content that it lists')
    return chunks
  }

  /** The next piece. */
  next(digest: ChunkRef['digest']): Buffer {
    if (this.#fd === undefined) throw new PacsimileError('internal', 'No file of the branch is open')
    const buffer = Buffer.alloc(PIECE_BYTES)
    const piece = buffer.subarray(0, readSync(this.#fd, buffer, 0, PIECE_BYTES, this.#at))
    this.#at += piece.length
    if (digestOf(piece) !== digest) throw new PacsimileError('damage', 'A file of the branch changed while it was read')
    return piece
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }
}
