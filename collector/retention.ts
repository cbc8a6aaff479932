/**
 * Retention: how long versions are kept, for each volume, and its form in the configuration and in the ledger.
 *
 * Without a retention nothing ever goes. A version's age counts from its end: what is the path's version now has none. Invariant: a
 * retention that was in force binds what existed then as long as its WORM window says, whatever is configured later. It prevents an
 * administrator, or who has become one, from removing history by way of the configuration.
 */
import { z } from 'zod'
import type { Label } from '../shared/path.ts'

const HOUR_MS = 3_600_000
const UNITS = { h: HOUR_MS, d: 24 * HOUR_MS, w: 7 * 24 * HOUR_MS, y: 365 * 24 * HOUR_MS } as const
const SPAN = /^(\d{1,6})([hdwy])$/

/** `24h`, `30d`, `8w`, `10y`. A year has 365 days. */
const span = z
  .string()
  .regex(SPAN, 'no span such as 24h, 30d, 8w or 10y')
  .transform((text) => {
    const [, count = '0', unit = 'h'] = SPAN.exec(text) ?? []
    return Number(count) * UNITS[unit as keyof typeof UNITS]
  })
const noSpan = span.default(0)

const ONE = {
  /** Every version is kept for so long after its end. */
  all: span,
  /** Of each hour, day, month (UTC) the state at its beginning, for so long. */
  hourly: noSpan,
  daily: noSpan,
  monthly: noSpan,
  /** Within it nothing goes, whatever is configured later. */
  worm: noSpan,
}

export const RETENTION = z.strictObject({
  ...ONE,
  /** A pack from which nothing is read any more stays so long; and content so young is not removed that its record may be under way. */
  quarantine: span.default(7 * UNITS.d),
  /** By AGENT:VOLUME. */
  volumes: z.record(z.string().regex(/^[^:]+:[^:]+$/, 'not AGENT:VOLUME'), z.strictObject(ONE)).default({}),
})

/** Spans in ms. */
export interface Retention {
  readonly all: number
  readonly hourly: number
  readonly daily: number
  readonly monthly: number
  readonly worm: number
}

export interface RetentionPolicy {
  /** Undefined: everything is kept. */
  readonly others: Retention | undefined
  readonly volumes: Readonly<Record<string, Retention>>
}

export const KEEP_ALL: RetentionPolicy = { others: undefined, volumes: {} }

const stored = z.object({ all: z.number(), hourly: z.number(), daily: z.number(), monthly: z.number(), worm: z.number() })
const STORED = z.object({ others: stored.nullable(), volumes: z.record(z.string(), stored) })

export function policyOf(config: z.output<typeof RETENTION> | undefined): RetentionPolicy {
  if (config === undefined) return KEEP_ALL
  const { volumes, quarantine: _, ...others } = config
  return { others, volumes }
}

export function quarantineMs(config: z.output<typeof RETENTION> | undefined): number {
  return config?.quarantine ?? 7 * UNITS.d
}

/** One text for one policy. */
export function encodePolicy({ others, volumes }: RetentionPolicy): string {
  const plain = ({ all, hourly, daily, monthly, worm }: Retention): Retention => ({ all, hourly, daily, monthly, worm })
  const sorted = Object.entries(volumes).sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify({
    others: others === undefined ? null : plain(others),
    volumes: Object.fromEntries(sorted.map(([name, one]) => [name, plain(one)])),
  })
}

/** What cannot be read asks for nothing to go. */
export function decodePolicy(text: string): RetentionPolicy {
  try {
    const { others, volumes } = STORED.parse(JSON.parse(text))
    return { others: others ?? undefined, volumes }
  } catch {
    return KEEP_ALL
  }
}

export function retentionOf({ others, volumes }: RetentionPolicy, agent: Label, volume: Label): Retention | undefined {
  return volumes[`${agent}:${volume}`] ?? others
}
