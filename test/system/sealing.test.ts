/** Full files that are sealed by processes that are killed, or whose disk fails, at every step. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Repository } from '../../collector/repository/repository.ts'
import { SEGMENT_BYTES_TARGET } from '../../shared/limits.ts'
import { canInject, SWEEP_MS_MAX, sweep } from '../support/fault-steps.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'
import { type Archive, ackedIn, expectFolded, expectSound, finish, keyOf, repositoryOf, workOn } from '../support/worked-archive.ts'
import { writeJournal } from '../support/written-journal.ts'

const XATTR_BYTES = 60_000

/** A file whose record is large, and its content small. */
function large(writer: JournalWriter, path: string): void {
  const xattrs = [{ name: 'user.x', value: randomBytes(XATTR_BYTES).toString('latin1') }]
  writer.file(path, randomBytes(3000), { xattrs })
}

/** A segment that the next record fills, and a journal of that and more. */
async function nearlyFull(): Promise<Archive & { readonly from: number }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  writer.put('d', directoryVersion())
  while (store.repository.end('segment').offset < SEGMENT_BYTES_TARGET - 2 * XATTR_BYTES) {
    large(writer, `d/${writer.end.seq}`)
    await store.send(writer)
  }
  await store.stop()
  const from = writer.written.length
  for (let i = 0; i < 4; i++) large(writer, `d/more${i}`)
  writeJournal(join(store.directory, 'journal'), writer, from)
  return { directory: store.directory, key: store.dataKey.toString('hex'), writer, from }
}

/** Every full file is sealed, with an index and parity. @returns how many there are */
function expectSealed(archive: Archive): number {
  const repository = Repository.open(repositoryOf(archive), keyOf(archive))
  try {
    const numbers = repository.numbers('segment').filter((number) => repository.sizeOf('segment', number) >= SEGMENT_BYTES_TARGET)
    for (const number of numbers) {
      expect(repository.extentOf('segment', number)?.state).toBe('sealed')
      const file = repository.file('segment', number)
      expect(file.sealedIndex()).toBeDefined()
      expect([...file.scan()].some((found) => found.kind === 'frame' && found.type === 'parity')).toBe(true)
    }
    return numbers.length
  } finally {
    repository.close()
  }
}

describe.skipIf(!canInject)('sealing', () => {
  it(
    'beside commits is finished by the next start, wherever it was cut short, and loses nothing that was acknowledged',
    async () => {
      const archive = await nearlyFull()
      const runs = await sweep({
        // Those of the catalog are the same at each start.
        below: '/repository/',
        sampleEvery: 4,
        prepare: () => workOn(archive, 'commit', 'DATA/journal'),
        judge: async (work, { stdout }, fault) => {
          await expectSound(work, ackedIn(work, stdout, archive.from))
          const { stdout: said, stderr } = await finish(work, 'commit', 'DATA/journal')
          expect(said, stderr).toMatch(/(^|\n)done\n$/)
          expect(said).not.toContain('unsealed')
          const full = expectSealed(work)
          // After a commit that failed, what was being filled is given up.
          if (fault === 'kill') expect(full).toBe(1)
          await expectSound(work)
          await expectFolded(work)
        },
      })
      expect(runs).toBeGreaterThan(4)
    },
    SWEEP_MS_MAX,
  )
})
