import { describe, expect, it } from 'vitest'
import { Delivery } from '../../agent/delivery.ts'
import type { Journal } from '../../agent/journal.ts'
import type { JournalEntry } from '../../agent/journal-records.ts'
import { readMoments } from '../../agent/moments.ts'
import { millisecondsOf, systemClock } from '../../shared/clock.ts'
import { digestOf } from '../../shared/digest.ts'
import { JOURNAL_BATCH_MAX, RECORDS_PER_MESSAGE_MAX } from '../../shared/limits.ts'
import type { Change } from '../../shared/record.ts'
import { FIRST, fileVersion, openJournal, put } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const MB = 1_000_000

function file(path: string, size = 10): Change {
  return put(path, fileVersion('', { size, chunks: [{ digest: digestOf(Buffer.from(path)), length: size }] }))
}

function pair(name: string, size = 10): Change[] {
  return [file(name, size), file(`${name}-wal`, size)]
}

async function readAll(journal: Journal): Promise<JournalEntry[][]> {
  const reads: JournalEntry[][] = []
  for (let seq = 1; seq <= journal.head.seq; seq = (reads.at(-1)?.at(-1)?.record.seq ?? seq) + 1)
    reads.push(await readMoments(journal, seq))
  return reads
}

/** The pieces that are sent, as the milliseconds of their records. */
function pieces(reads: readonly JournalEntry[][]): number[][] {
  const deliveries = reads.flatMap((entries) => [...Delivery.of(entries)])
  return deliveries.map(({ entries }) => entries.map(({ record }) => millisecondsOf(record.time)))
}

const paths = (entries: readonly JournalEntry[]): string[] =>
  entries.map(({ record }) => (record.kind === 'put' ? record.path : record.kind))

describe('the moments of a journal', () => {
  it('are read and delivered whole, whatever was appended together', async () => {
    const random = new Random(7)
    let now = systemClock.now()
    const journal = await openJournal(scratchDirectory(), 1, { now: () => (now += 1) })
    await journal.append([FIRST])
    for (let i = 0; i < 40; i++) {
      const count = random.below(JOURNAL_BATCH_MAX) + 1
      await journal.append(Array.from({ length: count }, (_, j) => file(`f${i}.${j}`, 1 + random.below(20_000))))
    }
    const reads = await readAll(journal)
    expect(reads.flat().map(({ record }) => record.seq)).toEqual(Array.from({ length: journal.head.seq }, (_, i) => i + 1))
    expect(reads.length).toBeGreaterThan(4)
    const sent = pieces(reads)
    for (const [i, piece] of sent.entries()) expect(piece.at(-1)).not.toBe(sent[i + 1]?.[0])
  })

  it('may be larger than what is read at once', async () => {
    const journal = await openJournal(scratchDirectory())
    const long = `${'d'.repeat(200)}/`.repeat(19)
    await journal.append([FIRST])
    await journal.append(Array.from({ length: 600 }, (_, i) => file(`${long}${i}`)))
    await journal.append([file('after')])
    const reads = await readAll(journal)
    expect(reads.map((entries) => entries.length)).toEqual([1, 601])
  })

  it('are parted by content and by count when they are too large, but never between a database and its log', async () => {
    const wall = { now: (): number => 1_700_000_000_000 }
    const journal = await openJournal(scratchDirectory(), 1, wall)
    await journal.append([FIRST])
    for (let i = 0; i < 30; i++) await journal.append([file(`f${i}`, 3 * MB), ...pair(`large${i}.db`, 7 * MB)])
    for (let i = 0; i < 5; i++) await journal.append(Array.from({ length: 600 }, (_, j) => pair(`small${i}.${j}.db`)).flat())
    const reads = await readAll(journal)
    expect(reads[0]?.length).toBeGreaterThanOrEqual(RECORDS_PER_MESSAGE_MAX - 2)
    const sent = reads.flatMap((entries) => [...Delivery.of(entries)]).map(({ entries }) => paths(entries))
    expect(sent.length).toBeGreaterThan(4)
    for (const piece of sent) expect(piece[0]).not.toMatch(/-wal$/)
    expect(sent.flat()).toHaveLength(journal.head.seq)
  })
})
