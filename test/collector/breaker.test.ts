import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DicomArchive, encrypted } from '../support/dicom-archive.ts'
import { VOLUME } from '../support/journal-writer.ts'
import { type ReplicaOptions, RunningReplica, restoredAt, restoredHead } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'

const OPTIONS: ReplicaOptions = { rule: { share: 0.2, files: 20, windowMs: 60_000 } }
const NEVER = new AbortController().signal

class Stand {
  readonly archive: DicomArchive
  readonly store: Store
  readonly directory: string
  running: RunningReplica

  private constructor(archive: DicomArchive, store: Store) {
    this.archive = archive
    this.store = store
    this.directory = join(scratchDirectory(), 'replica')
    this.running = new RunningReplica(store, this.directory, OPTIONS)
  }

  /** Of a volume of so many studies of 20 images, whose first scan is done and in the replica. */
  static async of(studies: number): Promise<Stand> {
    const archive = new DicomArchive()
    for (let i = 0; i < studies; i++) archive.store(`s${i}`, 20)
    archive.complete()
    const stand = new Stand(archive, await Store.open())
    expect(await stand.send(), 'the first scan').toBeUndefined()
    archive.ms += 3_600_000
    return stand
  }

  /** @returns what is done with the volume then */
  async send(): ReturnType<RunningReplica['phase']> {
    await this.store.send(this.archive.writer)
    return this.running.phase(this.archive.writer)
  }

  /** Starts anew. */
  async restart(): Promise<void> {
    await this.running.stop()
    this.running = new RunningReplica(this.store, this.directory, OPTIONS)
  }

  get tree(): ReturnType<typeof walkTree> {
    return walkTree(join(this.directory, this.archive.writer.agent, VOLUME))
  }

  get clean(): string {
    const { clean } = this.running.replica.standing(this.archive.writer.agent, VOLUME).stop ?? {}
    return `${clean?.epoch}:${clean?.seq}`
  }

  async expectRewound(seq: number): Promise<void> {
    const { writer } = this.archive
    expect(this.clean).toBe(`1:${seq}`)
    await this.running.control.rewind(writer.agent, VOLUME, undefined, NEVER)
    expect(this.tree).toEqual(await restoredAt(this.store, writer, { kind: 'seq', epoch: 1, seq }))
  }

  async expectResumed(): Promise<void> {
    const { writer } = this.archive
    await this.running.control.resume(writer.agent, VOLUME)
    await this.running.following(writer)
    expect(this.tree).toEqual(await restoredHead(this.store, writer))
  }
}

describe('a mass change', { timeout: 60_000 }, () => {
  it('is an encrypting process, from its first file on; rewound and resumed the replica equals a restore', async () => {
    const stand = await Stand.of(10)
    const { archive } = stand
    archive.store('new', 5)
    const clean = archive.writer.end.seq
    // In portions, so that some of it is applied before it is known for what it is.
    const paths = archive.paths
    const phases = new Set<string | undefined>()
    for (let i = 0; i < paths.length; i += 15) {
      for (const path of paths.slice(i, i + 15)) archive.encrypt(path)
      phases.add(await stand.send())
    }
    expect([...phases]).toEqual([undefined, 'paused'])
    const found = [...stand.tree.keys()].filter((path) => path.endsWith('.locked')).length
    expect(found, 'encrypted files in the replica').toBeLessThan(60)
    expect(found, 'or it would prove nothing').toBeGreaterThan(0)
    await stand.expectRewound(clean)
    await stand.expectResumed()
    expect(await stand.send()).toBeUndefined()
  })

  it('is found again after a restart in the middle of it, and with a lost cursor', async () => {
    const stand = await Stand.of(10)
    const { archive } = stand
    const clean = archive.writer.end.seq
    const paths = archive.paths
    for (const path of paths.slice(0, 30)) archive.encrypt(path)
    expect(await stand.send()).toBeUndefined()
    await stand.restart()
    for (const path of paths.slice(30, 45)) archive.encrypt(path)
    expect(await stand.send()).toBe('paused')
    expect(stand.clean).toBe(`1:${clean}`)
    // What was stopped stays so, whatever is lost beside it.
    await stand.running.stop()
    rmSync(join(stand.directory, '.cursors'), { recursive: true })
    stand.running = new RunningReplica(stand.store, stand.directory, OPTIONS)
    for (const path of paths.slice(45, 60)) archive.encrypt(path)
    expect(await stand.send()).toBe('paused')
    await stand.expectRewound(clean)
    await stand.expectResumed()
  })

  it('is content that is overwritten in place, in an archive of one study as well', async () => {
    const stand = await Stand.of(1)
    const clean = stand.archive.writer.end.seq
    for (const [path, content] of stand.archive.images) stand.archive.put(path, encrypted(content))
    expect(await stand.send()).toBe('paused')
    await stand.expectRewound(clean)
  })

  it('is an archive of one study whose files are renamed and encrypted', async () => {
    const stand = await Stand.of(1)
    stand.archive.store('s0', 60)
    stand.archive.ms += 3_600_000
    expect(await stand.send()).toBeUndefined()
    for (const path of stand.archive.paths) stand.archive.encrypt(path)
    expect(await stand.send()).toBe('paused')
  })

  it('is the deletion of several studies, and of a directory', async () => {
    const stand = await Stand.of(10)
    for (const study of ['s0', 's1', 's2', 's3']) for (const path of stand.archive.pathsOf(study)) stand.archive.remove(path)
    expect(await stand.send()).toBe('paused')
    const whole = await Stand.of(3)
    const clean = whole.archive.writer.end.seq
    whole.archive.writer.remove('a')
    expect(await whole.send()).toBe('paused')
    await whole.expectRewound(clean)
  })

  it('is a directory that is renamed with all that is in it; rewound it has its old name', async () => {
    const stand = await Stand.of(3)
    const clean = stand.archive.writer.end.seq
    stand.archive.writer.rename('a', 'b')
    expect(await stand.send()).toBe('paused')
    await stand.expectRewound(clean)
    await stand.expectResumed()
  })

  it('is not a large study that is deleted, however much of a small archive it is', async () => {
    const stand = await Stand.of(3)
    stand.archive.store('large', 90)
    stand.archive.ms += 3_600_000
    expect(await stand.send()).toBeUndefined()
    for (const path of stand.archive.pathsOf('large')) stand.archive.remove(path)
    expect(await stand.send()).toBeUndefined()
    expect(stand.tree).toEqual(await restoredHead(stand.store, stand.archive.writer))
  })

  it('is not an import by temporary names, nor every header rewritten, nor a new scan of everything', async () => {
    const stand = await Stand.of(5)
    const { archive } = stand
    for (let i = 0; i < 5; i++) {
      archive.store(`import${i}`, 20)
      for (const path of archive.pathsOf(`import${i}`)) archive.move(path, path.replace('import', 'done'))
    }
    expect(await stand.send(), 'import').toBeUndefined()
    archive.ms += 3_600_000
    for (const path of archive.images.keys()) archive.rewriteHeader(path)
    expect(await stand.send(), 'headers').toBeUndefined()
    archive.writer.beginEpoch('state-lost')
    expect(await stand.send(), 'scan').toBeUndefined()
  })

  it('is not what was announced, and is one again when that is over', async () => {
    const stand = await Stand.of(5)
    const { archive } = stand
    archive.ms = Date.now() + 1000
    await stand.running.control.expect(archive.writer.agent, VOLUME, { forMs: 3_600_000, reason: 'another layout' })
    for (const path of archive.paths) archive.move(path, path.replace('a/', 'a/moved-'))
    expect(await stand.send()).toBeUndefined()
    archive.ms += 2 * 3_600_000
    for (const path of archive.paths) archive.move(path, path.replace('moved-', 'again-'))
    expect(await stand.send()).toBe('paused')
  })

  it('is not what takes longer than its window', async () => {
    const stand = await Stand.of(10)
    const paths = stand.archive.paths
    for (const [i, path] of paths.slice(0, 100).entries()) {
      stand.archive.remove(path)
      if (i % 15 === 14) stand.archive.ms += 61_000
    }
    expect(await stand.send()).toBeUndefined()
  })
})
