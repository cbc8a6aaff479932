/**
 * Decoded values as JSON: what the golden files and the worked examples are compared with.
 *
 * What was added to a message later is left out where it says nothing: the golden files know nothing of it.
 * A bigint is its decimal digits, bytes are `hex:` and their hex digits; so is a byte string, unless it is printable ASCII.
 */
import type { LedgerEntry } from '../../collector/repository/ledger-entry.ts'
import { digestHex } from '../../shared/digest.ts'
import type { TreeEntry } from '../../shared/tree.ts'
import { hardLinkKey, type Version } from '../../shared/version.ts'
import { holesOf, isInferred, writerOf } from '../../shared/version-extensions.ts'

export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [name: string]: Plain }

export function plain(value: unknown): Plain {
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'string') return plainString(value)
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (value instanceof Uint8Array) return `hex:${Buffer.from(value).toString('hex')}`
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value)
        .filter(([name, field]) => field !== undefined && !(name === 'filtered' && field === false))
        .map(([name, field]) => [name, plain(field)]),
    )
  throw new TypeError(`No JSON of a ${typeof value}`)
}

/** Text of characters beyond one byte is text already. */
function plainString(text: string): string {
  const isText = /[^\0-\xff]/.test(text) || /^[\x20-\x7e]*$/.test(text)
  return isText ? text : `hex:${Buffer.from(text, 'latin1').toString('hex')}`
}

/** What a version's extension fields say, as decode.py shows it; empty where there are none. */
export function plainAdditions(version: Version): { readonly [name: string]: Plain } {
  const [holes, writer] = [holesOf(version), writerOf(version)]
  return {
    ...(holes.length > 0 && { holes: holes.map(({ offset, length }) => [offset, length]) }),
    ...(writer !== undefined && { writer: plain(writer) }),
    ...(isInferred(version) && { inferred: true }),
  }
}

/** As decode.py lists a tree. `isLost` says whether the content of what a record put was lost. */
export function plainTree(entries: Iterable<TreeEntry>, isLost: (epoch: number, seq: number) => boolean): Plain[] {
  const firstOf = new Map<string, string>()
  return [...entries].map(({ path, position, version }) => {
    const key = hardLinkKey(version)
    const name = plainString(path)
    const sameAs = key === undefined ? undefined : firstOf.get(key)
    if (key !== undefined && sameAs === undefined) firstOf.set(key, name)
    const { kind, mode, uid, gid, mtimeNs, links, xattrs } = version
    return plain({
      path,
      epoch: position.epoch,
      seq: position.seq,
      kind,
      mode,
      uid,
      gid,
      mtimeNs,
      links,
      xattrs: xattrs.map((xattr) => [xattr.name, xattr.value]),
      ...(version.kind === 'file' && { consistency: version.consistency, size: version.size, digest: digestHex(version.digest) }),
      ...(version.kind === 'symlink' && { target: version.target }),
      ...((version.kind === 'character-device' || version.kind === 'block-device') && { device: version.device }),
      ...plainAdditions(version),
      ...(isLost(position.epoch, position.seq) && { lost: true }),
      ...(sameAs !== undefined && { sameAs }),
    })
  })
}

/** An entry of the ledger as JSON tells it; what it leaves open is absent. */
export function plainEntry(entry: LedgerEntry): unknown {
  return JSON.parse(
    JSON.stringify({ ...entry, previous: digestHex(entry.previous) }, (name, value: unknown) =>
      (name === 'digest' || name === 'hash') && typeof value === 'string' ? Buffer.from(value, 'latin1').toString('hex') : value,
    ),
  )
}
