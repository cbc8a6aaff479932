/**
 * What the state says of a volume as a whole, as it is stored (docs/format.md, "Agent state"). Only the main thread asks for it: the scan threads, which
 * know the rest of the layout, do without the library that checks it, and its memory.
 */
import { z } from 'zod'
import { hybridTime } from '../shared/clock.ts'
import { WATCH_MODES } from '../shared/record.ts'
import type { VolumeFacts } from './state.ts'

const FACTS = z.object({
  root: z.string(),
  mode: z.enum(WATCH_MODES),
  sweepSince: z.number().int().positive().optional(),
  coveredUntil: z.string().regex(/^\d+$/).optional(),
})

export function encodeFacts({ coveredUntil, ...rest }: VolumeFacts): Buffer {
  return Buffer.from(JSON.stringify({ ...rest, coveredUntil: coveredUntil?.toString() }), 'utf8')
}

export function decodeFacts(value: Buffer): VolumeFacts | undefined {
  const { data } = FACTS.safeParse(parseJson(value.toString('utf8')))
  if (data === undefined) return undefined
  const { root, mode, sweepSince, coveredUntil } = data
  return {
    root,
    mode,
    ...(sweepSince === undefined ? {} : { sweepSince }),
    ...(coveredUntil === undefined ? {} : { coveredUntil: hybridTime(BigInt(coveredUntil)) }),
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
