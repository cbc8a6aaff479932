import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { faultOfTable } from '../../collector/catalog-tables.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const FLIPS = 300

/** Tables as LevelDB writes them: some blocks compress, some do not. */
async function tables(): Promise<string[]> {
  const directory = join(scratchDirectory(), 'catalog')
  const random = new Random(3)
  for (let round = 0; round < 3; round++) {
    const catalog = await Catalog.open(directory)
    const operations = Array.from({ length: 2000 }, (_, i) => ({
      type: 'put' as const,
      key: Buffer.from(`a common beginning of all keys ${round} ${i}`),
      value: i % 3 === 0 ? random.bytes(100) : Buffer.alloc(100, i),
    }))
    await catalog.write(operations)
    await catalog.close()
  }
  // A log becomes a table when it is opened again.
  const catalog = await Catalog.open(directory)
  await catalog.close()
  return readdirSync(directory)
    .filter((name) => name.endsWith('.ldb'))
    .map((name) => join(directory, name))
}

describe('the tables of a database', () => {
  it('are sound as they were written', async () => {
    const found = await tables()
    expect(found.length).toBeGreaterThan(1)
    for (const table of found) expect(faultOfTable(table)).toBeUndefined()
  })

  it('are not when any bit is another one, or a part is missing', async () => {
    const [table = ''] = await tables()
    const whole = readFileSync(table)
    const random = new Random(4)
    for (let i = 0; i < FLIPS; i++) {
      const bytes = Buffer.from(whole)
      // The footer, which is read first, often enough.
      const at = i % 5 === 0 ? whole.length - 1 - random.below(48) : random.below(whole.length)
      // The eighth bit of a number in the footer may say the same in more bytes.
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(at >= whole.length - 48 ? 7 : 8))
      writeFileSync(table, bytes)
      const isPadding = at >= whole.length - 48 && at < whole.length - 8 && whole[at] === 0
      if (!isPadding) expect(faultOfTable(table), `byte ${at} of ${whole.length}`).toBeDefined()
    }
    for (let i = 0; i < 20; i++) {
      writeFileSync(table, whole.subarray(0, random.below(whole.length)))
      expect(faultOfTable(table)).toBeDefined()
    }
    writeFileSync(table, whole)
    expect(faultOfTable(table)).toBeUndefined()
  })
})
