/**
 * Re-reads a copy on a schedule, as the repository itself is (scrub-rounds.ts): one file after the other, spread over the days of a round.
 *
 * What is damaged is put right from the repository. Invariant: a file counts as verified in a round only after it was read in it. It
 * prevents a copy that nobody reads until the day on which it is all that is left.
 */
import { setTimeout } from 'node:timers/promises'
import { asPacsimileError } from '../shared/errors.ts'
import type { Log } from '../shared/log.ts'
import type { CopyStateFile } from './copy-state.ts'
import type { CopyVerifier, VerifiedPlace } from './copy-verify.ts'
import { COPIED_KINDS, nameOf } from './repository/copy.ts'

export interface CopyScrubParts {
  readonly name: string
  readonly state: CopyStateFile
  readonly roundMs: number
  /** Whether the copy can be read at the moment. */
  readonly isReachable: () => boolean
  /** Works with a verifier of the copy, over a connection of its own. */
  readonly withVerifier: <Answer>(work: (verifier: CopyVerifier) => Promise<Answer>, signal: AbortSignal) => Promise<Answer>
  readonly log: Log
}

const RETRY_MS = 60_000
const DAY_MS = 24 * 3_600_000
/** A round ends before the next one is due. */
const SHARE = 0.9

/** Until the signal is given. Never throws. */
export async function scrubCopy(parts: CopyScrubParts, signal: AbortSignal): Promise<void> {
  const { state, roundMs, isReachable, log, name } = parts
  const firstMs = Date.now()
  while (!signal.aborted) {
    const { nextMs, lastRoundStartedMs = 0 } = state.scrub
    // A round may have been longer when the next one was set.
    const dueMs = Math.min(nextMs, Math.max(firstMs, lastRoundStartedMs) + roundMs)
    const waitMs = Math.min(dueMs - Date.now(), DAY_MS)
    try {
      if (waitMs <= 0 && isReachable()) await round(parts, signal)
      else await setTimeout(Math.max(1000, Math.min(waitMs, RETRY_MS)), undefined, { signal })
    } catch (error) {
      if (signal.aborted) return
      const { code, message } = asPacsimileError(error, 'Scrubbing a copy')
      log.error('a copy cannot be scrubbed', { copy: name, code, reason: message })
      await setTimeout(RETRY_MS, undefined, { signal }).catch(() => {})
    }
  }
}

/** The rest of a round. */
async function round({ name, state, roundMs, withVerifier, log }: CopyScrubParts, signal: AbortSignal): Promise<void> {
  const places = await withVerifier((verifier) => verifier.places(signal), signal)
  // A round of nothing says nothing.
  if (places.length === 0) {
    await setTimeout(RETRY_MS, undefined, { signal })
    return
  }
  const totalBytes = Math.max(
    1,
    places.reduce((sum, { held }) => sum + (held?.bytes ?? 0), 0),
  )
  const startedMs = state.scrub.last === '' ? Date.now() : state.scrub.startedMs
  for (const place of places) {
    signal.throwIfAborted()
    if (orderOf(place) <= state.scrub.last) continue
    const { findings, better } = await withVerifier((verifier) => verifier.verifyFile(place, true), signal)
    for (const { file, kind, offset, reason, isRepaired } of findings)
      if (isRepaired) log.warn('a copy was damaged and is repaired from the repository', { copy: name, file, kind, offset, reason })
      else log.error('a copy is damaged', { copy: name, file, kind, offset, reason })
    if (better !== undefined)
      log.error('a copy has what the repository lacks', { copy: name, file: nameOf(place.kind, place.number), reason: better })
    const repaired = findings.some(({ isRepaired }) => isRepaired)
    const damaged = findings.some(({ isRepaired }) => !isRepaired)
    state.scrubbed(orderOf(place), { startedMs, isRepaired: repaired, isDamaged: damaged })
    await setTimeout(((place.held?.bytes ?? 0) / totalBytes) * roundMs * SHARE, undefined, { signal })
  }
  log.info('every file of a copy was scrubbed', { copy: name, since: new Date(startedMs).toISOString() })
  state.roundEnded(startedMs, Math.max(Date.now(), startedMs + roundMs))
}

/** Files in the order in which they are read, as text that sorts so. */
function orderOf({ kind, number }: VerifiedPlace): string {
  return `${COPIED_KINDS.indexOf(kind)} ${number.toString(16).padStart(12, '0')}`
}
