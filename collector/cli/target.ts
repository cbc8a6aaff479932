/**
 * AGENT:VOLUME[/PATH]: how a command line names a place in the history.
 */
import { PacsimileError } from '../../shared/errors.ts'
import { type Label, label, parseShownPath, type RelativePath, relativePath } from '../../shared/path.ts'

export interface Target {
  readonly agent: Label
  readonly volume: Label
  readonly path: RelativePath
}

/** A trailing '/' is allowed; names may be typed as they are shown, with \xNN. @throws usage */
export function parseTarget(text: string): Target {
  const match = /^([^:/]+):([^/]+)(?:\/(.*))?$/s.exec(text)
  if (match?.[1] === undefined || match[2] === undefined)
    throw new PacsimileError('usage', `${JSON.stringify(text)} is not AGENT:VOLUME or AGENT:VOLUME/PATH, for example pacs1:images/2026/11`)
  const path = parseShownPath((match[3] ?? '').replace(/\/+$/, ''))
  try {
    return { agent: label(match[1], 'The agent name'), volume: label(match[2], 'The volume name'), path: relativePath(path) }
  } catch (error) {
    if (error instanceof PacsimileError) throw new PacsimileError('usage', error.message, { cause: error })
    throw error
  }
}

/** AGENT or AGENT:VOLUME. @throws usage */
export function parseAgentOrVolume(text: string): { readonly agent: Label; readonly volume: Label | undefined } {
  const [agent = '', volume, ...rest] = text.split(':')
  if (rest.length > 0) throw new PacsimileError('usage', `${JSON.stringify(text)} is not AGENT or AGENT:VOLUME`)
  return { agent: label(agent, 'The agent name'), volume: volume === undefined ? undefined : label(volume, 'The volume name') }
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `500ms`, `60s`, `10m`, `1h`, `7d`; a bare number is seconds. @returns ms @throws usage */
export function parseDuration(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim())
  const unit = UNITS[match?.[2] ?? 's']
  if (match === null || unit === undefined)
    throw new PacsimileError('usage', `${what} ${JSON.stringify(text)} is not a duration like 60s, 10m, 1h or 7d`)
  return Math.round(Number(match[1]) * unit)
}
