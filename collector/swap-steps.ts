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
  /** So that a file that lacks its end is none. */
  steps: z.number(),
  removed: z.number(),
  removedBytes: z.number(),
  others: z.number(),
  inUse: z.array(path),
  missing: z.array(z.object({ path, cause: z.enum(MISSING_CAUSES), reason: z.string() })),
})

/** Both may be larger than a string can be. */
const PIECE_LINES = 10_000
const LINE_END = 0x0a

export function encodeSteps(summary: SwapSummary, steps: readonly SwapStep[]): Buffer {
  const pieces = [Buffer.from(lineOf({ ...summary, steps: steps.length }), 'utf8')]
  for (let at = 0; at < steps.length; at += PIECE_LINES) {
    const lines = steps.slice(at, at + PIECE_LINES).map((step) => lineOf(storedOf(step)))
    pieces.push(Buffer.from(lines.join(''), 'utf8'))
  }
  return Buffer.concat(pieces)
}

function lineOf(value: object): string {
  return `${JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))}\n`
}

function storedOf(step: SwapStep): object {
  switch (step.kind) {
    case 'place':
      return { ...step, old: step.old ?? null, digest: step.digest ?? null }
    case 'remove':
      return step
    case 'metadata':
      return { ...step, wanted: step.wanted ?? null, old: step.old ?? null }
  }
}

/** @throws format-invalid */
export function decodeSteps(bytes: Buffer, file: string): { summary: SwapSummary; steps: SwapStep[] } {
  try {
    const lines = linesOf(bytes)
    const { steps: count, ...summary } = SUMMARY.parse(lines.next().value)
    const steps = [...lines].map(stepOf)
    if (steps.length !== count) throw new Error(`${count} steps are named, ${steps.length} are there`)
    return { summary, steps }
  } catch (error) {
    throw new PacsimileError('format-invalid', `${file} does not hold the steps of a restore: ${reasonOf(error)}`, { cause: error })
  }
}

function* linesOf(bytes: Buffer): Generator {
  for (let at = 0, end = bytes.indexOf(LINE_END); end >= 0; at = end + 1, end = bytes.indexOf(LINE_END, at))
    yield JSON.parse(bytes.toString('utf8', at, end))
}

function stepOf(stored: unknown): SwapStep {
  const step = STEP.parse(stored)
  switch (step.kind) {
    case 'place':
      return { ...step, old: step.old ?? undefined, digest: step.digest ?? undefined }
    case 'remove':
      return step
    case 'metadata':
      return { ...step, wanted: step.wanted ?? undefined, old: step.old ?? undefined }
  }
}
