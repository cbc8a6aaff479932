/**
 * AGENT:VOLUME[/PATH]: how a command line names a place in the history.
 *
 * Invariant: what is shown of a name can be typed again and names the same bytes. It prevents a file whose name no
 * keyboard has from being beyond reach.
 */
import { PacsimileError } from '../../shared/errors.ts'
import { type Label, label, parseShownPath, type RelativePath, relativePath, showPath } from '../../shared/path.ts'

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

/** `what` is of a whole volume. @throws usage */
export function parseVolume(text: string, what: string): Target {
  const target = parseTarget(text)
  if (target.path !== '') throw new PacsimileError('usage', `${what} is of a whole volume: AGENT:VOLUME`)
  return target
}

export function showTarget({ agent, volume, path }: Target): string {
  return path === '' ? `${agent}:${volume}` : `${agent}:${volume}/${showPath(path)}`
}

/** AGENT or AGENT:VOLUME. @throws usage */
export function parseAgentOrVolume(text: string): { readonly agent: Label; readonly volume: Label | undefined } {
  const [agent = '', volume, ...rest] = text.split(':')
  if (rest.length > 0) throw new PacsimileError('usage', `${JSON.stringify(text)} is not AGENT or AGENT:VOLUME`)
  return { agent: label(agent, 'The agent name'), volume: volume === undefined ? undefined : label(volume, 'The volume name') }
}
