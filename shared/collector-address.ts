/**
 * Where a collector listens, as people write it: `wss://HOST:PORT` or `https://HOST:PORT`.
 */
import { PacsimileError } from './errors.ts'

export interface CollectorAddress {
  /** `wss://HOST:PORT`, the port always named. */
  readonly url: string
  readonly host: string
  readonly port: number
}

const DEFAULT_PORT = 7443

/** @throws usage */
export function parseCollectorAddress(text: string): CollectorAddress {
  const url = URL.parse(text)
  const isUsable =
    url !== null && ['wss:', 'https:'].includes(url.protocol) && url.hostname !== '' && url.pathname === '/' && url.search === ''
  if (!isUsable) throw new PacsimileError('usage', `The collector ${JSON.stringify(text)} is not of the form wss://HOST:PORT`)
  // URL drops the standard port even where it was given.
  const standard = /:443\/?$/.test(text) ? 443 : DEFAULT_PORT
  const port = url.port === '' ? standard : Number(url.port)
  return { url: `wss://${url.hostname}:${port}`, host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port }
}
