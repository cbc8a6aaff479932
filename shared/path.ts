/**
 * Paths and labels: what may name a place below a volume, and how it is shown to people.
 *
 * A path is bytes (a ByteString), relative to the volume's root, components joined by '/', the root itself is ''.
 * Invariant: a `RelativePath` has no empty, '.' or '..' component, no NUL, no leading or trailing '/'. It is made only
 * by `relativePath`, `childOf` and `parentOf`. It prevents a record from ever naming something outside its volume.
 */
import type { ByteString } from './bytes.ts'
import { PacsimileError } from './errors.ts'
import { LABEL_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX } from './limits.ts'

export type RelativePath = ByteString & { readonly __brand: 'RelativePath' }

/** The volume's root directory. */
export const ROOT = '' as RelativePath

/** Checks and brands a path. @throws format-invalid */
export function relativePath(bytes: ByteString): RelativePath {
  if (bytes === '') return ROOT
  if (bytes.length > PATH_BYTES_MAX) throw invalid(bytes, `longer than ${PATH_BYTES_MAX} bytes`)
  let start = 0
  for (;;) {
    const slash = bytes.indexOf('/', start)
    const end = slash < 0 ? bytes.length : slash
    const length = end - start
    if (length === 0) throw invalid(bytes, 'empty component')
    if (length > NAME_BYTES_MAX) throw invalid(bytes, `a name longer than ${NAME_BYTES_MAX} bytes`)
    if (bytes.charCodeAt(start) === 0x2e && (length === 1 || (length === 2 && bytes.charCodeAt(start + 1) === 0x2e)))
      throw invalid(bytes, "'.' or '..' as a component")
    if (slash < 0) break
    start = slash + 1
  }
  if (bytes.includes('\0')) throw invalid(bytes, 'NUL byte')
  return bytes as RelativePath
}

function invalid(bytes: ByteString, why: string): PacsimileError {
  return new PacsimileError('format-invalid', `Path ${showPath(bytes.slice(0, 200))} is not allowed: ${why}`)
}

export function childOf(directory: RelativePath, name: ByteString): RelativePath {
  return (directory === '' ? name : `${directory}/${name}`) as RelativePath
}

/** The directory that holds a path; undefined for the root. */
export function parentOf(path: RelativePath): RelativePath | undefined {
  if (path === '') return undefined
  const slash = path.lastIndexOf('/')
  return (slash < 0 ? '' : path.slice(0, slash)) as RelativePath
}

export function nameOf(path: RelativePath): ByteString {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** Whether `path` is `directory` or lies below it. */
export function isWithin(path: RelativePath, directory: RelativePath): boolean {
  return directory === '' || path === directory || (path.startsWith(directory) && path.charCodeAt(directory.length) === 0x2f)
}

/** `path`, which lies at or below `from`, moved to lie at the same place below `to`. */
export function rebase(path: RelativePath, from: RelativePath, to: RelativePath): RelativePath {
  if (path === from) return to
  const rest = from === '' ? path : path.slice(from.length + 1)
  return childOf(to, rest)
}

/**
 * The path as a sort key: components joined by NUL. Keys in byte order are then a depth-first walk with sorted names,
 * which '/' (0x2f, above '-' and '.') would not give.
 */
export function pathKey(path: RelativePath): ByteString {
  return path.replaceAll('/', '\0')
}

export function pathFromKey(key: ByteString): RelativePath {
  return key.replaceAll('\0', '/') as RelativePath
}

/** The bytes that a system call takes. */
export function pathBuffer(path: ByteString): Buffer {
  return Buffer.from(path, 'latin1')
}

/** Bytes of user text (a command-line argument) as a ByteString. */
export function byteString(text: string): ByteString {
  return Buffer.from(text, 'utf8').toString('latin1')
}

/** Of these characters each is one byte and is shown as it is. */
const PLAIN = /^[\x20-\x5b\x5d-\x7e]*$/
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\\]/gu

/** For people: UTF-8 where it is valid; control characters, bidi marks, backslashes and invalid bytes as \xNN. */
export function showPath(bytes: ByteString): string {
  if (PLAIN.test(bytes)) return bytes
  const buffer = Buffer.from(bytes, 'latin1')
  const escape = (text: string): string => [...Buffer.from(text, 'utf8')].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
  const text = buffer.toString('utf8')
  if (Buffer.from(text, 'utf8').equals(buffer)) return text.replaceAll(UNSAFE, escape)
  return [...buffer]
    .map((byte) => (byte >= 0x20 && byte < 0x7f && byte !== 0x5c ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`))
    .join('')
}

/** The inverse of `showPath`, so that what was shown can be typed. Text without `\x` escapes is taken as UTF-8. */
export function parseShownPath(text: string): ByteString {
  const parts = text.split(/(\\x[0-9a-fA-F]{2})/)
  return parts
    .map((part) => (/^\\x[0-9a-fA-F]{2}$/.test(part) ? String.fromCharCode(Number.parseInt(part.slice(2), 16)) : byteString(part)))
    .join('')
}

export type Label = string & { readonly __brand: 'Label' }

/** Checks an agent or volume name: lower-case letters, digits, '.', '_', '-'; starts with a letter or digit. @throws usage */
export function label(text: string, what: string): Label {
  if (text.length > LABEL_MAX || !/^[a-z0-9][a-z0-9._-]*$/.test(text)) {
    throw new PacsimileError(
      'usage',
      `${what} ${JSON.stringify(text)} is not allowed: 1 to ${LABEL_MAX} characters of a-z, 0-9, '.', '_', '-', starting with a letter or digit`,
    )
  }
  return text as Label
}
