import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Materializer } from '../../collector/materialize.ts'
import { ReplicaProblems } from '../../collector/replica-problems.ts'
import { ReplicaVolume } from '../../collector/replica-volume.ts'
import { silentLog } from '../../shared/log.ts'
import type { Position, RecordSummary } from '../../shared/record.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'

const START: Position = { epoch: 0, seq: 0 }

it('finishes a directory that was made in a round in whose middle its directory was moved on', async () => {
  const store = await Store.open()
  const writer = new JournalWriter()
  const root = scratchDirectory()
  let isMoved = false
  const volume = new ReplicaVolume({
    agent: writer.agent,
    volume: VOLUME,
    files: new Materializer(root, () => Buffer.alloc(0), { setuid: false, special: false }),
    catalog: store.catalog,
    problems: new ReplicaProblems(),
    log: silentLog,
    // Between two paths of the round, and behind the last one.
    breathe: async () => {
      if (isMoved || lstatSync(join(root, 'a/b'), { throwIfNoEntry: false }) === undefined) return
      isMoved = true
      writer.rename('a', 'c')
      await store.send(writer)
    },
    keepAside: () => Promise.resolve(),
  })
  const apply = async (applied: Position, until: Position): Promise<void> => {
    const records: RecordSummary[] = []
    for await (const record of store.catalog.summaries(writer.agent, applied, until)) if (record.kind !== 'epoch') records.push(record)
    await volume.apply(records, { applied, until, trusted: true })
  }
  writer.put('a', directoryVersion())
  writer.put('a/b', directoryVersion({ mode: 0o755, mtimeNs: 1_234_567_890_123_456_789n }))
  await store.send(writer)
  const first = writer.end
  await apply(START, first)
  expect(isMoved).toBe(true)
  await apply(first, writer.end)
  const { mode, mtimeNs } = lstatSync(join(root, 'c/b'), { bigint: true })
  expect({ mode: mode & 0o7777n, mtimeNs }).toEqual({ mode: 0o755n, mtimeNs: 1_234_567_890_123_456_789n })
  volume.close()
})
