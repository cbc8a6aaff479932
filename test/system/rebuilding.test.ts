/** `rebuild`, killed, or with a disk that fails, at every step. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { initCollector } from '../../collector/init.ts'
import { openKeys } from '../../collector/repository/keys.ts'
import { readDescription } from '../../collector/repository/repository.ts'
import { ERRORS } from '../../shared/errors.ts'
import { canInject, SWEEP_MS_MAX, sweep } from '../support/fault-steps.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { type Archive, expectFolded, expectSound, finish, workOn } from '../support/worked-archive.ts'
import { writeJournal } from '../support/written-journal.ts'

const MAIN = join(import.meta.dirname, '../../dist/collector/cli/main.js')
const FILES = 40

/** The data directory of a collector that has taken in a journal. */
async function filled(): Promise<Archive> {
  const directory = join(scratchDirectory(), 'data')
  await initCollector({ dataDir: directory })
  const repository = join(directory, 'repository')
  const key = openKeys(repository, readDescription(repository).id, { kind: 'key-file', file: join(directory, 'keys/repository.key') })
  const writer = new JournalWriter()
  writer.put('d', directoryVersion())
  for (let i = 0; i < FILES; i++) writer.file(`d/${i}`, Buffer.from(`content ${i} `.repeat(100)))
  const archive = { directory, key: key.toString('hex'), writer }
  writeJournal(join(directory, 'journal'), writer, 0)
  expect((await finish(archive, 'commit', 'DATA/journal')).stdout).toMatch(/done\n$/)
  return archive
}

describe.skipIf(!canInject)('rebuild', () => {
  it(
    'that is cut short leaves a collector that starts with everything, and is done by the next one',
    async () => {
      const archive = await filled()
      const runs = await sweep({
        sampleEvery: 3,
        prepare: () => {
          const work = workOn(archive)
          const command = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'rebuild', '--json', '--data', work.directory]
          return { ...work, command }
        },
        judge: async (work, { status, stdout, stderr }, fault, { call }) => {
          if (status === 0) expect(JSON.parse(stdout)).toMatchObject({ before: 'equal' })
          else if (status !== undefined) {
            expect([ERRORS.io.exit, ERRORS.space.exit]).toContain(status)
            const { error } = JSON.parse(stderr) as { error: { message: string } }
            expect(error.message).toMatch(/^(Rebuilding|Opening|Writing|Reading|Removing) .*\/catalog.*|the catalog: .+/)
            // Making a directory with its parents, Node tells what it found after it was refused.
            if (call !== 'mkdir') expect(error.message).toMatch(fault === 'EIO' ? /EIO|nput\/output error/ : /ENOSPC|o space left/)
          }
          const start = await finish(work, 'open')
          expect(start.stdout, start.stderr).toBe('done\n')
          expect(readdirSync(work.directory).filter((name) => name.startsWith('catalog.'))).toEqual([])
          await expectSound(work)
          await expectFolded(work)
        },
      })
      expect(runs).toBeGreaterThan(4)
    },
    SWEEP_MS_MAX,
  )
})
