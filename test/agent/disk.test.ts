/** The agent's databases on a disk that is full, read-only, or lies. */
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Ballast } from '../../agent/ballast.ts'
import { Database } from '../../agent/database.ts'
import { Journal, type JournalOptions } from '../../agent/journal.ts'
import { HybridClock, systemClock } from '../../shared/clock.ts'
import { BALLAST_BYTES } from '../../shared/limits.ts'
import { silentLog } from '../../shared/log.ts'
import type { Change, JournalRecord } from '../../shared/record.ts'
import { FIRST, fileVersion, put } from '../support/agent-parts.ts'
import { LoneAgent } from '../support/lone-agent.ts'
import { SmallDisk } from '../support/small-disk.ts'

const MiB = 1 << 20
const ALL = Number.MAX_SAFE_INTEGER
const isRoot = process.getuid?.() === 0

async function openJournal(directory: string, options: Partial<JournalOptions> = {}): Promise<Journal> {
  const journal = await Journal.open({
    directory: join(directory, 'log'),
    epoch: 1,
    clock: new HybridClock(systemClock),
    log: silentLog,
    ...options,
  })
  onTestFinished(() => journal.close())
  return journal
}

function changes(count: number, chunks = 1): Change[] {
  return Array.from({ length: count }, (_, i) => put(`file${i}`, fileVersion(Array.from({ length: chunks }, (_chunk, n) => `${i} ${n}`))))
}

async function seqs(journal: Journal): Promise<number[]> {
  return (await journal.read(1, ALL, ALL)).map(({ record }) => record.seq)
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)

describe.skipIf(!isRoot)('a database on a full disk', () => {
  it('takes nothing after a write that failed, until it was reopened: LevelDB would acknowledge and lose it', async () => {
    const disk = new SmallDisk(16 * MiB)
    const database = await Database.open(join(disk.directory, 'log'))
    onTestFinished(() => database.close())
    const value = Buffer.alloc(4096, 1)
    await database.write([{ type: 'put', key: 'before', value }], { sync: true })
    disk.fill()
    const failing = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) await database.write([{ type: 'put', key: `full${i}`, value: Buffer.alloc(MiB, i) }], { sync: true })
    }
    await expect(failing()).rejects.toMatchObject({ code: 'space' })
    disk.free()
    await expect(database.write([{ type: 'put', key: 'after', value }], { sync: true })).rejects.toMatchObject({ code: 'space' })
    await expect(database.clear({ gte: 'a', lt: 'b' })).rejects.toMatchObject({ code: 'space' })
    await database.reopen()
    await database.write([{ type: 'put', key: 'after', value }], { sync: true })
    await database.reopen()
    expect(await database.getMany(['before', 'after'])).toEqual([value, value])
  })
})

describe.skipIf(!isRoot)('the ballast', () => {
  it('is made of real blocks, and never where the floor would be reached by it', async () => {
    const disk = new SmallDisk(80 * MiB)
    const ballast = Ballast.open(disk.directory, silentLog)
    await ballast.make()
    expect(statSync(join(disk.directory, 'ballast')).blocks * 512).toBeGreaterThanOrEqual(BALLAST_BYTES)
    const small = new SmallDisk(32 * MiB)
    await Ballast.open(small.directory, silentLog).make()
    expect(readdirSync(small.directory)).not.toContain('ballast')
  })

  it('lets a journal be opened on a full disk, and be read and trimmed while it waits for room', async () => {
    const disk = new SmallDisk(80 * MiB)
    const ballast = Ballast.open(disk.directory, silentLog)
    await ballast.make()
    let isRoomToWrite = false
    const journal = await openJournal(disk.directory, { makeRoom: () => ballast.release(), isRoomToWrite: () => isRoomToWrite })
    await journal.append([FIRST, ...changes(19)])
    disk.fill()
    const appending = journal.append(changes(60, 3000))
    await expect.poll(() => ballast.isThere, { timeout: 10_000 }).toBe(false)
    await expect.poll(() => seqs(journal).catch(() => []), { timeout: 10_000 }).toEqual(upTo(20))
    const hash = await journal.hashAt(10)
    if (hash === undefined) throw new Error('the record is not there')
    journal.ack('repository', { epoch: 1, seq: 10, hash })
    await journal.trim('repository')
    expect(journal.oldest).toBe(10)
    expect(journal.failure).toMatchObject({ code: 'space' })
    disk.free()
    isRoomToWrite = true
    expect((await appending).map(({ record }) => record.seq)).toEqual(upTo(80).slice(20))
    expect(journal.takeOutage()).toMatchObject({ cause: 'the journal could not be written (space)' })
    expect(journal.takeOutage()).toBeUndefined()
    await ballast.make()
    expect(ballast.isThere).toBe(true)
  })

  it('is missing where there is none: the journal then cannot even be read until there is space', async () => {
    const disk = new SmallDisk(80 * MiB)
    const journal = await openJournal(disk.directory)
    await journal.append([FIRST, ...changes(19)])
    disk.fill()
    const appending = journal.append(changes(60, 3000))
    await expect.poll(() => journal.failure?.message, { timeout: 10_000 }).toMatch(/^Opening/)
    await expect(seqs(journal)).rejects.toThrow(/not open/)
    disk.free()
    await appending
    expect(await seqs(journal)).toEqual(upTo(80))
  })
})

describe.skipIf(!isRoot)('a journal on a disk that becomes read-only', () => {
  it('waits, says why, and goes on with everything when it can be written again', async () => {
    const disk = new SmallDisk(40 * MiB)
    const journal = await openJournal(disk.directory)
    await journal.append([FIRST, ...changes(19)])
    disk.fill()
    const appending = journal.append(changes(60, 3000))
    // Between two attempts to open it nobody writes, and only then a disk can be made read-only.
    await expect.poll(() => disk.remount('ro'), { timeout: 15_000 }).toBe(true)
    await expect.poll(() => journal.failure?.message, { timeout: 10_000 }).toMatch(/Read-only/)
    expect(journal.failure?.code).toBe('io')
    expect(disk.remount('rw')).toBe(true)
    disk.free()
    expect((await appending).map(({ record }) => record.seq)).toEqual(upTo(80).slice(20))
    await journal.close()
    expect(await seqs(await openJournal(disk.directory))).toEqual(upTo(80))
  })

  it('is not called damaged when it is opened there, nor moved away', async () => {
    const disk = new SmallDisk(40 * MiB)
    const journal = await openJournal(disk.directory)
    await journal.append([FIRST])
    await journal.close()
    expect(disk.remount('ro')).toBe(true)
    await expect(openJournal(disk.directory)).rejects.toMatchObject({ code: 'io' })
    expect(disk.remount('rw')).toBe(true)
    expect(await seqs(await openJournal(disk.directory))).toEqual([1])
  })
})

/** Flips one bit of the file that holds the newest records. */
function flipBit(directory: string, share: number): void {
  const name = readdirSync(directory).find((candidate) => candidate.endsWith('.log')) ?? ''
  const fd = openSync(join(directory, name), 'r+')
  const at = Math.floor(statSync(join(directory, name)).size * share)
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, at)
  writeSync(fd, Buffer.of((byte[0] ?? 0) ^ 0x10), 0, 1, at)
  closeSync(fd)
}

function told(record: JournalRecord): string {
  if (record.kind === 'gap') return `gap: ${record.cause}`
  return record.kind === 'put' ? `put ${record.path}` : record.kind
}

describe('one flipped bit in the log of the journal', () => {
  it.each([0.1, 0.4, 0.7, 0.95])('at %d of it ends the epoch with a gap, and nothing is lost in silence', async (share) => {
    const agent = new LoneAgent()
    const names = Array.from({ length: 10 }, (_, i) => `f${i}`)
    for (const name of names) agent.write(name, name)
    await agent.startAndWatch()
    await agent.stop()
    flipBit(join(agent.stateDir, 'log'), share)
    await agent.startAndWatch()
    expect(agent.status?.epoch).toBe(2)
    await agent.stop()
    const records = (await agent.records()).filter(({ epoch }) => epoch === 2).map(told)
    expect(records).toEqual(expect.arrayContaining(names.map((name) => `put ${name}`)))
    expect(records.slice(-2)).toEqual(['sweep', 'gap: a new epoch began (damaged)'])
  })
})

describe('what a scan leaves in the state', () => {
  it('that cannot be written has the agent begin again from what is durable, also where nothing is recorded any more', async () => {
    const agent = new LoneAgent()
    agent.everySeconds = 1
    for (let i = 0; i < 3; i++) agent.write(`d${i}/f`, 'content')
    await agent.startAndWatch()
    const writes = vi.spyOn(ClassicLevel.prototype, 'batch')
    onTestFinished(() => writes.mockRestore())
    writes.mockImplementationOnce(() => {
      throw new Error('IO error: No space left on device')
    })
    await expect.poll(() => agent.status?.alarms.join(), { timeout: 15_000, interval: 10 }).toContain('No space left')
    await agent.is('watching')
    await expect.poll(() => agent.status?.volumes[0]?.lastScan?.differences, { timeout: 15_000 }).toBe(0)
    await agent.stop()
    const records = await agent.records()
    expect(records.filter(({ kind }) => kind === 'put')).toHaveLength(7)
  })
})

describe('an agent whose journal cannot be written', () => {
  it('ends when it is told to, though what a volume is to record waits for room', async () => {
    const agent = new LoneAgent()
    await agent.startAndWatch()
    await agent.stop()
    const writes = vi.spyOn(ClassicLevel.prototype, 'batch').mockImplementation(() => {
      throw new Error('IO error: No space left on device')
    })
    onTestFinished(() => writes.mockRestore())
    agent.start()
    // Nothing has changed: it is the gap, which its scan is to close.
    await expect.poll(() => agent.status?.alarms.join() ?? '', { timeout: 15_000 }).toContain('the journal cannot be written')
    await agent.stop()
    writes.mockRestore()
    await agent.startAndWatch()
    await agent.stop()
    expect((await agent.records()).map(told).filter((record) => record.startsWith('gap'))).toEqual(['gap: the agent was not running'])
  }, 60_000)

  it('and is new ends with the reason when it is told to', async () => {
    const agent = new LoneAgent()
    const writes = vi.spyOn(ClassicLevel.prototype, 'batch').mockImplementation(() => {
      throw new Error('IO error: No space left on device')
    })
    onTestFinished(() => writes.mockRestore())
    agent.start()
    await expect.poll(() => writes.mock.calls.length, { timeout: 15_000 }).toBeGreaterThan(0)
    await expect(agent.stop()).rejects.toMatchObject({ code: 'space' })
    writes.mockRestore()
    agent.write('f', 'content')
    await agent.startAndWatch()
    await agent.stop()
    expect((await agent.records()).map(told)).toContain('put f')
  }, 60_000)
})
