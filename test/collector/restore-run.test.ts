/** Restoring in threads: from the replica where it is right, again where it was interrupted, and only what was chosen. */
import { randomBytes } from 'node:crypto'
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { History } from '../../collector/history.ts'
import type { PackAccess } from '../../collector/pack-reader.ts'
import type { FramePlace } from '../../collector/repository/frame-file.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { RESTORE_NOTE } from '../../collector/restore-target.ts'
import type { Digest } from '../../shared/digest.ts'
import { TEMPORARY_PREFIX } from '../../shared/files.ts'
import type { Label, RelativePath } from '../../shared/path.ts'
import type { ChunkRef } from '../../shared/version.ts'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount } from '../support/image-filesystem.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

/** A history that counts which chunks it was asked for, and may fail at one of them. */
class WatchedHistory extends History {
  replica: string | undefined
  asked = 0
  readonly calls: (readonly ChunkRef[])[] = []
  /** What the threads may read themselves. */
  opened: PackAccess | undefined
  failAfter = Number.POSITIVE_INFINITY
  /** The failure waits for it. */
  beforeFailing: () => Promise<unknown> = () => Promise.resolve()

  override replicaDirectory(_agent: Label, _volume: Label): Promise<string | undefined> {
    return Promise.resolve(this.replica)
  }

  packs(): Promise<PackAccess | undefined> {
    return Promise.resolve(this.opened)
  }

  override async *chunks(refs: readonly ChunkRef[]): ReturnType<History['chunks']> {
    this.calls.push(refs)
    for await (const result of super.chunks(refs)) {
      this.asked += 1
      if (this.asked > this.failAfter) {
        await this.beforeFailing()
        throw new Error('the power failed')
      }
      yield result
    }
  }
}

interface Archive {
  readonly store: Store
  readonly writer: JournalWriter
  readonly history: WatchedHistory
  readonly chunks: number
}

const STUDIES = 6
const IMAGES = 40

/** Large enough for several batches: 6 studies of 40 images of a few chunks, hard links, symlinks. */
async function archive(): Promise<Archive> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const random = new Random(7)
  for (let study = 0; study < STUDIES; study++) {
    writer.put(`study-${study}`, directoryVersion({ mtimeNs: 1_600_000_000_000_000_000n }))
    for (let i = 0; i < IMAGES; i++)
      writer.file(`study-${study}/${i}.dcm`, random.bytes(6000 + random.below(3000)), {
        mtimeNs: BigInt(1_650_000_000 + study) * 1_000_000_000n,
      })
    writer.put(`study-${study}/link`, symlinkVersion('0.dcm'))
  }
  const shared = writer.fileVersion(Buffer.from('one file, two names'), { links: 2 })
  for (const name of ['a', 'study-3/b']) writer.put(name, shared)
  await store.send(writer)
  return { store, writer, history: new WatchedHistory(store.catalog, store.repository), chunks: writer.chunks.size }
}

async function restoreTo(at: Archive, to: string, change: Partial<RestoreRequest> = {}): Promise<RestoreReport> {
  const point = await at.history.point(at.writer.agent, VOLUME, { kind: 'head' })
  const whole = { agent: at.writer.agent, volume: VOLUME, path: '' as RelativePath, point, to }
  return restore(at.history, { ...whole, dryRun: false, setuid: false, special: false, torn: false, ...change })
}

/** Images that have their names. */
function imagesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.dcm'))
}

const newTarget = (): string => join(scratchDirectory(), 'to')

describe('a restore beside a replica', () => {
  it('takes from it what is as recorded, and from the packs what is not, whatever its size and time say', async () => {
    const at = await archive()
    const replica = newTarget()
    const first = await restoreTo(at, replica)
    expect(first).toMatchObject({ fromReplica: 0, kept: 0, missing: [], hardLinks: 1, files: STUDIES * IMAGES + 2 })
    const truth = walkTree(replica)

    at.history.replica = replica
    at.history.asked = 0
    const near = await restoreTo(at, newTarget())
    expect(near).toMatchObject({ fromReplica: STUDIES * IMAGES + 1, missing: [] })
    expect(at.history.asked).toBe(0)
    expect(walkTree(near.to)).toEqual(truth)

    // Decayed behind the same size and time, shorter, gone, and copied anew.
    const path = (name: string): string => join(replica, name)
    const { atime, mtime } = statSync(path('study-1/3.dcm'))
    const bytes = readFileSync(path('study-1/3.dcm'))
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
    writeFileSync(path('study-1/3.dcm'), bytes)
    utimesSync(path('study-1/3.dcm'), atime, mtime)
    writeFileSync(path('study-2/4.dcm'), 'short')
    rmSync(path('study-3/5.dcm'))
    renameSync(path('study-4'), path('elsewhere'))
    cpSync(path('elsewhere'), path('study-4'), { recursive: true, preserveTimestamps: true })
    const spoilt = await restoreTo(at, newTarget())
    expect(spoilt.missing).toEqual([])
    expect(spoilt.fromReplica).toBeLessThan(near.fromReplica)
    expect(walkTree(spoilt.to)).toEqual(truth)
  })

  it('needs none: a replica that is not there is no error', async () => {
    const at = await archive()
    at.history.replica = join(scratchDirectory(), 'nothing')
    expect(await restoreTo(at, newTarget())).toMatchObject({ fromReplica: 0, missing: [] })
  })
})

describe('a restore whose threads read the packs themselves', () => {
  it('asks only for what they do not find where it should be', async () => {
    const at = await archive()
    const truth = walkTree((await restoreTo(at, newTarget())).to)
    const { store, history } = at
    const whole: PackAccess = {
      directory: store.repositoryDirectory,
      dataKey: store.dataKey,
      places: (names) => Promise.resolve(history.places(names)),
    }
    history.asked = 0
    history.opened = whole
    const read = await restoreTo(at, newTarget())
    expect(read).toMatchObject({ fromReplica: 0, missing: [] })
    expect(history.asked).toBe(0)
    expect(walkTree(read.to)).toEqual(truth)

    // Moved since, of another chunk, or in no pack that is known.
    const wrong = (place: FramePlace | undefined, i: number, all: readonly (FramePlace | undefined)[]): FramePlace | undefined => {
      if (place === undefined || i % 4 === 0) return place
      return i % 4 === 1 ? { ...place, file: 99 } : i % 4 === 2 ? all[i - 1] : undefined
    }
    history.opened = { ...whole, places: async (names) => (await whole.places(names)).map(wrong) }
    const asked = await restoreTo(at, newTarget())
    expect(asked.missing).toEqual([])
    expect(history.asked).toBeGreaterThan(at.chunks / 2)
    expect(history.asked).toBeLessThan(at.chunks)
    expect(walkTree(asked.to)).toEqual(truth)
  })
})

describe('a large file', () => {
  /** Alone, or with enough others that threads write; both larger than what a thread reads by itself. */
  it.each([
    ['alone', 0, 20],
    ['among others', 2, 66],
  ])('%s is read from the packs by several threads, and what they do not find is asked for', async (_, others, megabytes) => {
    const store = await Store.open()
    const writer = new JournalWriter()
    writer.file('volume.dcm', randomBytes(megabytes << 20), {}, 1_000_003)
    // They come after it, for a thread takes what comes before together with it.
    for (let i = 0; i < others; i++) writer.file(`z-${i}.dcm`, randomBytes(100_000), {}, 500_000)
    await store.send(writer)
    const history = new WatchedHistory(store.catalog, store.repository)
    const at: Archive = { store, writer, history, chunks: writer.chunks.size }
    const truth = walkTree((await restoreTo(at, newTarget())).to)
    const whole: PackAccess = {
      directory: store.repositoryDirectory,
      dataKey: store.dataKey,
      places: (names) => Promise.resolve(history.places(names)),
    }
    history.opened = whole
    history.asked = 0
    const read = await restoreTo(at, newTarget())
    expect(read.missing).toEqual([])
    expect(history.asked).toBe(0)
    expect(walkTree(read.to)).toEqual(truth)

    history.opened = { ...whole, places: async (names) => (await whole.places(names)).map((place, i) => (i % 7 === 3 ? undefined : place)) }
    const asked = await restoreTo(at, newTarget())
    expect(asked.missing).toEqual([])
    expect(history.asked).toBeGreaterThan(at.chunks / 10)
    expect(history.asked).toBeLessThan(at.chunks / 5)
    expect(walkTree(asked.to)).toEqual(truth)
  })
})

describe('a restore that was interrupted', () => {
  it('keeps what is right, writes what is not, and removes what was under way', async () => {
    const at = await archive()
    const truth = walkTree((await restoreTo(at, newTarget())).to)
    const to = newTarget()
    at.history.asked = 0
    at.history.failAfter = at.chunks / 2
    at.history.beforeFailing = () => until('some images', 30, () => imagesIn(to).length > 20 || undefined)
    await expect(restoreTo(at, to)).rejects.toThrow('the power failed')
    expect(readdirSync(to)).toContain(RESTORE_NOTE)

    const done = [...walkTree(to)].filter(([name, { kind }]) => kind === 'file' && !name.includes(TEMPORARY_PREFIX)).map(([name]) => name)
    expect(done.length).toBeGreaterThan(10)
    const [spoilt = '', shortened = ''] = done.filter((name) => name.endsWith('.dcm'))
    const bytes = readFileSync(join(to, spoilt))
    bytes[0] = (bytes[0] ?? 0) ^ 0x80
    writeFileSync(join(to, spoilt), bytes)
    writeFileSync(join(to, shortened), 'x')
    writeFileSync(join(to, `study-0/${TEMPORARY_PREFIX}half`), 'half')
    at.history.failAfter = Number.POSITIVE_INFINITY
    at.history.asked = 0
    const again = await restoreTo(at, to)
    expect(again).toMatchObject({ kept: done.length - 2, missing: [] })
    expect(at.history.asked).toBeLessThan(at.chunks)
    expect(walkTree(to)).toEqual(truth)
    await expect(restoreTo(at, to)).rejects.toMatchObject({
      code: 'target-not-empty',
      message: expect.stringContaining('is not empty; --in-place makes') as string,
    })
  })

  it.skipIf(!canMount)('keeps only what is on the disk, whatever memory says of it', async () => {
    const at = await archive()
    const truth = walkTree((await restoreTo(at, newTarget())).to)
    const filesystem = makeFilesystem('ext4', 64 << 20)
    const to = join(filesystem.at, 'to')
    at.history.asked = 0
    at.history.failAfter = at.chunks / 2
    at.history.beforeFailing = () => until('some images', 30, () => imagesIn(to).length > 20 || undefined)
    await expect(restoreTo(at, to)).rejects.toThrow('the power failed')
    const done = [...walkTree(to)].filter(([name, { kind }]) => kind === 'file' && !name.includes(TEMPORARY_PREFIX)).map(([name]) => name)
    const lost = join(to, done.find((name) => name.endsWith('.dcm')) ?? '')
    const bytes = readFileSync(lost)
    filesystem.decayUnseen(lost, bytes.subarray(0, 512))
    expect(readFileSync(lost)).toEqual(bytes)
    at.history.failAfter = Number.POSITIVE_INFINITY
    expect(await restoreTo(at, to)).toMatchObject({ kept: done.length - 1, missing: [] })
    expect(walkTree(to)).toEqual(truth)
  })

  it('is not gone on with by another one', async () => {
    const at = await archive()
    const to = newTarget()
    at.history.failAfter = 3
    await expect(restoreTo(at, to)).rejects.toThrow('the power failed')
    at.history.failAfter = Number.POSITIVE_INFINITY
    await expect(restoreTo(at, to, { exclude: 'study-1' })).rejects.toMatchObject({ code: 'target-not-empty' })
    const { epoch, seq } = at.writer.end
    at.writer.file('later', Buffer.from('x'))
    await at.store.send(at.writer)
    await expect(restoreTo(at, to)).rejects.toMatchObject({
      code: 'target-not-empty',
      message: expect.stringContaining(`--at seq:${epoch}:${seq}`) as string,
    })
  })

  it('may have been killed before it had said of what it is', async () => {
    const at = await archive()
    const to = scratchDirectory()
    writeFileSync(join(to, `${TEMPORARY_PREFIX}${RESTORE_NOTE}-0123456789ab`), '{"ag')
    expect(await restoreTo(at, to)).toMatchObject({ missing: [] })
    expect(readdirSync(to).filter((name) => name.startsWith(TEMPORARY_PREFIX))).toEqual([])
  })

  it('does not write into a directory that only looks like one', async () => {
    const at = await archive()
    const to = scratchDirectory()
    writeFileSync(join(to, RESTORE_NOTE), '{}')
    await expect(restoreTo(at, to)).rejects.toMatchObject({ code: 'format-invalid' })
    expect(readdirSync(to)).toEqual([RESTORE_NOTE])
  })
})

describe('a choice of paths', () => {
  it('brings what matches with all below it and the directories above, but for what is excluded', async () => {
    const at = await archive()
    const names = async (change: Partial<RestoreRequest>): Promise<string[]> => [
      ...walkTree((await restoreTo(at, newTarget(), change)).to).keys(),
    ]
    expect(await names({ include: 'study-2/1?.dcm' })).toEqual([
      '',
      'study-2',
      ...Array.from({ length: 10 }, (_, i) => `study-2/1${i}.dcm`),
    ])
    expect((await names({ include: 'study-4', exclude: '**/*.dcm' })).sort()).toEqual(['', 'study-4', 'study-4/link'])
    expect(await names({ exclude: 'study-*' })).toEqual(['', 'a'])
    const { files, missing } = await restoreTo(at, newTarget(), { include: 'study-0' })
    expect({ files, missing }).toEqual({ files: IMAGES, missing: [] })
  })

  it('may have the newest come first', async () => {
    const at = await archive()
    const studyOf = new Map<Digest, string>()
    for (const { record } of at.writer.written) {
      if (record.kind !== 'put' || record.version.kind !== 'file' || !record.path.endsWith('.dcm')) continue
      for (const { digest } of record.version.chunks) studyOf.set(digest, record.path.split('/')[0] ?? '')
    }
    await restoreTo(at, newTarget(), { priority: 'newest' })
    const inOrder = at.history.calls.map((refs) => [...new Set(refs.flatMap(({ digest }) => studyOf.get(digest) ?? []))])
    expect(inOrder.find((studies) => studies.includes('study-5'))?.slice(0, 3)).toEqual(['study-5', 'study-4', 'study-3'])
    expect(inOrder.find((studies) => studies.includes('study-0'))).not.toContain('study-5')
  })
})
