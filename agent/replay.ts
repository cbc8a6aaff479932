/**
 * Brings what is derived from the journal to the journal's head: the state, and which content is needed still.
 *
 * Invariant: after it, content is kept for exactly the records that are not acknowledged. It prevents a restarted agent from
 * dropping content that was promised, and a spool that never empties.
 */
import { RECORDS_MESSAGE_BYTES_TARGET, RECORDS_PER_MESSAGE_MAX } from '../shared/limits.ts'
import type { Held } from './held.ts'
import type { Journal } from './journal.ts'
import type { State } from './state.ts'

export async function replay(journal: Journal, state: State, held: Held, ackedSeq: number): Promise<void> {
  for (let seq = Math.max(journal.oldest, Math.min(state.applied, ackedSeq) + 1); seq <= journal.head.seq; ) {
    const entries = await journal.read(seq, RECORDS_MESSAGE_BYTES_TARGET, RECORDS_PER_MESSAGE_MAX)
    const records = entries.map(({ record }) => record)
    await state.apply(records.filter((record) => record.seq > state.applied))
    for (const record of records) {
      if (record.seq <= ackedSeq || record.kind !== 'put' || record.version.kind !== 'file') continue
      const digests = record.version.chunks.map(({ digest }) => digest)
      held.need(record.seq, digests, [])
    }
    seq += entries.length
  }
  held.release(ackedSeq)
  held.forgetUnneeded()
}
