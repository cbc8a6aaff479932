/**
 * The answer to a PROPFIND: 207 Multi-Status (RFC 4918, 13), written as its items come.
 *
 * Invariant: whatever stands in a name, the answer is well-formed and says that name: addresses are percent-encoded bytes, texts are
 * escaped, and characters that XML cannot hold are shown as \xNN. It prevents a file's name from being read as markup.
 */

import { digestHex } from '../shared/digest.ts'
import { showPath } from '../shared/path.ts'
import type { FileVersion, Version } from '../shared/version.ts'
import { DAV_NAMESPACE, type DavName, type Propfind } from './dav-propfind.ts'

export interface DavItem {
  /** Address, percent-encoded; that of a collection ends with a slash. */
  readonly href: string
  /** As bytes, for people. */
  readonly name: string
  /** Undefined: a collection that is no directory of a history. */
  readonly version: Version | undefined
}

/** Items gathered into one write, in characters. */
const GATHER = 64 << 10
const HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
const TAIL = '</D:multistatus>\n'
const NAMES = ['resourcetype', 'displayname', 'getlastmodified', 'getcontentlength', 'getetag', 'getcontenttype'] as const
export const FILE_TYPE = 'application/octet-stream'

export async function* multistatus(items: AsyncIterable<DavItem>, asked: Propfind): AsyncGenerator<Buffer> {
  let text = HEAD
  for await (const item of items) {
    text += responseOf(item, asked)
    if (text.length < GATHER) continue
    yield Buffer.from(text, 'utf8')
    text = ''
  }
  yield Buffer.from(text + TAIL, 'utf8')
}

function responseOf(item: DavItem, asked: Propfind): string {
  const has = propertiesOf(item)
  const names = typeof asked === 'string' ? NAMES.map((name): DavName => ({ namespace: DAV_NAMESPACE, name })) : asked
  const found: string[] = []
  const lacking: string[] = []
  for (const { namespace, name } of names) {
    const value = namespace === DAV_NAMESPACE ? has.get(name) : undefined
    if (value !== undefined) found.push(asked === 'names' || value === '' ? `<D:${name}/>` : `<D:${name}>${value}</D:${name}>`)
    else if (typeof asked !== 'string')
      lacking.push(namespace === '' ? `<${name} xmlns=""/>` : `<x:${name} xmlns:x="${escaped(namespace)}"/>`)
  }
  const status = [...propstat(found, '200 OK'), ...propstat(lacking, '404 Not Found')].join('')
  return `<D:response><D:href>${item.href}</D:href>${status === '' ? propstat([''], '200 OK').join('') : status}</D:response>\n`
}

function propstat(properties: readonly string[], status: string): string[] {
  if (properties.length === 0) return []
  return [`<D:propstat><D:prop>${properties.join('')}</D:prop><D:status>HTTP/1.1 ${status}</D:status></D:propstat>`]
}

function propertiesOf({ name, version }: DavItem): ReadonlyMap<string, string> {
  const isFile = version?.kind === 'file'
  const properties = new Map([
    ['resourcetype', isFile ? '' : '<D:collection/>'],
    ['displayname', escaped(showPath(name))],
  ])
  if (version !== undefined) properties.set('getlastmodified', lastModified(version))
  if (!isFile) return properties
  return properties
    .set('getcontentlength', String(version.size))
    .set('getetag', escaped(etagOf(version)))
    .set('getcontenttype', FILE_TYPE)
}

/** As HTTP writes it: to the second, rounded down. */
export function lastModified(version: Version): string {
  const ms = Number(version.mtimeNs / 1_000_000n)
  const date = new Date(ms)
  return Number.isNaN(date.getTime()) ? new Date(0).toUTCString() : date.toUTCString()
}

/** Of the content alone: the same bytes have the same, whatever they are called and whenever. */
export function etagOf({ digest }: FileVersion): string {
  return `"${digestHex(digest)}"`
}

/** What no XML may hold (XML 1.0, 2.2) becomes U+FFFD. */
function escaped(text: string): string {
  return text
    .replaceAll(/[^\t\n\r -\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, '\uFFFD')
    .replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
