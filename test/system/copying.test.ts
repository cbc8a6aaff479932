/** The copier of a copy in a directory, killed, or with a disk that fails, at every step. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import { checkedConfig } from '../../collector/config.ts'
import { addDefinition } from '../../collector/copy-definition.ts'
import { CopyStateFile } from '../../collector/copy-state.ts'
import { withPruning } from '../../collector/pruning.ts'
import { silentLog } from '../../shared/log.ts'
import { label } from '../../shared/path.ts'
import { canInject, SWEEP_MS_MAX, sweep } from '../support/fault-steps.ts'
import { directoryVersion, JournalWriter } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'
import { type Archive, expectSound, finish, keyOf, repositoryOf, workOn } from '../support/worked-archive.ts'
import { Random } from '../support/workload.ts'

const FILES = 3

/** Files that are sealed, and others behind them. */
async function write(store: Store, writer: JournalWriter, random: Random): Promise<void> {
  for (let i = 0; i < FILES; i++) writer.file(`d/${i}`, random.bytes(4000))
  await store.send(writer)
  await store.seal(writer.agent)
  writer.file(`more${writer.end.seq}`, random.bytes(4000))
  await store.send(writer)
}

async function archive(): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  writer.put('d', directoryVersion())
  await write(store, writer, new Random(1))
  await store.stop()
  return { directory: store.directory, key: store.dataKey.toString('hex'), writer }
}

/** With a copy of what was there before packs went, and others came. */
async function copied(): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const random = new Random(2)
  const found = { directory: store.directory, key: store.dataKey.toString('hex'), writer }
  writer.put('d', directoryVersion())
  for (let i = 0; i < 2; i++) await write(store, writer, random)
  await store.stop()
  expect((await finish(found, 'copy', 'DATA/copy')).stdout).toBe('done\n')
  addDefinition(store.directory, {
    name: label('usb', 'The name of a copy'),
    definition: { version: 1, url: `fs:${join(store.directory, 'copy')}`, added: new Date().toISOString() },
  })
  await store.start()
  await write(store, writer, random)
  await store.stop()
  const config = checkedConfig({ repository: repositoryOf(found), parity: 'off', retention: { all: '0h', quarantine: '0h' } })
  for (let i = 0; i < 2; i++)
    await withPruning({ dataDir: store.directory, config, dataKey: store.dataKey, log: silentLog }, (pruning) => pruning.run())
  expect(new CopyStateFile(store.directory, 'usb').pending.length).toBeGreaterThan(0)
  return found
}

const filesIn = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(directory, name)).isFile())

/** It is the repository, to the last byte, and nothing else. */
function expectSame(work: Archive, copy: string): void {
  const repository = repositoryOf(work)
  const own = filesIn(repository).filter((name) => !name.endsWith('heals.jsonl'))
  const there = filesIn(copy).filter((name) => name !== 'writer.json')
  expect(there.toSorted()).toEqual(own.toSorted())
  for (const name of there) {
    const [here, there] = [join(repository, name), join(copy, name)]
    expect(readFileSync(there).equals(readFileSync(here)), name).toBe(true)
    if (/^(packs|segments)/.test(name)) expect(statSync(there).mode & 0o222, name).toBe(statSync(here).mode & 0o222)
  }
}

describe.skipIf(!canInject)('a copier', () => {
  it.each([
    ['that begins a copy', archive],
    ['that follows, and removes what went', copied],
  ])(
    '%s leaves a repository wherever it is cut short, and goes on',
    async (_, make) => {
      const whole = await make()
      const runs = await sweep({
        // What is kept of copies, and the copy.
        below: '/cop',
        sampleEvery: 6,
        prepare: () => workOn(whole, 'copy', 'DATA/copy'),
        judge: async (work, { status, stdout, stderr }) => {
          const copy = join(work.directory, 'copy')
          if (status !== undefined) {
            // Where its lock was left, it waits for a minute, lest somebody is at work there.
            expect(stdout).toMatch(/^(failing (io|space) .*: E[A-Z]+.*\n(failing locked .*\n)?)*(done|io|space)\n$/)
            if (!stdout.endsWith('done\n')) expect(stderr).toMatch(/: (E[A-Z]+|IO error)/)
          }
          if (existsSync(join(copy, 'repository.json')))
            expect(await checkRepository(copy, keyOf(work))).toMatchObject({ damage: [], affected: [] })
          const again = await finish(work, 'copy', 'DATA/copy')
          expect(again.stdout, again.stderr).toBe('done\n')
          expectSame(work, copy)
          expect(new CopyStateFile(work.directory, 'usb').pending).toEqual([])
          await expectSound(work, work.writer.end, copy)
        },
      })
      expect(runs).toBeGreaterThan(2)
    },
    SWEEP_MS_MAX,
  )
})
