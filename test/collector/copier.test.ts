import { appendFileSync, chmodSync, cpSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { AckGate, reaches } from '../../collector/ack-gate.ts'
import { checkRepository } from '../../collector/check.ts'
import type { Copier } from '../../collector/copier.ts'
import type { Copy } from '../../collector/repository/copy.ts'
import { FsCopy } from '../../collector/repository/copy-fs.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { beginFsCopy, INSTANCE, startCopier } from '../support/copied-store.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const SECONDS = 10

async function untilCurrent(store: Store, copier: Copier): Promise<void> {
  const at = store.catalog.reflected()
  await until(`the copy holds what is committed (${JSON.stringify(copier.status)})`, SECONDS, () =>
    copier.held !== undefined && reaches(copier.held, at) ? true : undefined,
  )
}

async function expectWhole(store: Store, directory: string): Promise<void> {
  const report = await checkRepository(directory, store.dataKey)
  expect(report).toMatchObject({ damage: [], affected: [] })
  expect(report.records).toBeGreaterThan(0)
}

/** A store with a copy in a directory, and a few records in both. */
async function copied(): Promise<{ store: Store; writer: JournalWriter; directory: string; copier: Copier }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  writer.file('a.dcm', Buffer.from('content of a'))
  await store.send(writer)
  const directory = join(scratchDirectory(), 'copy')
  const copier = startCopier(store, { writer: await beginFsCopy(store, directory), open: () => FsCopy.open(directory) })
  await untilCurrent(store, copier)
  return { store, writer, directory, copier }
}

describe('a copier', () => {
  it('brings a copy to what is committed, which is a whole repository, and follows', async () => {
    const { store, writer, directory, copier } = await copied()
    await expectWhole(store, directory)
    writer.file('b.dcm', new Random(3).bytes(100_000))
    await store.send(writer)
    copier.hint()
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
    expect(copier.status).toMatchObject({ state: 'current', behindBytes: 0, reason: undefined })
    for (const name of ['packs/01/000000000001.pack', 'segments/01/000000000001.seg'])
      expect(readFileSync(join(directory, name))).toEqual(readFileSync(join(store.repositoryDirectory, name)))
  })

  it('goes on where it was after an outage, in the middle of a file', async () => {
    const { store, writer, directory, copier } = await copied()
    renameSync(directory, `${directory}.away`)
    writer.file('b.dcm', new Random(3).bytes(300_000))
    await store.send(writer)
    copier.hint()
    await until('it is failing', SECONDS, () => (copier.status.state === 'failing' ? true : undefined))
    expect(copier.held).toBeUndefined()
    expect(copier.status.reason).toContain('mounted')
    renameSync(`${directory}.away`, directory)
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
  })

  it('tries again whatever fails, and never writes a segment before the packs that it needs', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const directory = join(scratchDirectory(), 'copy')
    const random = new Random(7)
    const failing = (copy: Copy): Copy =>
      new Proxy(copy, {
        get(target, property) {
          const member: unknown = Reflect.get(target, property)
          if (typeof member !== 'function') return member
          const call = member.bind(target) as (...args: unknown[]) => unknown
          const odds = { append: 3, find: 20 }[String(property)]
          if (odds === undefined) return call
          return async (...args: unknown[]) => {
            if (random.below(odds) === 0) throw new PacsimileError('io', 'it fails')
            const answer = await call(...args)
            // Done, and nobody hears of it.
            if (random.below(odds) === 0) throw new PacsimileError('io', 'the answer is lost')
            return answer
          }
        },
      })
    const open = async (): Promise<Copy> => failing(await FsCopy.open(directory))
    const copier = startCopier(store, { writer: await beginFsCopy(store, directory), open })
    for (let i = 0; i < 10; i++) {
      writer.file(`${i}.dcm`, random.bytes(20_000))
      await store.send(writer)
      copier.hint()
      const report = await checkRepository(directory, store.dataKey)
      expect(report).toMatchObject({ damage: [], affected: [] })
    }
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
  })

  it('leaves a copy that holds more than the repository', async () => {
    const { store, writer, directory, copier } = await copied()
    const before = join(scratchDirectory(), 'before')
    cpSync(store.repositoryDirectory, before, { recursive: true })
    writer.file('b.dcm', Buffer.from('after the backup'))
    await store.send(writer)
    copier.hint()
    await untilCurrent(store, copier)
    const held = readFileSync(join(directory, 'segments/01/000000000001.seg'))
    // The data directory is set back to the backup.
    await store.stop()
    rmSync(join(store.directory, 'catalog'), { recursive: true })
    rmSync(store.repositoryDirectory, { recursive: true })
    renameSync(before, store.repositoryDirectory)
    await store.start()
    const { replay } = await import('../../collector/replay.ts')
    await replay(store.repository, store.catalog)
    const again = startCopier(store, {
      writer: { repository: store.repository.id, instance: INSTANCE },
      open: () => FsCopy.open(directory),
    })
    await until('it is forked', SECONDS, () => (again.status.state === 'forked' ? true : undefined))
    expect(readFileSync(join(directory, 'segments/01/000000000001.seg'))).toEqual(held)
  })

  it('is forked by another history, though the repository rots where that begins', async () => {
    const { store, writer, directory } = await copied()
    writer.file('b.dcm', new Random(3).bytes(50_000))
    await store.send(writer)
    const path = store.repository.pathOf('pack', 1)
    const bytes = readFileSync(path)
    // Without the first frame, which is the one that rots.
    writeFileSync(join(directory, 'packs/01/000000000001.pack'), Buffer.concat([bytes.subarray(0, 96), bytes.subarray(208)]))
    bytes[100] = (bytes[100] ?? 0) ^ 1
    writeFileSync(path, bytes)
    const again = startCopier(store, {
      writer: { repository: store.repository.id, instance: INSTANCE },
      open: () => FsCopy.open(directory),
    })
    await until('it is forked', SECONDS, () => (again.status.state === 'forked' ? true : undefined))
  })

  it('is not forked by rot in the repository, keeps what it has whole of it, and goes on behind it', async () => {
    const { store, writer, directory, copier } = await copied()
    writer.file('b.dcm', new Random(3).bytes(50_000))
    await store.send(writer)
    copier.hint()
    await untilCurrent(store, copier)
    renameSync(directory, `${directory}.away`)
    await until('it is away', SECONDS, () => (copier.status.state === 'failing' ? true : undefined))
    // The header of the first frame, the body of the last one.
    for (const kind of ['pack', 'segment'] as const) {
      const path = store.repository.pathOf(kind, 1)
      const bytes = readFileSync(path)
      for (const at of [100, bytes.length - 9]) bytes[at] = (bytes[at] ?? 0) ^ 1
      writeFileSync(path, bytes)
    }
    writer.file('c.dcm', new Random(4).bytes(50_000))
    await store.send(writer)
    renameSync(`${directory}.away`, directory)
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
    expect((await checkRepository(store.repositoryDirectory, store.dataKey)).damage.length).toBeGreaterThan(0)
  })

  it('cuts an append that a crash left half done, but no frame of another history', async () => {
    const { store, writer, directory, copier } = await copied()
    const pack = join(directory, 'packs/01/000000000001.pack')
    renameSync(directory, `${directory}.away`)
    await until('it is away', SECONDS, () => (copier.status.state === 'failing' ? true : undefined))
    appendFileSync(join(`${directory}.away`, 'packs/01/000000000001.pack'), Buffer.alloc(5000))
    writer.file('b.dcm', new Random(3).bytes(50_000))
    await store.send(writer)
    renameSync(`${directory}.away`, directory)
    await untilCurrent(store, copier)
    await expectWhole(store, directory)

    const bytes = readFileSync(pack)
    const other = Buffer.concat([bytes.subarray(0, 96), bytes.subarray(208)])
    chmodSync(pack, 0o600)
    writeFileSync(pack, other)
    const again = startCopier(store, {
      writer: { repository: store.repository.id, instance: INSTANCE },
      open: () => FsCopy.open(directory),
    })
    await until('it is forked', SECONDS, () => (again.status.state === 'forked' ? true : undefined))
    expect(readFileSync(pack)).toEqual(other)
  })

  it.skipIf(!canMount)('waits for space on a copy whose disk is full, and goes on', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    const disk = makeFilesystem('ext4', 16 << 20)
    disk.prove()
    const directory = join(disk.at, 'copy')
    const copier = startCopier(store, { writer: await beginFsCopy(store, directory), open: () => FsCopy.open(directory) })
    writeFileSync(join(disk.at, 'ballast'), Buffer.alloc(6 << 20, 1))
    writer.file('a.dcm', new Random(1).bytes(8 << 20), {}, 1 << 20)
    await store.send(writer)
    copier.hint()
    await until('it is full', SECONDS, () => (copier.status.reason?.includes('ENOSPC') === true ? true : undefined))
    rmSync(join(disk.at, 'ballast'))
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
  })

  it('ends at once when it is told to, whatever hangs', async () => {
    const { store, directory } = await copied()
    const hanging = async (): Promise<Copy> =>
      new Proxy(await FsCopy.open(directory), {
        get: (target, property) => (property === 'find' ? () => new Promise(() => {}) : (Reflect.get(target, property) as unknown)),
      })
    const parts = { writer: { repository: store.repository.id, instance: INSTANCE }, open: hanging }
    const stop = new AbortController()
    const copier = startCopier(store, parts)
    const ended = copier.run(stop.signal)
    stop.abort()
    await ended
    expect(copier.status.state).toBe('starting')
  })

  it('removes from a copy what is to be gone, and forgets it then', async () => {
    const { store, writer, directory, copier } = await copied()
    store.repository.abandonOpenFiles()
    writer.file('b.dcm', Buffer.from('in another pack'))
    await store.send(writer)
    copier.hint()
    await untilCurrent(store, copier)
    const pending = ['packs/01/000000000001.pack']
    const removals = { pending, done: (name: string) => void pending.splice(pending.indexOf(name), 1) }
    const again = startCopier(store, {
      writer: { repository: store.repository.id, instance: INSTANCE },
      open: () => FsCopy.open(directory),
      removals,
    })
    await untilCurrent(store, again)
    // The repository has it still.
    expect(pending).toHaveLength(1)
    rmSync(join(store.repositoryDirectory, 'packs/01/000000000001.pack'))
    again.hint()
    await until('it is removed', SECONDS, () => (pending.length === 0 ? true : undefined))
    expect(statSync(join(directory, 'packs/01/000000000001.pack'), { throwIfNoEntry: false })).toBeUndefined()
  })
})

describe('a file that was moved out of another one, which goes', () => {
  it('is in the copy before the other one leaves it', async () => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('a.dcm', Buffer.from('content of a'))
    await store.send(writer)
    const { catalog, repository, ingest } = store
    const directory = join(scratchDirectory(), 'copy')
    const pending: string[] = []
    const removals = { pending, done: (name: string) => void pending.splice(pending.indexOf(name), 1) }
    let isRefused = false
    const open = async (): Promise<Copy> =>
      new Proxy(await FsCopy.open(directory), {
        get(target, property) {
          const member: unknown = Reflect.get(target, property)
          if (typeof member !== 'function') return member
          if (property === 'append' && isRefused) return () => Promise.reject(new PacsimileError('space', 'it is full'))
          return member.bind(target) as unknown
        },
      })
    const copier = startCopier(store, { writer: await beginFsCopy(store, directory), open, removals })
    await untilCurrent(store, copier)
    isRefused = true
    repository.abandonOpenFiles()
    for await (const { name, place } of catalog.chunksIn(1)) await ingest.move(repository.readPayload(place, name))
    const gone = join(directory, 'packs/01/000000000001.pack')
    rmSync(join(store.repositoryDirectory, 'packs/01/000000000001.pack'))
    pending.push('packs/01/000000000001.pack')
    copier.hint()
    await until('it fails', SECONDS, () => (copier.status.state === 'failing' ? true : undefined))
    expect(statSync(gone, { throwIfNoEntry: false })).toBeDefined()
    await expectWhole(store, directory)
    isRefused = false
    await until('it is removed', SECONDS, () => (pending.length === 0 ? true : undefined))
    expect(statSync(gone, { throwIfNoEntry: false })).toBeUndefined()
    await untilCurrent(store, copier)
    await expectWhole(store, directory)
  })
})

describe('acknowledgements', () => {
  it('wait for the place that they are of, in their order', () => {
    let held = 0
    const said: number[] = []
    const at = (offset: number) => ({ packs: { file: 1, offset }, segments: { file: 1, offset } })
    const gate = new AckGate((position) => position.packs.offset <= held)
    gate.when(at(0), () => said.push(0))
    for (const offset of [1, 2, 3]) gate.when(at(offset), () => said.push(offset))
    expect(said).toEqual([0])
    expect(gate.isHeld(at(0))).toBe(false)
    held = 2
    gate.open()
    expect(said).toEqual([0, 1, 2])
    held = 3
    gate.open()
    expect(said).toEqual([0, 1, 2, 3])
    expect(gate.isHeld(at(3))).toBe(true)
  })
})
