/**
 * How long a restorer's certificate is good yet. Pure.
 *
 * Nothing renews it by itself: whoever it was given to has to be given another. So its end is told of in time to do that. It prevents a restore
 * that is refused on the day it is needed.
 */

export type TermState = 'good' | 'ending' | 'expired'

export interface CertificateTerm {
  /** Both in ms since 1970. */
  readonly fromMs: number
  readonly untilMs: number
}

/** What is left when an end is told of; of a shorter life a third. */
const ENDING_MS = 30 * 24 * 3_600_000

export function termState({ fromMs, untilMs }: CertificateTerm, nowMs: number): TermState {
  if (nowMs >= untilMs) return 'expired'
  return untilMs - nowMs <= Math.min(ENDING_MS, (untilMs - fromMs) / 3) ? 'ending' : 'good'
}

/** The same of a restorer as its file says, RFC 3339, whatever else was said of it. */
export function restorerState({ enrolled, expires }: { readonly enrolled: string; readonly expires: string }, nowMs: number): TermState {
  return termState({ fromMs: Date.parse(enrolled), untilMs: Date.parse(expires) }, nowMs)
}
