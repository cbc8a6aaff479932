/**
 * /dav/AGENT/VOLUME/@MOMENT/PATH: what the address of a WebDAV request names, and how such an address is written.
 *
 * Invariant: an address is bytes, taken apart once, and never a name of a file of this host: a path is checked like one of a record. What is
 * written can be read again and names the same. It prevents `..`, `%2e%2e`, `%2f` and NUL from meaning anything.
 */
import { PacsimileError } from '../shared/errors.ts'
import { type Label, label, type RelativePath, relativePath } from '../shared/path.ts'
import { type PointRequest, parsePoint } from './point.ts'

export const DAV_PATH = '/dav'

export type DavPlace =
  /** All agents. */
  | { readonly kind: 'agents' }
  | { readonly kind: 'volumes'; readonly agent: Label }
  | { readonly kind: 'moments'; readonly agent: Label; readonly volume: Label }
  /** `moment` as it stands in the address, without its @. */
  | { readonly kind: 'path'; readonly agent: Label; readonly volume: Label; readonly moment: string; readonly path: RelativePath }

export function isDavUrl(url: string): boolean {
  return url === DAV_PATH || url.startsWith(`${DAV_PATH}/`)
}

/** @throws not-found for what can be no such address */
export function parseDavUrl(url: string): DavPlace {
  const [, ...raw] = (url.split('?')[0] ?? '').slice(DAV_PATH.length).split('/')
  // A collection may be named with or without a slash at its end.
  if (raw.at(-1) === '') raw.pop()
  const [agent, volume, at, ...names] = raw.map(bytesOf)
  if (agent === undefined) return { kind: 'agents' }
  try {
    const named = label(agent, 'The agent')
    if (volume === undefined) return { kind: 'volumes', agent: named }
    const place = { agent: named, volume: label(volume, 'The volume') }
    if (at === undefined) return { kind: 'moments', ...place }
    if (!at.startsWith('@')) throw new PacsimileError('usage', 'A moment begins with @')
    if (names.some((name) => name.includes('/'))) throw new PacsimileError('usage', 'No name holds a slash')
    const moment = Buffer.from(at.slice(1), 'latin1').toString('utf8')
    return { kind: 'path', ...place, moment, path: relativePath(names.join('/')) }
  } catch (error) {
    throw new PacsimileError('not-found', `There is no such address: ${error instanceof Error ? error.message : ''}`, { cause: error })
  }
}

/** The bytes that a part of an address stands for. */
function bytesOf(part: string): string {
  if (!/^(?:[!-$&-~]|%[0-9a-fA-F]{2})+$/.test(part)) throw new PacsimileError('not-found', 'There is no such address: it is malformed')
  return part.replaceAll(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** A part of an address, of bytes: ASCII that no markup gives another meaning. */
export function davPart(bytes: string): string {
  return bytes.replaceAll(/[^A-Za-z0-9._~@:-]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`)
}

/** The moment of an address: only what means the same wherever it is read. @throws not-found */
export function davMoment(text: string, nowMs: number): PointRequest {
  const isPlain =
    text === 'now' || /^(?:mark|seq):/.test(text) || /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})$/.test(text)
  const point = isPlain ? parsePoint(text) : undefined
  // What is yet to come would be another state each time.
  if (point === undefined || (point.kind === 'time' && point.ms > nowMs))
    throw new PacsimileError(
      'not-found',
      'There is no such moment: use @now, @mark:NAME, @seq:N, or a time of the past like @2026-11-29T02:00:00Z',
    )
  return point
}
