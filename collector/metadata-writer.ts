/**
 * Gives what was put in a place its metadata: owner, xattrs, mode and time.
 *
 * Invariant: what a path could not be given is told; an error that does not say so ends the putting. It prevents a restored archive
 * whose files nobody may read from being called whole, and one right that is missing from costing the files.
 */
import { fchmodSync, fchownSync, fstatSync, lchownSync } from 'node:fs'
import type { ByteString } from '../shared/bytes.ts'
import { errnoOf } from '../shared/errors.ts'
import { libc } from '../shared/libc.ts'
import { pathBuffer, type RelativePath } from '../shared/path.ts'
import type { DeviceVersion, PlainVersion, SymlinkVersion, Version, Xattr } from '../shared/version.ts'
import { changeModeUnopened } from './special-node.ts'

export interface MetadataOptions {
  /** Give files what runs them with the rights of others, or says who may: setuid and setgid bits, capabilities and all other xattrs of `security`. */
  readonly setuid: boolean
  /** `none`: whatever is written belongs to who writes it. */
  readonly owner?: 'none' | undefined
  /** Told of what a path could not be given; the path itself is there. */
  readonly onShortcoming?: (shortcoming: Shortcoming) => void
}

/** Something that a file should have and could not be given. */
export interface Shortcoming {
  readonly path: RelativePath
  readonly what: 'owner' | 'mode' | 'xattr'
  readonly reason: string
}

export const SETUID_SETGID = 0o6000
const MODE_BITS = 0o7777
/** What a file may do that runs (capabilities), and what security modules make of it. */
export const SECURITY_XATTRS = 'security.'
/** Namespaces of xattrs that are removed where the version has none: a default ACL of a directory gives its files one. */
export const INHERITED_XATTRS = ['user.', 'system.posix_acl_']
/** Namespaces of xattrs that only a privileged process may set. */
export const PRIVILEGED_XATTRS = ['trusted.', 'security.']
/** What says that we may not, or that the filesystem has no such thing. */
const REFUSALS = new Set(['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL'])

export class MetadataWriter {
  readonly #options: MetadataOptions
  readonly #mayChown = process.getuid?.() === 0

  constructor(options: MetadataOptions) {
    this.#options = options
  }

  /**
   * Of an open file or directory. Owner first, for chown clears the setuid bits and capabilities; the mode behind what it may forbid; the
   * time last. @throws the system's error
   */
  write(path: RelativePath, fd: number, version: Version): void {
    // Asking is a fraction of the work of setting what is right already.
    const { uid, gid, mode } = fstatSync(fd)
    const isOwned = uid === version.uid && gid === version.gid
    if (!isOwned) this.#setOwner(path, version, () => fchownSync(fd, version.uid, version.gid))
    const xattrs = libc?.xattrsOf(fd) ?? []
    this.#setXattrs(path, fd, xattrs, version.xattrs)
    const wanted = this.#modeOf(version)
    // An owner and an ACL that are set change the mode.
    const isRight = isOwned && xattrs.length + version.xattrs.length === 0 && (mode & MODE_BITS) === wanted
    if (!isRight) this.#attempt(path, 'mode', () => fchmodSync(fd, wanted))
    libc?.setModifiedOf(fd, version.mtimeNs)
  }

  /** Of what must not be opened, by a name that is not followed. @throws the system's error */
  writeUnopened(path: RelativePath, at: ByteString, version: SymlinkVersion | DeviceVersion | PlainVersion): void {
    this.#setOwner(path, version, () => lchownSync(pathBuffer(at), version.uid, version.gid))
    this.#setXattrs(path, at, libc?.xattrs(at) ?? [], version.xattrs)
    // A symlink has no mode of its own.
    if (version.kind !== 'symlink') this.#attempt(path, 'mode', () => changeModeUnopened(at, this.#modeOf(version)))
    libc?.setModified(at, version.mtimeNs)
  }

  #modeOf(version: Version): number {
    return version.kind === 'directory' || this.#options.setuid ? version.mode : version.mode & ~SETUID_SETGID
  }

  #setOwner(path: RelativePath, version: Version, set: () => void): void {
    if (this.#options.owner === 'none') return
    if (this.#mayChown) this.#attempt(path, 'owner', set)
    else if (version.uid !== process.getuid?.() || version.gid !== process.getgid?.())
      this.#options.onShortcoming?.({ path, what: 'owner', reason: 'only root may give files to others' })
  }

  /** Of what is open, or has a name that is not followed. `found`: those that it has. */
  #setXattrs(path: RelativePath, of: number | ByteString, found: readonly Xattr[], wanted: readonly Xattr[]): void {
    for (const { name } of found) {
      const isWanted = wanted.some((xattr) => xattr.name === name)
      if (!isWanted && INHERITED_XATTRS.some((prefix) => name.startsWith(prefix))) libc?.removeXattr(of, name)
    }
    for (const { name, value } of wanted) {
      if (name.startsWith(SECURITY_XATTRS) && !this.#options.setuid) continue
      if (!this.#mayChown && PRIVILEGED_XATTRS.some((prefix) => name.startsWith(prefix)))
        this.#options.onShortcoming?.({ path, what: 'xattr', reason: `${name} needs root` })
      else this.#attempt(path, 'xattr', () => libc?.setXattr(of, name, value))
    }
  }

  #attempt(path: RelativePath, what: Shortcoming['what'], set: () => void): void {
    try {
      set()
    } catch (error) {
      const errno = errnoOf(error) ?? ''
      if (!REFUSALS.has(errno)) throw error
      this.#options.onShortcoming?.({ path, what, reason: errno })
    }
  }
}
