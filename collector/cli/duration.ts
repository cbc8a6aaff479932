/**
 * Durations as options take them. A number without a unit is seconds; anything else is refused, never guessed.
 */
import { PacsimileError } from '../../shared/errors.ts'

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `500ms`, `60s`, `10m`, `1h`, `7d`. `what` names the option. @returns ms @throws usage */
export function parseDuration(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim())
  const unit = UNITS[match?.[2] ?? 's']
  if (match === null || unit === undefined)
    throw new PacsimileError('usage', `${what} ${JSON.stringify(text)} is not a duration like 60s, 10m, 1h or 7d`)
  return Math.round(Number(match[1]) * unit)
}
