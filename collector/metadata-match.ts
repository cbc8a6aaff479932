/**
 * Whether something that stands already has the metadata that a version would give it here. Pure.
 *
 * The counterpart of what materialize.ts sets: what it would not set is not compared. Invariant: what has been given a version's metadata matches it, as
 * far as the filesystem takes it. It prevents a restore in place that finds the same differences each time.
 */
import type { Version, Xattr } from '../shared/version.ts'
import type { LiveMetadata } from './live-entry.ts'
import { INHERITED_XATTRS, PRIVILEGED_XATTRS, SECURITY_XATTRS, SETUID_SETGID } from './metadata-writer.ts'

export interface MetadataTerms {
  readonly setuid: boolean
  /** Whether the owner counts. */
  readonly isOwnerAsked: boolean
}

const isRoot = process.getuid?.() === 0

export function hasMetadata(live: LiveMetadata, version: Version, { setuid, isOwnerAsked }: MetadataTerms): boolean {
  if (version.kind !== 'symlink' && !isMode(live.mode, version, setuid)) return false
  if (isOwnerAsked && isRoot && (live.uid !== version.uid || live.gid !== version.gid)) return false
  return live.mtimeNs === version.mtimeNs && hasXattrs(live.xattrs, version.xattrs, setuid)
}

/** Bits that are not asked for are neither given nor taken. */
function isMode(live: number, version: Version, setuid: boolean): boolean {
  if (live === version.mode) return true
  return !setuid && version.kind !== 'directory' && live === (version.mode & ~SETUID_SETGID)
}

function hasXattrs(live: readonly Xattr[], wanted: readonly Xattr[], setuid: boolean): boolean {
  const found = new Map(live.map(({ name, value }) => [name, value]))
  const names = new Set(wanted.map(({ name }) => name))
  return (
    wanted.every(({ name, value }) => found.get(name) === value || !isSet(name, setuid)) &&
    live.every(({ name }) => names.has(name) || !INHERITED_XATTRS.some((prefix) => name.startsWith(prefix)))
  )
}

function isSet(name: string, setuid: boolean): boolean {
  if (name.startsWith(SECURITY_XATTRS) && !setuid) return false
  return isRoot || !PRIVILEGED_XATTRS.some((prefix) => name.startsWith(prefix))
}
