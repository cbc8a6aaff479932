import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Database } from '../../agent/database.ts'
import { Thrift } from '../../agent/thrift.ts'
import { byteString } from '../../shared/path.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const ENTRIES = 20_000
const VALUE_BYTES = 1000

/** Resident kB of the mapped tables below a directory (proc_pid_smaps(5)). */
function mappedKb(directory: string): number {
  let isTable = false
  let sum = 0
  for (const line of readFileSync('/proc/self/smaps', 'latin1').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isTable = line.includes(directory) && line.endsWith('.ldb')
    else if (isTable && line.startsWith('Rss:')) sum += Number.parseInt(line.slice(4), 10)
  }
  return sum
}

describe('the thrift of an idle agent', () => {
  it('takes the tables of a database out of memory, and they are read again', async () => {
    const directory = scratchDirectory()
    const random = new Random(1)
    const key = (i: number): string => `r${String(i).padStart(8, '0')}`
    const database = await Database.open(join(directory, 'log'))
    onTestFinished(() => database.close())
    for (let from = 0; from < ENTRIES; from += 1000) {
      const writes = Array.from({ length: 1000 }, (_, i) => ({
        type: 'put' as const,
        key: key(from + i),
        value: random.bytes(VALUE_BYTES),
      }))
      await database.write(writes, { sync: false })
    }
    // What was opened anew lies in tables only.
    await database.reopen()
    const count = async (): Promise<number> => {
      let entries = 0
      for await (const page of database.pages({ gte: 'r', lt: 's' })) entries += page.length
      return entries
    }
    expect(await count()).toBe(ENTRIES)
    const before = mappedKb(directory)
    expect(before).toBeGreaterThan(10_000)
    new Thrift(byteString(directory), 0).tidy()
    expect(mappedKb(directory)).toBeLessThan(before / 10)
    expect(await count()).toBe(ENTRIES)
  })

  it('leaves alone what is little, and what it could not give back the last time', async () => {
    const directory = scratchDirectory()
    const database = await Database.open(join(directory, 'log'))
    onTestFinished(() => database.close())
    const all = Array.from({ length: 5000 }, (_, i) => ({ type: 'put' as const, key: `r${i}`, value: new Random(i).bytes(VALUE_BYTES) }))
    await database.write(all, { sync: false })
    await database.reopen()
    const readAll = async (): Promise<void> => {
      for await (const page of database.pages({ gte: 'r', lt: 's' })) expect(page.length).toBeGreaterThan(0)
    }
    await readAll()
    const before = mappedKb(directory)
    expect(before).toBeGreaterThan(2000)
    new Thrift(byteString(directory), Number.MAX_SAFE_INTEGER).tidy()
    expect(mappedKb(directory)).toBe(before)
    let resident = 1 << 30
    const thrift = new Thrift(byteString(directory), 0, () => resident)
    thrift.tidy()
    await readAll()
    const again = mappedKb(directory)
    expect(again).toBeGreaterThan(2000)
    thrift.tidy()
    expect(mappedKb(directory)).toBe(again)
    resident += 32 << 20
    thrift.tidy()
    expect(mappedKb(directory)).toBeLessThan(again / 10)
  })
})
