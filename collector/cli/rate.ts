/**
 * Rates as options take them: bytes a second, always with a unit.
 */
import { PacsimileError } from '../../shared/errors.ts'

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
}

/** `50MB/s`, `800 KiB/s`, `1.5GB`. `what` names the option. @returns bytes per second @throws usage */
export function parseRate(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]+)(?:\/s)?$/i.exec(text.trim())
  const rate = Number(match?.[1]) * (UNITS[match?.[2]?.toLowerCase() ?? ''] ?? Number.NaN)
  if (!(rate >= 1)) throw new PacsimileError('usage', `${what} ${JSON.stringify(text)} is not a rate like 50MB/s, 800KiB/s or 1GB/s`)
  return rate
}
