/**
 * A version: all that one path was at one moment, and its bytes (docs/format.md, "Version").
 *
 * Invariant: encode and decode are inverse, an encoding is canonical (one version, one byte sequence), and an unknown
 * critical field is refused by its number. It prevents an older reader from restoring half of what a newer agent saw.
 */
import { type ByteReader, type ByteString, type ByteWriter } from './bytes.ts'
import { DIGEST_BYTES, type Digest, digest, digestHex } from './digest.ts'
import { PacsimileError } from './errors.ts'
import { CHUNK_BYTES_MAX, CHUNKS_PER_VERSION_MAX, PATH_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX } from './limits.ts'
import { sameHoles } from './version-extensions.ts'

export const FILE_KINDS = ['file', 'directory', 'symlink', 'fifo', 'socket', 'character-device', 'block-device'] as const
export type FileKind = (typeof FILE_KINDS)[number]

/** How sure it is that the content existed as a whole at one moment (docs/format.md, "Consistency"). */
export const CONSISTENCIES = ['stable', 'crash-consistent', 'unverified', 'torn'] as const
export type Consistency = (typeof CONSISTENCIES)[number]

export interface ChunkRef {
  readonly digest: Digest
  /** Plain bytes. */
  readonly length: number
}

export interface Xattr {
  readonly name: ByteString
  readonly value: ByteString
}

interface Metadata {
  /** Permission bits with setuid, setgid and sticky: the lower 12 bits of st_mode. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** ns since 1970 UTC. */
  readonly mtimeNs: bigint
  /** ns since 1970 UTC, on the agent's host: when the inode last changed. Not restored. */
  readonly ctimeNs: bigint
  /** Inode number on the agent's host. Paths of one tree with the same inode, more than one link and equal content are hard links of each other. */
  readonly inode: bigint
  readonly links: number
  /** Sorted by name, each name once. */
  readonly xattrs: readonly Xattr[]
  /** Fields that this release does not know but may ignore: kept as they came. */
  readonly extensions?: readonly Extension[]
}

/** A field with a number of 128 or more: may be ignored. */
export interface Extension {
  readonly tag: number
  readonly value: ByteString
}

export interface FileVersion extends Metadata {
  readonly kind: 'file'
  readonly consistency: Consistency
  /** Bytes of content: the sum of the chunks' lengths. */
  readonly size: number
  /** BLAKE3 of the whole content. */
  readonly digest: Digest
  readonly chunks: readonly ChunkRef[]
}

export interface SymlinkVersion extends Metadata {
  readonly kind: 'symlink'
  readonly target: ByteString
}

export interface DeviceVersion extends Metadata {
  readonly kind: 'character-device' | 'block-device'
  /** st_rdev. */
  readonly device: bigint
}

export interface PlainVersion extends Metadata {
  readonly kind: 'directory' | 'fifo' | 'socket'
}

export type Version = FileVersion | SymlinkVersion | DeviceVersion | PlainVersion

/** Extension fields below this number are critical: a reader that does not know them refuses the record. */
const FIRST_IGNORABLE_TAG = 128
const EXTENSIONS_MAX = 256
const EXTENSION_BYTES_MAX = 1 << 20
/** Most versions have neither xattrs nor extensions. */
const NONE: readonly never[] = Object.freeze([])

export function encodeVersion(version: Version, to: ByteWriter): void {
  to.u8(FILE_KINDS.indexOf(version.kind) + 1)
  to.varint(version.mode).varint(version.uid).varint(version.gid)
  to.signed64(version.mtimeNs).signed64(version.ctimeNs)
  to.big64(version.inode).varint(version.links)
  to.varint(version.xattrs.length)
  for (const xattr of version.xattrs) to.string(xattr.name).string(xattr.value)
  switch (version.kind) {
    case 'file':
      to.u8(CONSISTENCIES.indexOf(version.consistency) + 1)
      to.varint(version.size).rawString(version.digest)
      to.varint(version.chunks.length)
      for (const chunk of version.chunks) to.rawString(chunk.digest).varint(chunk.length)
      break
    case 'symlink':
      to.string(version.target)
      break
    case 'character-device':
    case 'block-device':
      to.big64(version.device)
      break
    case 'directory':
    case 'fifo':
    case 'socket':
      break
  }
  const extensions = version.extensions ?? []
  to.varint(extensions.length)
  for (const extension of extensions) to.varint(extension.tag).string(extension.value)
}

export function decodeVersion(from: ByteReader): Version {
  const kind = FILE_KINDS[from.u8() - 1] ?? from.unknown('kind of file')
  const mode = from.varint(0o7777)
  const uid = from.varint(0xffff_ffff)
  const gid = from.varint(0xffff_ffff)
  const mtimeNs = from.signed64()
  const ctimeNs = from.signed64()
  const inode = from.big64()
  const links = from.varint(0xffff_ffff)
  const xattrs = decodeXattrs(from)
  // Written out each time, so that no object is made only to be copied.
  switch (kind) {
    case 'file': {
      const consistency = CONSISTENCIES[from.u8() - 1] ?? from.unknown('consistency')
      const size = from.varint()
      const content = digest(from.rawString(DIGEST_BYTES))
      const chunks = decodeChunks(from, size)
      return extended(
        { kind, mode, uid, gid, mtimeNs, ctimeNs, inode, links, xattrs, consistency, size, digest: content, chunks },
        decodeExtensions(from),
      )
    }
    case 'symlink': {
      const target = from.string(PATH_BYTES_MAX)
      return extended({ kind, mode, uid, gid, mtimeNs, ctimeNs, inode, links, xattrs, target }, decodeExtensions(from))
    }
    case 'character-device':
    case 'block-device': {
      const device = from.big64()
      return extended({ kind, mode, uid, gid, mtimeNs, ctimeNs, inode, links, xattrs, device }, decodeExtensions(from))
    }
    case 'directory':
    case 'fifo':
    case 'socket':
      return extended({ kind, mode, uid, gid, mtimeNs, ctimeNs, inode, links, xattrs }, decodeExtensions(from))
  }
}

function extended<Kind extends Version>(version: Kind, extensions: readonly Extension[]): Kind {
  return extensions.length === 0 ? version : { ...version, extensions }
}

function decodeXattrs(from: ByteReader): readonly Xattr[] {
  const count = from.varint(XATTRS_MAX)
  if (count === 0) return NONE
  const xattrs: Xattr[] = []
  let total = 0
  for (let i = 0; i < count; i++) {
    const name = from.string(255)
    const value = from.string(XATTRS_BYTES_MAX)
    const before = xattrs.at(-1)
    if (name === '' || name.includes('\0')) from.fail('bad xattr name')
    if (before !== undefined && before.name >= name) from.fail('xattrs out of order')
    total += name.length + value.length
    if (total > XATTRS_BYTES_MAX) from.fail('xattrs too large')
    xattrs.push({ name, value })
  }
  return xattrs
}

function decodeChunks(from: ByteReader, size: number): ChunkRef[] {
  const count = from.varint(CHUNKS_PER_VERSION_MAX)
  if (count * (DIGEST_BYTES + 1) > from.remaining) from.fail('chunk list longer than its record')
  const chunks: ChunkRef[] = []
  let total = 0
  for (let i = 0; i < count; i++) {
    const name = digest(from.rawString(DIGEST_BYTES))
    const length = from.varint(CHUNK_BYTES_MAX)
    if (length === 0) from.fail('empty chunk')
    total += length
    chunks.push({ digest: name, length })
  }
  if (total !== size) from.fail(`chunks hold ${total} bytes, the size says ${size}`)
  return chunks
}

function decodeExtensions(from: ByteReader): readonly Extension[] {
  const count = from.varint(EXTENSIONS_MAX)
  if (count === 0) return NONE
  const extensions: Extension[] = []
  for (let i = 0; i < count; i++) {
    const tag = from.varint(0xffff)
    if (tag < FIRST_IGNORABLE_TAG)
      throw new PacsimileError('format-unknown', `A version carries the field ${tag}, which this release does not know and must not ignore`)
    if ((extensions.at(-1)?.tag ?? 0) >= tag) from.fail('extension fields out of order')
    extensions.push({ tag, value: from.string(EXTENSION_BYTES_MAX) })
  }
  return extensions
}

/** Whether two versions have the same bytes (or target, or device), whatever their metadata. */
export function sameContent(a: Version, b: Version): boolean {
  if (a.kind === 'file') return b.kind === 'file' && a.size === b.size && a.digest === b.digest
  if (a.kind === 'symlink') return b.kind === 'symlink' && a.target === b.target
  if (a.kind === 'character-device' || a.kind === 'block-device') return a.kind === b.kind && a.device === b.device
  return a.kind === b.kind
}

/** Whether two versions would restore to the same file: content and holes, mode, owner, mtime, xattrs. */
export function sameVersion(a: Version, b: Version): boolean {
  return (
    sameContent(a, b) &&
    sameHoles(a, b) &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.mtimeNs === b.mtimeNs &&
    a.xattrs.length === b.xattrs.length &&
    a.xattrs.every((xattr, i) => xattr.name === b.xattrs[i]?.name && xattr.value === b.xattrs[i]?.value)
  )
}

/** A key that is equal for two paths of one tree exactly when they are hard links of one file; undefined where there are none. */
export function hardLinkKey(version: Version): string | undefined {
  if (version.kind === 'directory' || version.links < 2) return undefined
  const content = version.kind === 'file' ? digestHex(version.digest) : version.kind
  const xattrs = version.xattrs.map(({ name, value }) => `${name}\0${value.length}\0${value}`).join('')
  return `${version.inode}:${version.mtimeNs}:${version.mode}:${version.uid}:${version.gid}:${content}:${xattrs}`
}
