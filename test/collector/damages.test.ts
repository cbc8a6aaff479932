import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { CatalogBatch } from '../../collector/catalog-batch.ts'
import { Damages } from '../../collector/damages.ts'
import { READ_FROM_START } from '../../collector/repository/repository.ts'
import { scratchDirectory } from '../support/scratch.ts'

const at = (file: string, offset: number) => ({ file, offset, reason: `reason ${offset}` })

/** With damage that was met when the catalog was made. */
async function catalogWith(...met: ReturnType<typeof at>[]): Promise<Catalog> {
  const catalog = await Catalog.open(join(scratchDirectory(), 'catalog'))
  onTestFinished(() => catalog.close())
  const batch = new CatalogBatch(catalog)
  for (const damage of met) batch.addDamage(damage)
  await batch.write({ packs: READ_FROM_START, segments: READ_FROM_START })
  return catalog
}

describe('the known damage', () => {
  it('is what reading a file again has found, and is remembered', async () => {
    const catalog = await catalogWith()
    const damages = await Damages.open(catalog)
    await damages.scrubbed('a', [at('a', 1), at('a', 2)], true)
    await damages.scrubbed('b', [at('b', 1)], true)
    await damages.scrubbed('a', [at('a', 2)], true)
    const places = (known: Damages): unknown => known.list.map(({ file, offset }) => `${file} ${offset}`).sort((a, b) => a.localeCompare(b))
    expect(places(damages)).toEqual(['a 2', 'b 1'])
    expect(damages.wasMet('a')).toBe(false)
    const again = await Damages.open(catalog)
    expect(places(again)).toEqual(places(damages))
    await again.scrubbed('a', [], true)
    await again.scrubbed('b', [], true)
    expect(again.list).toEqual([])
    expect(await catalog.damage()).toEqual([])
  })

  it('of a file that is right again is told while the catalog lacks what was there', async () => {
    const catalog = await catalogWith(at('segment', 7))
    const damages = await Damages.open(catalog)
    expect(damages.wasMet('segment')).toBe(true)
    await damages.scrubbed('segment', [at('segment', 7), at('segment', 9)], false)
    expect(damages.list.map(({ offset }) => offset).sort((a, b) => a - b)).toEqual([7, 9])
    for (let round = 0; round < 2; round++) {
      await damages.scrubbed('segment', [], false)
      expect(damages.list).toHaveLength(1)
      expect(damages.list[0]?.reason).toContain('pacsimile rebuild')
    }
    expect((await Damages.open(catalog)).wasMet('segment')).toBe(true)
    await damages.scrubbed('segment', [], true)
    expect(damages.list).toEqual([])
  })
})
