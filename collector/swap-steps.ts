/**
 * The steps of a restore in place as they are written down before the first of them is done, and read again to go on or to go back.
 *
 * One JSON document a line (docs/format.md, "Undo places"). Invariant: what is done to a path that is there is written down durably before it is
 * done, with what is needed to take it back. It prevents a restore that was killed in its middle from being one that nobody can undo.
 */
import { z } from 'zod'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { type RelativePath, relativePath } from '../shared/path.ts'
import type { LiveMetadata, Print } from './live-entry.ts'
import { MISSING_CAUSES, type Missing } from './restore-plan.ts'

/** What was in the slot comes to the path, and what was at the path, if anything, into the slot. */
export interface PlaceStep {
  readonly kind: 'place'
  /** Below the target. */
  readonly path: RelativePath
  readonly slot: number
  readonly isDirectory: boolean
  readonly print: Print
  /** Of what stood there when the steps were made. */
  readonly old: Print | undefined
  /** Of a file: for the report. */
  readonly digest: string | undefined
}

export interface RemoveStep {
  readonly kind: 'remove'
  readonly path: RelativePath
  readonly slot: number
  readonly isDirectory: boolean
  readonly old: Print
}

export interface MetadataStep {
  readonly kind: 'metadata'
  readonly path: RelativePath
  readonly isDirectory: boolean
  /** Undefined: it keeps what it has. */
  readonly wanted: LiveMetadata | undefined
  /** Undefined: it is new. */
  readonly old: (LiveMetadata & Print) | undefined
}

export type SwapStep = PlaceStep | RemoveStep | MetadataStep

/** What the comparison before the steps has found. */
export interface SwapSummary {
  readonly kept: readonly RelativePath[]
  readonly keptBytes: number
  readonly removed: number
  readonly removedBytes: number
  readonly others: number
  readonly inUse: readonly RelativePath[]
  readonly missing: readonly Missing[]
}

const path = z.string().transform((text) => relativePath(text))
const big = z.string().transform((text) => BigInt(text))
const print = z.object({ inode: big, size: z.number(), mtimeNs: big })
const metadata = z.object({
  mode: z.number(),
  uid: z.number(),
  gid: z.number(),
  mtimeNs: big,
  xattrs: z.array(z.object({ name: z.string(), value: z.string() })),
})
const STEP = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('place'),
    path,
    slot: z.number(),
    isDirectory: z.boolean(),
    print,
    old: print.nullable(),
    digest: z.string().nullable(),
  }),
  z.object({ kind: z.literal('remove'), path, slot: z.number(), isDirectory: z.boolean(), old: print }),
  z.object({
    kind: z.literal('metadata'),
    path,
    isDirectory: z.boolean(),
    wanted: metadata.nullable(),
    old: metadata.extend({ inode: big, size: z.number() }).nullable(),
  }),
])
const SUMMARY = z.object({
  kept: z.array(path),
  keptBytes: z.number(),
  removed: z.number(),
  removedBytes: z.number(),
  others: z.number(),
  inUse: z.array(path),
  missing: z.array(z.object({ path, cause: z.enum(MISSING_CAUSES), reason: z.string() })),
})

export function encodeSteps(summary: SwapSummary, steps: readonly SwapStep[]): string {
  const line = (value: object): string =>
    `${JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))}\n`
  const stored = steps.map((step): object => {
    switch (step.kind) {
      case 'place':
        return { ...step, old: step.old ?? null, digest: step.digest ?? null }
      case 'remove':
        return step
      case 'metadata':
        return { ...step, wanted: step.wanted ?? null, old: step.old ?? null }
    }
  })
  return [summary, ...stored].map(line).join('')
}

/** @throws format-invalid */
export function decodeSteps(text: string, file: string): { summary: SwapSummary; steps: SwapStep[] } {
  try {
    const [first = '', ...lines] = text.split('\n').slice(0, -1)
    const steps = lines.map((line): SwapStep => {
      const step = STEP.parse(JSON.parse(line))
      switch (step.kind) {
        case 'place':
          return { ...step, old: step.old ?? undefined, digest: step.digest ?? undefined }
        case 'remove':
          return step
        case 'metadata':
          return { ...step, wanted: step.wanted ?? undefined, old: step.old ?? undefined }
      }
    })
    return { summary: SUMMARY.parse(JSON.parse(first)), steps }
  } catch (error) {
    throw new PacsimileError('format-invalid', `${file} does not hold the steps of a restore: ${reasonOf(error)}`, { cause: error })
  }
}
