import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { openCatalog } from '../../collector/catalog-opening.ts'
import { replay } from '../../collector/replay.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { silentLog } from '../../shared/log.ts'
import { ROOT } from '../../shared/path.ts'
import { JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

describe('a damaged catalog', () => {
  it.each(['000003.log', 'CURRENT'])('whose %s is damaged is made anew from the repository, with nothing missing', async (name) => {
    const store = await Store.open()
    const writer = new JournalWriter()
    for (let i = 0; i < 600; i++) {
      writer.put(`link${i}`, symlinkVersion(`${i}`))
      if (i % 60 === 0) await store.send(writer)
    }
    await store.send(writer)
    await store.stop()
    const directory = join(store.directory, 'catalog')
    const log = readdirSync(directory).find((file) => file === name) ?? readdirSync(directory).find((file) => file.endsWith('.log')) ?? ''
    const bytes = readFileSync(join(directory, log))
    const at = Math.floor(bytes.length / 2)
    bytes.fill(0x5a, at, Math.min(at + 64, bytes.length))
    writeFileSync(join(directory, log), bytes)

    const catalog = await openCatalog(directory, silentLog)
    const { damage } = await replay(Repository.open(store.repositoryDirectory, store.dataKey), catalog)
    expect(damage).toEqual([])
    const found = []
    for await (const entry of catalog.treeAt(writer.agent, VOLUME, ROOT, writer.end)) found.push(entry.path)
    expect(found).toHaveLength(601)
    expect(catalog.chainEnd(writer.agent)?.hash).toBe(writer.end.hash)
    await catalog.close()
  })

  it('is not what a full disk makes of it: the catalog stays where it is', async () => {
    const store = await Store.open()
    await store.stop()
    const directory = join(store.directory, 'catalog')
    vi.spyOn(Catalog, 'open').mockRejectedValueOnce(new PacsimileError('space', 'Opening the catalog: No space left on device'))
    await expect(openCatalog(directory, silentLog)).rejects.toMatchObject({ code: 'space' })
    expect(readdirSync(store.directory).filter((name) => name.startsWith('catalog'))).toEqual(['catalog'])
  })

  it('is not what a rebuild or a checkpoint leaves that is killed: that is removed, and nothing else', async () => {
    const store = await Store.open()
    await store.stop()
    const directory = join(store.directory, 'catalog')
    for (const name of ['partial', 'links', 'equal', 'different-1', 'damaged-1']) mkdirSync(`${directory}.${name}`)
    const catalog = await openCatalog(directory, silentLog)
    await catalog.close()
    expect(readdirSync(store.directory).filter((name) => name.startsWith('catalog.'))).toEqual(['catalog.damaged-1', 'catalog.different-1'])
  })

  it('gives its lock back where it cannot be walked', async () => {
    const store = await Store.open()
    await store.stop()
    vi.spyOn(Catalog.prototype, 'agents').mockRejectedValueOnce(new PacsimileError('format-invalid', 'a summary is malformed'))
    const catalog = await openCatalog(join(store.directory, 'catalog'), silentLog)
    await catalog.close()
    const [aside] = readdirSync(store.directory).filter((name) => name.startsWith('catalog.damaged-'))
    const old = await Catalog.open(join(store.directory, aside ?? ''))
    await old.close()
  })
})
