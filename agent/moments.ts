/**
 * Where the journal may be cut on its way to a collector: between moments, so that a collector whose agent never comes back
 * holds whole ones.
 *
 * What was appended together is of one millisecond (journal.ts). Invariant: a database and its log that were appended
 * together are parted only where one message cannot hold them; anything else of one millisecond only where it is too much for
 * one message or one delivery. It prevents a replica, or a restore to the collector's head, with a new database and its old log.
 */
import { millisecondsOf } from '../shared/clock.ts'
import { RECORD_BYTES_MAX, RECORDS_MESSAGE_BYTES_TARGET, RECORDS_PER_MESSAGE_MAX } from '../shared/limits.ts'
import type { JournalRecord } from '../shared/record.ts'
import type { Journal } from './journal.ts'
import type { JournalEntry } from './journal-records.ts'
import { walOf } from './looks.ts'

/** By how much more is read where one moment is more than was read. */
const BYTES_GROWTH = 8

/** Whether a delivery may end between two consecutive records; `isPressing`: though they are of one millisecond. */
export function mayPart(before: JournalRecord, after: JournalRecord, isPressing: boolean): boolean {
  if (millisecondsOf(before.time) !== millisecondsOf(after.time)) return true
  return isPressing && !isDatabaseWithLog(before, after)
}

function isDatabaseWithLog(before: JournalRecord, after: JournalRecord): boolean {
  const isOfFiles = before.kind === 'put' && (after.kind === 'put' || after.kind === 'remove')
  return isOfFiles && before.volume === after.volume && after.path === walOf(before.path)
}

/**
 * Records from `from` on for one message: RECORDS_MESSAGE_BYTES_TARGET of them, or one moment where that is larger, at least
 * one. @throws damage
 */
export async function readMoments(journal: Pick<Journal, 'read' | 'head'>, from: number): Promise<JournalEntry[]> {
  for (let bytesMax = RECORDS_MESSAGE_BYTES_TARGET; ; bytesMax *= BYTES_GROWTH) {
    const entries = await journal.read(from, bytesMax, RECORDS_PER_MESSAGE_MAX)
    // An append is in the journal as a whole, so its head is the end of a moment.
    if (entries.at(-1)?.record.seq === journal.head.seq) return entries
    const end = lastCut(entries, false)
    if (end !== undefined) return entries.slice(0, end)
    const isAsLarge = entries.length === RECORDS_PER_MESSAGE_MAX || bytesMax * BYTES_GROWTH > RECORD_BYTES_MAX
    if (isAsLarge) return entries.slice(0, lastCut(entries, true))
  }
}

/** What comes after the last of the entries is not known: the cut is before one of them. */
function lastCut(entries: readonly JournalEntry[], isPressing: boolean): number | undefined {
  const last = entries.findLastIndex(({ record }, i) => {
    const before = entries[i - 1]?.record
    return before !== undefined && mayPart(before, record, isPressing)
  })
  return last < 0 ? undefined : last
}
