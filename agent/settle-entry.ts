/**
 * How one path stands between its event and its capture: the times and counts that settle.ts decides by. Pure.
 *
 * Invariant: events during a look do not move the time of the first one, unless that look captured the file. It prevents a
 * file that is written without a pause from putting off its own capture for ever.
 */
import type { RelativePath } from '../shared/path.ts'
import type { Writer } from '../shared/version-extensions.ts'
import { type Place } from './place.ts'

/** Stands for whoever waits until a path has been dealt with. */
export interface Ticket {
  answered(hasChanged: boolean): void
}

/** Events come from a change that happens now; a scan finds what may have changed long ago, and can wait. */
export type Origin = 'event' | 'scan'

export interface Due extends Place {
  readonly origin: Origin
  /** Others wait for it before they can be recorded. */
  readonly isUrgent: boolean
  /** Capture it even if it is open for writing. */
  readonly asIs: boolean
  /** Read its content even if nothing says that it changed. */
  readonly isDeep: boolean
  /** Looks since the last change that had to be repeated. */
  readonly retries: number
  /** The look before this one found this to be gone, and waited for the databases that were written before. */
  readonly waitedFor: RelativePath | undefined
  /** Who wrote it last, as far as events told. */
  readonly writer: Writer | undefined
}

/** What an event says beside that something happened. */
export interface Hint {
  /** It was written and not closed. */
  readonly isOpen?: boolean
  /** The watcher loses nothing: no second look is needed to make sure. */
  readonly isSure?: boolean
  readonly writer?: Writer | undefined
}

/** How a look ended. */
export type Settled =
  /** Captured in a stable state, and recorded. */
  | { readonly kind: 'captured' }
  /** Captured as it was, while it may have been written; `durationMs` is what the capture took. */
  | { readonly kind: 'captured-open'; readonly durationMs: number }
  /** As it was captured, but still open for writing. */
  | { readonly kind: 'still-open' }
  /** A writer has it open, or it changed while being read, or it has waited for what was written before. */
  | { readonly kind: 'busy'; readonly isWritten?: boolean; readonly waitedFor?: RelativePath | undefined }
  /** Older versions, of which it cannot be known whether they are of this path, are still to be recorded before it. */
  | { readonly kind: 'held' }
  /** Nothing to do, or nothing that can be done now. */
  | { readonly kind: 'done' }

export const RETRY_FIRST_MS = 5
export const RETRY_MAX_MS = 250
export const QUIET_MS = 250
export const LAG_MAX_MS = 1000
export const PACE = 4
export const DIRECTORY_QUIET_MS = 100
export const DIRECTORY_LAG_MAX_MS = 500
export const SECOND_LOOK_MS = 150
export const REOPEN_FIRST_MS = 1000
export const REOPEN_MAX_MS = 60_000

export interface SettleEntry {
  readonly place: Place
  origin: Origin
  /** Why it waits: something changed, its children changed, or only to make sure. */
  reason: 'change' | 'children' | 'certainty'
  isLooking: boolean
  /** Others wait for it before they can be recorded. */
  isUrgent: boolean
  /** No second look is needed. */
  isSure: boolean
  /** An event said that it was closed, or came or went: it is due at once. */
  isClosed: boolean
  writer: Writer | undefined
  /** What came while it was being looked at. */
  again: 'change' | 'children' | undefined
  /** When the first change came while it was being looked at. */
  againMs: number
  dueMs: number
  /** The earliest time for which the queue holds it. */
  queuedMs: number
  /** The first and the last event since it was captured last. */
  firstMs: number
  lastMs: number
  /** Looks since then that found it busy. */
  retries: number
  /** What the last look found to be gone, and waited for databases before that is recorded. */
  waitedFor: RelativePath | undefined
  /** Captured while open: no capture as it is before this time. */
  paceMs: number
  /** Captured while open: how long to the next look that hopes to find it closed. */
  reopenMs: number
  /** A deep scan wants its content read, in the next look and in the one under way. */
  isDeep: boolean
  isDeepLook: boolean
  tickets: Ticket[]
  /** Tickets that the look under way answers. */
  looking: Ticket[]
}

export const NOT_QUEUED = Number.POSITIVE_INFINITY

export function newEntry({ volume, path }: Place, origin: Origin, nowMs: number): SettleEntry {
  return {
    place: { volume, path },
    origin,
    reason: 'certainty',
    isLooking: false,
    isUrgent: false,
    isSure: false,
    isClosed: false,
    writer: undefined,
    again: undefined,
    againMs: nowMs,
    dueMs: nowMs,
    queuedMs: NOT_QUEUED,
    firstMs: nowMs,
    lastMs: nowMs,
    retries: 0,
    waitedFor: undefined,
    paceMs: 0,
    reopenMs: 0,
    isDeep: false,
    isDeepLook: false,
    tickets: [],
    looking: [],
  }
}

/** Something changed while it is being looked at: the look may have missed it. */
export function noteDuringLook(entry: SettleEntry, nowMs: number): void {
  if (entry.again !== 'change') entry.againMs = nowMs
  entry.again = 'change'
  entry.lastMs = nowMs
}

/** Whether a look is to come because something happened, or is under way. */
export function isLookExpected({ reason, isLooking }: SettleEntry): boolean {
  return reason !== 'certainty' || isLooking
}

/** Whether others wait for another look, behind the one under way. */
export function isHurried({ isUrgent, isLooking, again }: SettleEntry): boolean {
  return isUrgent && isLooking && again === 'change'
}

/** The ticket is given back by the look that will have seen all that was told by now. @returns false where there is none to come */
export function expectLook(entry: SettleEntry, ticket: Ticket): boolean {
  if (!isLookExpected(entry)) return false
  // A look that was not overtaken by an event has seen all that happened before now.
  if (entry.isLooking && entry.again === undefined) entry.looking.push(ticket)
  else entry.tickets.push(ticket)
  return true
}

/** From when on the file is captured although it is open for writing. */
export function asIsFromMs(entry: SettleEntry): number {
  return Math.max(Math.min(entry.lastMs + QUIET_MS, entry.firstMs + LAG_MAX_MS), entry.paceMs)
}
