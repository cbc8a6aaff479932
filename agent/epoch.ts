/**
 * Which epoch this agent's journal is in, in one small file that is written durably, outside LevelDB.
 *
 * Order: the file names a new epoch before the first record of it is written; a crash between leaves an epoch that is
 * begun at the next start. Invariant: the number only grows. It prevents two journals under one number, which a collector
 * could not tell apart.
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { ByteString } from '../shared/bytes.ts'
import { type HybridTime, hybridTime, TIME_ZERO } from '../shared/clock.ts'
import { type Digest, digestFromHex, digestHex, NO_DIGEST } from '../shared/digest.ts'
import { PacsimileError } from '../shared/errors.ts'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import { type Change, EPOCH_REASONS, type EpochReason, NONCE_BYTES } from '../shared/record.ts'

export interface Epoch {
  readonly epoch: number
  readonly reason: EpochReason
  /** 0 where none is known. */
  readonly previousEpoch: number
  readonly previousHash: Digest
  /** Of the last record before, where it is known: what happened since may be lost. */
  readonly previousTime: HybridTime
  readonly nonce: ByteString
}

const FILE = z.object({
  epoch: z.number().int().positive(),
  reason: z.enum(EPOCH_REASONS),
  previousEpoch: z.number().int().nonnegative(),
  previousHash: z.string().regex(/^[0-9a-f]{64}$/),
  previousTime: z.string().regex(/^\d+$/),
  nonce: z.string().regex(new RegExp(`^[0-9a-f]{${2 * NONCE_BYTES}}$`)),
})

/** Undefined where no epoch was ever begun, or where the file is damaged: the caller finds a number above all it knows. */
export function readEpoch(file: string): Epoch | undefined {
  const bytes = readIfPresent(file)
  if (bytes === undefined) return undefined
  const parsed = FILE.safeParse(parseJson(bytes.toString('utf8')))
  if (!parsed.success) return undefined
  const { previousHash, previousTime, nonce, ...rest } = parsed.data
  return {
    ...rest,
    previousHash: digestFromHex(previousHash),
    previousTime: hybridTime(BigInt(previousTime)),
    nonce: Buffer.from(nonce, 'hex').toString('latin1'),
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export interface EpochEnd {
  readonly epoch: number
  readonly hash: Digest
  readonly time: HybridTime
}

/** Begins an epoch whose number is above `above`; `end` is the end of the one before, where it is known. */
export function beginEpoch(file: string, reason: EpochReason, above: number, end: EpochEnd | undefined): Epoch {
  const begun = readEpoch(file)?.epoch ?? 0
  const epoch = Math.max(above, begun, end?.epoch ?? 0) + 1
  if (!Number.isSafeInteger(epoch)) throw new PacsimileError('internal', `There is no epoch after ${above}`)
  const start: Epoch = {
    epoch,
    reason,
    previousEpoch: end?.epoch ?? 0,
    previousHash: end?.hash ?? NO_DIGEST,
    previousTime: end?.time ?? TIME_ZERO,
    nonce: randomBytes(NONCE_BYTES).toString('latin1'),
  }
  const text = JSON.stringify({
    ...start,
    previousHash: digestHex(start.previousHash),
    previousTime: start.previousTime.toString(),
    nonce: Buffer.from(start.nonce, 'latin1').toString('hex'),
  })
  writeFileDurably(file, `${text}\n`)
  return start
}

/** The first record of the epoch. */
export function epochRecord(agent: Label, { reason, previousEpoch, previousHash, nonce }: Epoch): Change {
  return { kind: 'epoch', agent, reason, previousEpoch, previousHash, nonce }
}
