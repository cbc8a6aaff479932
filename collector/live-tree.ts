/**
 * A directory of this host as it is now, as one side of a comparison.
 *
 * Symlinks are never followed below the directory itself; undo places of restores are no part of it. Invariant: what cannot be looked at is told, never left out. It prevents a
 * comparison by somebody without rights from saying that a protected file was removed.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { type Digest, StreamingDigest } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, reasonOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { byteString, childOf, pathBuffer, type RelativePath, showPath } from '../shared/path.ts'
import { undoIdOf } from '../shared/undo-place.ts'
import type { FileKind } from '../shared/version.ts'
import type { Side } from './tree-diff.ts'

/** What could not be looked at. */
export interface Unreadable {
  readonly path: RelativePath
  readonly reason: string
}

const READ_BYTES = 1 << 20
const PERMISSION_BITS = 0o7777n

/**
 * What `root` is, named `path`, and all below it, depth first, names in byte order. What goes away meanwhile is left out.
 * @throws io where `root` itself cannot be looked at
 */
export async function* liveTree(root: ByteString, path: RelativePath, onUnreadable: (what: Unreadable) => void): AsyncGenerator<Side> {
  yield* sidesBelow(root, path, true, onUnreadable)
}

/** What is at a path of a directory; undefined where nothing is. @throws io where it cannot be looked at */
export async function lookAt(root: string, path: RelativePath): Promise<Side | undefined> {
  try {
    for await (const side of liveTree(`${byteString(root)}/${path}`, path, () => {})) return side
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined
    if (errnoOf(cause) !== 'ENOENT' && errnoOf(cause) !== 'ENOTDIR') throw error
  }
  return undefined
}

function* sidesBelow(at: ByteString, path: RelativePath, isRoot: boolean, onUnreadable: (what: Unreadable) => void): Generator<Side> {
  let side: Side
  let names: ByteString[]
  try {
    side = sideAt(at, path, onUnreadable)
    names = side.kind === 'directory' ? namesIn(at) : []
  } catch (error) {
    if (isRoot) throw asPacsimileError(error, `Comparing with ${showPath(at)}`)
    if (errnoOf(error) !== 'ENOENT') onUnreadable({ path, reason: reasonOf(error) })
    return
  }
  yield side
  for (const name of names) yield* sidesBelow(`${at}/${name}`, childOf(path, name), false, onUnreadable)
}

function namesIn(directory: ByteString): ByteString[] {
  return readdirSync(pathBuffer(directory), { encoding: 'buffer' })
    .map((name) => name.toString('latin1'))
    .filter((name) => undoIdOf(name) === undefined)
    .sort()
}

function sideAt(at: ByteString, path: RelativePath, onUnreadable: (what: Unreadable) => void): Side {
  const stat = lstatSync(pathBuffer(at), { bigint: true })
  const kind = kindOf(stat)
  return {
    path,
    kind,
    mode: Number(stat.mode & PERMISSION_BITS),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeNs: stat.mtimeNs,
    xattrs: libc?.xattrs(at) ?? [],
    size: kind === 'file' ? Number(stat.size) : undefined,
    target: kind === 'symlink' ? readlinkSync(pathBuffer(at), { encoding: 'buffer' }).toString('latin1') : undefined,
    device: kind === 'character-device' || kind === 'block-device' ? stat.rdev : undefined,
    digest: () => {
      try {
        return kind === 'file' ? digestOfFile(at) : undefined
      } catch (error) {
        onUnreadable({ path, reason: reasonOf(error) })
        return undefined
      }
    },
  }
}

function kindOf(
  stat: Pick<Stats, 'isDirectory' | 'isSymbolicLink' | 'isFIFO' | 'isSocket' | 'isCharacterDevice' | 'isBlockDevice'>,
): FileKind {
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isFIFO()) return 'fifo'
  if (stat.isSocket()) return 'socket'
  if (stat.isCharacterDevice()) return 'character-device'
  return stat.isBlockDevice() ? 'block-device' : 'file'
}

function digestOfFile(at: ByteString): Digest {
  const fd = openSync(pathBuffer(at), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const digest = new StreamingDigest()
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, Math.max(1, fstatSync(fd).size)))
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) digest.update(buffer.subarray(0, read))
    return digest.finish()
  } finally {
    closeSync(fd)
  }
}
