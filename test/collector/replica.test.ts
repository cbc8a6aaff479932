import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { ReplicaCursor } from '../../collector/replica-cursor.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { TEMPORARY_PREFIX } from '../../shared/files.ts'
import { libc } from '../../shared/libc.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { RunningReplica, restoredHead } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'

const NAMES = ['a', 'b', 'c']
const place = fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
const step = fc.oneof(
  fc.record({ op: fc.constantFrom('dir', 'file', 'link', 'remove', 'hardlink', 'chmod'), path: place, to: place }),
  fc.record({ op: fc.constantFrom('rename', 'send', 'restart', 'sweep'), path: place, to: place }),
)

describe('the replica', () => {
  it('equals a restore of the head after any history, restarts and lost cursors', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const store = await Store.open()
        const directory = join(scratchDirectory(), 'replica')
        const writer = new JournalWriter()
        let running = new RunningReplica(store, directory)
        let count = 0
        for (const { op, path, to } of steps) {
          const before = writer.written.length
          count += 1
          switch (op) {
            case 'dir':
              writer.put(path, directoryVersion({ mtimeNs: BigInt(count) * 1_000_000_007n }))
              break
            case 'file':
              writer.file(path, Buffer.from(`${path} ${count} `.repeat(count * 50)))
              break
            case 'chmod':
              writer.file(path, Buffer.from('same content'), { mode: 0o600 + (count % 64) })
              break
            case 'link':
              writer.put(path, symlinkVersion(`target${count}`))
              break
            case 'hardlink': {
              const version = writer.fileVersion(Buffer.from(`linked ${count}`), {
                links: 2,
                inode: BigInt(5000 + (count % 3)),
                xattrs: count % 2 === 0 ? [] : [{ name: 'user.n', value: String(count) }],
              })
              writer.put(path, version)
              if (to !== path) writer.put(to, version)
              break
            }
            case 'remove':
              writer.remove(path)
              break
            case 'rename':
              writer.rename(path, to)
              break
            case 'sweep':
              writer.append({ kind: 'sweep', volume: VOLUME, since: Math.max(1, writer.end.seq - 2) })
              writer.put('', directoryVersion())
              break
            case 'restart':
              await running.stop()
              if (count % 3 === 0) rmSync(join(directory, '.cursors'), { recursive: true })
              running = new RunningReplica(store, directory)
              break
            default:
              await store.send(writer)
              await running.reach(writer)
          }
          if (writer.written.length > before && !(await store.accepts(writer))) {
            // The collector refuses a place that cannot exist; the agent would not have written it.
            writer.undo(before)
          }
        }
        await store.send(writer)
        await running.reach(writer)
        const root = walkTree(join(directory, writer.agent, VOLUME))
        expect(root).toEqual(await restoredHead(store, writer))
        expect(existsSync(join(directory, '../replica-drift')), 'nobody else wrote').toBe(false)
        await running.stop()
        await store.stop()
      }),
      { numRuns: 60 },
    )
  }, 120_000)

  it('clears away what an interrupted write left', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    writer.put('d', directoryVersion())
    await store.send(writer)
    const first = new RunningReplica(store, directory)
    await first.reach(writer)
    await first.stop()
    writeFileSync(join(directory, writer.agent, VOLUME, 'd', `${TEMPORARY_PREFIX}0123456789abcdef`), 'half')
    writer.file('d/f', Buffer.from('whole'))
    await store.send(writer)
    const second = new RunningReplica(store, directory)
    await second.reach(writer)
    expect(readdirSync(join(directory, writer.agent, VOLUME, 'd'))).toEqual(['f'])
  })

  it('is right where content goes back to what it was while the replica is ahead of its round', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    writer.file('p', Buffer.from('content A'))
    await store.send(writer)
    const running = new RunningReplica(store, directory)
    await running.reach(writer)
    writer.file('p', Buffer.from('content A'), { mode: 0o600 })
    // More than a round: the first round sees the last of these versions of p.
    for (let i = 0; i < 2500; i++) writer.put(`link${i}`, symlinkVersion(`${i}`))
    writer.file('p', Buffer.from('content B'))
    await store.send(writer)
    running.replica.hint([writer.agent])
    await running.replica.progress.next(5000)
    writer.file('p', Buffer.from('content A'))
    await store.send(writer)
    await running.reach(writer)
    expect(readFileSync(join(directory, writer.agent, VOLUME, 'p'), 'utf8')).toBe('content A')
  })

  it('remembers over a restart what it could not write, and writes it then', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    writer.file('a', Buffer.from('content'))
    await store.send(writer)
    const real = store.history.readChunk.bind(store.history)
    store.history.readChunk = () => {
      throw new PacsimileError('damage', 'not now')
    }
    const first = new RunningReplica(store, directory)
    await first.reach(writer)
    expect([...first.replica.problems(writer.agent, VOLUME).keys()]).toEqual(['a'])
    await first.stop()
    store.history.readChunk = real
    const second = new RunningReplica(store, directory)
    await second.reach(writer)
    expect(readFileSync(join(directory, writer.agent, VOLUME, 'a'), 'utf8')).toBe('content')
    expect(second.replica.problems(writer.agent, VOLUME).size).toBe(0)
  })

  it.skipIf(process.getuid?.() !== 0)('lists a path that it may not remove, and goes on', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    writer.put('d', directoryVersion())
    writer.file('d/stays', Buffer.from('x'))
    await store.send(writer)
    const running = new RunningReplica(store, directory)
    await running.reach(writer)
    const held = join(directory, writer.agent, VOLUME, 'd')
    // No rmdir while something that nobody knows of is in it and cannot be listed for removal: a mount point.
    expect(spawnSync('mount', ['-t', 'tmpfs', 'none', held]).status).toBe(0)
    onTestFinished(() => {
      spawnSync('umount', [held])
    })
    writer.remove('d')
    writer.file('after', Buffer.from('y'))
    await store.send(writer)
    await running.reach(writer)
    expect(readFileSync(join(directory, writer.agent, VOLUME, 'after'), 'utf8')).toBe('y')
    expect([...running.replica.problems(writer.agent, VOLUME).keys()]).toEqual(['d'])
  })

  it('owes the comparison still when it was stopped in the middle of it', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    for (let i = 0; i < 3000; i++) writer.put(`link${i}`, symlinkVersion(`${i}`))
    await store.send(writer)
    const first = new RunningReplica(store, directory)
    await new Promise((resolve) => setTimeout(resolve, 40))
    await first.stop()
    expect(new ReplicaCursor(directory).read(writer.agent)).toBeUndefined()
    const foreign = join(directory, writer.agent, VOLUME, 'nobody-knows-this')
    writeFileSync(foreign, 'x')
    const second = new RunningReplica(store, directory)
    await second.reach(writer)
    expect(existsSync(foreign)).toBe(false)
  })

  it('looks at everything anew after a failed syncfs, for every agent, and moves no cursor before (S15)', async () => {
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writers = ['pacs1', 'pacs2'].map((agent) => new JournalWriter({ agent }))
    for (const writer of writers) {
      writer.file('f', Buffer.from('content'))
      await store.send(writer)
    }
    const synced = vi
      .spyOn(libc ?? { filesystemSynced: () => Promise.resolve() }, 'filesystemSynced')
      .mockRejectedValue(Object.assign(new Error('EIO: syncfs'), { code: 'EIO' }))
    const first = new RunningReplica(store, directory)
    await vi.waitFor(() => expect(synced).toHaveBeenCalled(), { timeout: 10_000 })
    await first.stop()
    for (const writer of writers) expect(new ReplicaCursor(directory).read(writer.agent)).toBeUndefined()
    synced.mockRestore()
    const foreign = writers.map((writer) => join(directory, writer.agent, VOLUME, 'nobody-knows-this'))
    for (const file of foreign) writeFileSync(file, 'x')
    const second = new RunningReplica(store, directory)
    for (const writer of writers) await second.reach(writer)
    await second.stop()
    for (const file of foreign) expect(existsSync(file)).toBe(false)
    for (const { agent, end } of writers) expect(new ReplicaCursor(directory).read(agent)).toEqual({ epoch: end.epoch, seq: end.seq })
  })
})
