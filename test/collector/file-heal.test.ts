import { createSecretKey, randomBytes } from 'node:crypto'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { nameOf } from '../../collector/repository/copy.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import { packPayload } from '../../collector/repository/frame.ts'
import { FrameFile } from '../../collector/repository/frame-file.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'
import { type HealedFile, scrubRepository } from '../../collector/scrub.ts'
import { CopiedArchive, damageFile } from '../support/copied-archive.ts'
import { QUARANTINE_MS } from '../support/pruned-archive.ts'

/** Some hours, each with a pack and a segment of its own, in both copies. */
async function archive(): Promise<CopiedArchive> {
  const archived = await CopiedArchive.open({})
  archived.sendsPerFile = 1
  for (let i = 0; i < 4; i++) {
    archived.writer.file('a', randomBytes(3000))
    await archived.hour()
  }
  await archived.copied()
  return archived
}

function healsOf({ store }: CopiedArchive): [string, string][] {
  const lines = readFileSync(join(store.repositoryDirectory, 'heals.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => {
    const { file, source } = JSON.parse(line) as HealedFile
    return [file, source]
  })
}

async function expectAll(archived: CopiedArchive): Promise<void> {
  for (const { position } of archived.points) expect(await archived.absent(position)).toEqual(new Map())
  await archived.expectWhole()
  await archived.expectRebuilt()
}

describe('a file of the repository that is not full', () => {
  it.each(['pack', 'segment'] as const)('is replaced by that of a copy where a %s is damaged, if only in its last frame', async (kind) => {
    const archived = await archive()
    const { repository } = archived.store
    damageFile(repository.pathOf(kind, 2), FILE_HEADER_BYTES + 60)
    damageFile(repository.pathOf(kind, 3), statSync(repository.pathOf(kind, 3)).size - 9)
    expect(await archived.scrubbed()).toEqual([])
    expect(healsOf(archived)).toEqual([2, 3].map((number) => [nameOf(kind, number), 'copy a']))
    await expectAll(archived)
  })

  it('is replaced though it was being written, and what comes next is in another one', async () => {
    const archived = await archive()
    const { store, writer } = archived
    for (let i = 0; i < 3; i++) {
      writer.file('b', randomBytes(3000))
      await store.send(writer)
    }
    await archived.copied()
    const [pack, segment] = [store.repository.end('pack').file, store.repository.end('segment').file]
    damageFile(store.repository.pathOf('pack', pack), FILE_HEADER_BYTES + 60)
    damageFile(store.repository.pathOf('segment', segment), FILE_HEADER_BYTES + 60)
    expect(await archived.scrubbed()).toEqual([])
    writer.file('c', randomBytes(3000))
    await archived.hour()
    expect(store.repository.end('segment').file).toBeGreaterThan(segment)
    expect(store.repository.end('pack').file).toBeGreaterThan(pack)
    await archived.copied()
    await archived.expectCopiesWhole()
    await expectAll(archived)
  })

  it('comes back from a copy where it is gone', async () => {
    const archived = await archive()
    const { repository, dataKey } = archived.store
    const paths = (['pack', 'segment'] as const).map((kind) => repository.pathOf(kind, 2))
    for (const path of paths) rmSync(path)
    const { left } = await scrubRepository(repository, dataKey, { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY })
    expect(new Map(left.map(({ file, reason }) => [file, reason]))).toEqual(new Map(paths.map((path) => [path, 'the file is missing'])))
    expect(await archived.scrubbed()).toEqual([])
    expect(healsOf(archived)).toEqual([
      [nameOf('segment', 2), 'copy a'],
      [nameOf('pack', 2), 'copy a'],
    ])
    await expectAll(archived)
  })

  it('is missing where no copy has it, and is damage that is told; what prune removed is not', async () => {
    const archived = await archive()
    const { store } = archived
    archived.pass(QUARANTINE_MS)
    await archived.pruneAll()
    await archived.copied()
    expect(store.repository.numbers('pack')).not.toContain(1)
    expect(await archived.scrubbed()).toEqual([])
    const pack = store.repository.numbers('pack').at(-1) ?? 0
    archived.writer.file('b', randomBytes(3000))
    await archived.hour()
    archived.away('a')
    archived.away('b')
    rmSync(store.repository.pathOf('pack', pack))
    expect(await archived.scrubbed()).toEqual([
      { file: store.repository.pathOf('pack', pack), offset: 0, reason: expect.stringContaining('the file is missing') },
    ])
  })

  it('is not replaced by what is whole and another history', async () => {
    const archived = await archive()
    const { repository, dataKey } = archived.store
    const name = nameOf('segment', 2)
    const { size } = statSync(repository.pathOf('segment', 2))
    const records = archived.writer.written.map(({ bytes }) => bytes)
    for (const place of [archived.placeOf('a'), archived.placeOf('b')]) {
      const path = join(place, name)
      rmSync(path)
      const other = FrameFile.create(path, { kind: 'segment', number: 2, repository: repository.id }, createSecretKey(dataKey))
      while (other.size < size) other.append('records', packPayload(encodeRecordGroup({ agent: archived.writer.agent, records })))
      await other.sync()
      other.close()
    }
    damageFile(repository.pathOf('segment', 2), FILE_HEADER_BYTES + 60)
    expect((await archived.scrubbed()).map(({ file }) => file)).toEqual([repository.pathOf('segment', 2)])
  })
})
