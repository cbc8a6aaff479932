import { spawnSync } from 'node:child_process'
import { appendFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Database } from '../../agent/database.ts'
import { beginEpoch, readEpoch } from '../../agent/epoch.ts'
import type { Journal } from '../../agent/journal.ts'
import { hybridTime, millisecondsOf } from '../../shared/clock.ts'
import { digestOf } from '../../shared/digest.ts'
import { type Change, recordHash } from '../../shared/record.ts'
import { FIRST, fileVersion, openJournal, put } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

const ALL = Number.MAX_SAFE_INTEGER
const seqs = async (journal: Journal, from: number): Promise<number[]> =>
  (await journal.read(from, ALL, ALL)).map(({ record }) => record.seq)

function changes(count: number): Change[] {
  return Array.from({ length: count }, (_, i) => put(`file${i}`, fileVersion(`content ${i}`)))
}

async function journalOf(directory: string, count: number): Promise<Journal> {
  const journal = await openJournal(directory)
  await journal.append([FIRST, ...changes(count - 1)])
  return journal
}

/** Does something to the database behind the journal's back. */
async function tamper(directory: string, change: (database: Database, keys: string[]) => Promise<void>): Promise<void> {
  const database = await Database.open(join(directory, 'log'))
  const records = await database.page({ gte: 'r', lt: 's' })
  await change(
    database,
    records.map(([key]) => key),
  )
  await database.close()
}

describe('a journal', () => {
  it('gives consecutive numbers, rising times and the hash of the record before', async () => {
    const journal = await journalOf(scratchDirectory(), 1)
    const [first, second] = await journal.append(changes(2))
    expect([first?.record.seq, second?.record.seq]).toEqual([2, 3])
    expect(second?.record.previous).toBe(first && recordHash(first.bytes))
    expect(Number((second?.record.time ?? 0n) - (first?.record.time ?? 0n))).toBeGreaterThan(0)
    expect(journal.head).toMatchObject({ seq: 3, hash: second && recordHash(second.bytes) })
  })

  it('gives what is appended together one millisecond, however long it takes: a point never holds a part of it', async () => {
    const journal = await journalOf(scratchDirectory(), 1)
    const entries = await journal.append(changes(1000))
    expect(new Set(entries.map(({ record }) => millisecondsOf(record.time))).size).toBe(1)
    expect(new Set(entries.map(({ record }) => record.time)).size).toBe(1000)
  })

  it('keeps the order in which appends were made at the same time', async () => {
    const journal = await journalOf(scratchDirectory(), 1)
    const answers = await Promise.all(changes(50).map((change) => journal.append([change])))
    expect(answers.map(([entry]) => entry?.record.seq)).toEqual(Array.from({ length: 50 }, (_, i) => i + 2))
  })

  it('continues after it was closed, and never goes back in time', async () => {
    const directory = scratchDirectory()
    const journal = await journalOf(directory, 5)
    const { head } = journal
    await journal.close()
    const again = await openJournal(directory)
    expect(again.head).toEqual(head)
    const [entry] = await again.append(changes(1))
    expect(entry?.record).toMatchObject({ seq: 6, previous: head.hash })
    expect(Number((entry?.record.time ?? 0n) - head.time)).toBeGreaterThan(0)
    expect(await seqs(again, 1)).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('reads by bytes and by count, and at least one record', async () => {
    const journal = await journalOf(scratchDirectory(), 10)
    expect(await journal.read(3, 1, ALL)).toHaveLength(1)
    expect(await journal.read(3, ALL, 4)).toHaveLength(4)
    expect(await journal.read(11, ALL, ALL)).toEqual([])
  })

  it('wakes who waits for more', async () => {
    const journal = await journalOf(scratchDirectory(), 1)
    const waiting = journal.waitBeyond(1, new AbortController().signal)
    await journal.append(changes(1))
    await waiting
    expect(journal.head.seq).toBe(2)
  })

  it('keeps the acknowledged record when it is trimmed, and remembers the ack', async () => {
    const directory = scratchDirectory()
    const journal = await journalOf(directory, 10)
    const hash = await journal.hashAt(6)
    if (hash === undefined) throw new Error('no hash')
    journal.ack('repository', { epoch: 1, seq: 6, hash })
    await journal.trim('repository')
    expect(journal.oldest).toBe(6)
    await journal.close()
    const again = await openJournal(directory)
    expect(again.acked('repository')).toEqual({ epoch: 1, seq: 6, hash })
    expect(await seqs(again, 6)).toEqual([6, 7, 8, 9, 10])
    expect(await again.hashAt(6)).toBe(hash)
    expect(await again.hashAt(4)).toBeUndefined()
  })

  it('never takes an ack back', async () => {
    const journal = await journalOf(scratchDirectory(), 3)
    journal.ack('repository', { epoch: 1, seq: 3, hash: digestOf(Buffer.from('3')) })
    journal.ack('repository', { epoch: 1, seq: 2, hash: digestOf(Buffer.from('2')) })
    expect(journal.acked('repository').seq).toBe(3)
  })

  it.each([
    [
      'a record that is gone from the middle',
      async (database: Database, keys: string[]) => database.write([{ type: 'del', key: keys[4] ?? '' }], { sync: true }),
    ],
    [
      'a record that is gone from the front',
      async (database: Database, keys: string[]) => database.write([{ type: 'del', key: keys[0] ?? '' }], { sync: true }),
    ],
    [
      'a flipped bit',
      async (database: Database, keys: string[]) => {
        const value = (await database.get(keys[4] ?? '')) ?? Buffer.alloc(0)
        value[20] = (value[20] ?? 0) ^ 1
        await database.write([{ type: 'put', key: keys[4] ?? '', value }], { sync: true })
      },
    ],
    [
      'a record in the place of another',
      async (database: Database, keys: string[]) => {
        const value = (await database.get(keys[5] ?? '')) ?? Buffer.alloc(0)
        await database.write([{ type: 'put', key: keys[4] ?? '', value }], { sync: true })
      },
    ],
  ])('refuses to open with %s', async (_, change) => {
    const directory = scratchDirectory()
    const journal = await journalOf(directory, 10)
    await journal.close()
    await tamper(directory, change)
    await expect(openJournal(directory)).rejects.toMatchObject({ code: 'damage' })
  })

  it('refuses to open when it ends before what was acknowledged', async () => {
    const directory = scratchDirectory()
    const journal = await journalOf(directory, 10)
    journal.ack('repository', { epoch: 1, seq: 10, hash: journal.head.hash })
    await journal.trim('repository')
    await journal.close()
    await tamper(directory, async (database, keys) => database.write([{ type: 'del', key: keys.at(-1) ?? '' }], { sync: true }))
    await expect(openJournal(directory)).rejects.toMatchObject({ code: 'damage' })
  })

  it('says who holds it when it is open already', async () => {
    const directory = scratchDirectory()
    await journalOf(directory, 1)
    await expect(openJournal(directory)).rejects.toMatchObject({ code: 'locked' })
  })

  it('begins another epoch at 1 beside the old one', async () => {
    const directory = scratchDirectory()
    const journal = await journalOf(directory, 4)
    await journal.close()
    const next = await openJournal(directory, 2)
    expect(next.head.seq).toBe(0)
    const [entry] = await next.append([FIRST])
    expect(entry?.record).toMatchObject({ epoch: 2, seq: 1 })
  })
})

describe.skipIf(process.getuid?.() !== 0)('a journal on a full disk', () => {
  it('waits with what is to be appended, and loses nothing of it or of what was before', async () => {
    const directory = tinyFilesystem()
    const journal = await journalOf(directory, 20)
    const filler = join(directory, 'filler')
    writeFileSync(filler, '')
    fillDisk(filler)
    const large = Array.from({ length: 40 }, (_, i) =>
      put(`large${i}`, fileVersion(Array.from({ length: 500 }, (_chunk, n) => `${i} ${n}`))),
    )
    const appending = journal.append(large)
    await expect.poll(() => journal.failure?.code, { timeout: 10_000 }).toBeDefined()
    rmSync(filler)
    expect((await appending).map(({ record }) => record.seq)).toEqual(large.map((_, i) => i + 21))
    expect(journal.failure).toBeUndefined()
    await journal.append(changes(3))
    await journal.close()
    expect(await seqs(await openJournal(directory), 1)).toEqual(Array.from({ length: 63 }, (_, i) => i + 1))
  })
})

/** A filesystem of 3 MB of its own, so that filling it harms nobody. */
function tinyFilesystem(): string {
  const directory = scratchDirectory()
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', directory])
  if (mounted.status !== 0) throw new Error(`mount failed: ${mounted.stderr.toString()}`)
  onTestFinished(() => void spawnSync('umount', [directory]))
  if (statSync(directory).dev === statSync(tmpdir()).dev) throw new Error('not a filesystem of its own')
  return directory
}

function fillDisk(file: string): void {
  const piece = Buffer.alloc(4096)
  for (let i = 0; i < 1024; i++) {
    try {
      appendFileSync(file, piece)
    } catch {
      return
    }
  }
  throw new Error('the disk is larger than it should be')
}

describe('the epoch file', () => {
  it('counts upwards from whatever is known', () => {
    const file = join(scratchDirectory(), 'epoch.json')
    expect(readEpoch(file)).toBeUndefined()
    const end = { epoch: 1, hash: digestOf(Buffer.from('end')), time: hybridTime(77n) }
    expect(beginEpoch(file, 'first', 0, undefined)).toMatchObject({ epoch: 1, reason: 'first', previousEpoch: 0 })
    expect(beginEpoch(file, 'rewound', 7, end)).toMatchObject({ epoch: 8, previousEpoch: 1, previousTime: 77n })
    expect(readEpoch(file)).toMatchObject({ epoch: 8, reason: 'rewound', previousHash: end.hash, previousTime: 77n })
    expect(beginEpoch(file, 'damaged', 2, undefined).epoch).toBe(9)
  })
})
