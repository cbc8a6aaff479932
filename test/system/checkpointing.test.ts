/** Checkpoints, and catalogs made from them, by processes that are killed, or whose disk fails, at every step. */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Catalog } from '../../collector/catalog.ts'
import { Checkpoints, catalogFromCheckpoint } from '../../collector/checkpoint.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { silentLog } from '../../shared/log.ts'
import { canInject, SWEEP_MS_MAX, sweep } from '../support/fault-steps.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { type Archive, expectFolded, expectSound, finish, keyOf, repositoryOf, workOn } from '../support/worked-archive.ts'

const FILES = 30

/** Of two rounds, with a checkpoint after the first. */
async function checkpointed(): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  for (let round = 0; round < 2; round++) {
    writer.put(`d${round}`, directoryVersion())
    for (let i = 0; i < FILES; i++) writer.file(`d${round}/f${i}`, Buffer.from(`content ${i} of ${round} `.repeat(100)))
    await store.send(writer)
    // Tables are what a database that is opened makes of its log.
    await store.stop()
    await store.start()
    const { catalog, repository, ingest } = store
    if (round === 0)
      await new Checkpoints({ directory: join(store.directory, 'catalog'), catalog, repository, ingest, log: silentLog }).make()
  }
  await store.stop()
  return { directory: store.directory, key: store.dataKey.toString('hex'), writer }
}

/** The newest checkpoint makes a catalog. @returns how far that reaches */
async function seqOfCheckpoint(archive: Archive): Promise<number> {
  const repository = Repository.open(repositoryOf(archive), keyOf(archive))
  try {
    const directory = join(scratchDirectory(), 'made')
    expect(catalogFromCheckpoint(repository, directory)).toBe(true)
    const catalog = await Catalog.open(directory)
    const end = catalog.chainEnd(archive.writer.agent)
    await catalog.close()
    return end?.seq ?? 0
  } finally {
    repository.close()
  }
}

describe.skipIf(!canInject)('a checkpoint', () => {
  it(
    'that is cut short leaves the one before it, and is made by the next one who makes it',
    async () => {
      const archive = await checkpointed()
      const before = await seqOfCheckpoint(archive)
      const runs = await sweep({
        sampleEvery: 4,
        prepare: () => workOn(archive, 'checkpoint'),
        judge: async (work, { status, stdout, stderr }) => {
          if (status !== undefined && !stdout.endsWith('done\n')) {
            expect(stdout).toMatch(/^(io|space)\n$/)
            expect(stderr).toMatch(/: .*(E[A-Z]+|IO error)/)
          }
          await expectSound(work)
          expect(await seqOfCheckpoint(work)).toBeGreaterThanOrEqual(before)
          const again = await finish(work, 'checkpoint')
          expect(again.stdout, again.stderr).toBe('done\n')
          expect(await seqOfCheckpoint(work)).toBeGreaterThan(before)
          await expectSound(work)
          await expectFolded(work)
        },
      })
      expect(runs).toBeGreaterThan(2)
    },
    SWEEP_MS_MAX,
  )
})

describe.skipIf(!canInject)('a catalog that is made from a checkpoint', () => {
  it(
    'is made by the next start, wherever the first was cut short',
    async () => {
      const archive = await checkpointed()
      rmSync(join(archive.directory, 'catalog'), { recursive: true })
      const runs = await sweep({
        sampleEvery: 4,
        prepare: () => workOn(archive, 'open'),
        judge: async (work, { status, stdout, stderr }) => {
          if (status !== undefined && !stdout.endsWith('done\n')) {
            expect(stdout).toMatch(/^(io|space)\n$/)
            expect(stderr).toMatch(/: .*(E[A-Z]+|IO error)/)
          }
          const again = await finish(work, 'open')
          expect(again.stdout, again.stderr).toBe('done\n')
          expect(existsSync(join(work.directory, 'catalog'))).toBe(true)
          expect(readdirSync(work.directory).filter((name) => name.startsWith('catalog.'))).toEqual([])
          await expectSound(work)
          await expectFolded(work)
        },
      })
      expect(runs).toBeGreaterThan(2)
    },
    SWEEP_MS_MAX,
  )
})
