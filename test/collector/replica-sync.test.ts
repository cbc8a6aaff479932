import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { agentReplica } from '../../collector/agent-replica.ts'
import { ReplicaCursor } from '../../collector/replica-cursor.ts'
import { ReplicaProblems } from '../../collector/replica-problems.ts'
import { ReplicaSync } from '../../collector/replica-sync.ts'
import { libc } from '../../shared/libc.ts'
import { REPLICA_UNSYNCED_BYTES_MAX } from '../../shared/limits.ts'
import { silentLog } from '../../shared/log.ts'
import { label } from '../../shared/path.ts'
import { JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { RunningReplica } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'

/** Each syncfs takes until it is let go; `letAllGo` for those to come too. */
function slowDisk(): { readonly begun: (() => void)[]; readonly letAllGo: () => void } {
  const begun: (() => void)[] = []
  let isHeld = true
  vi.spyOn(libc ?? { filesystemSynced: () => Promise.resolve() }, 'filesystemSynced').mockImplementation(() =>
    isHeld ? new Promise<void>((resolve) => begun.push(resolve)) : Promise.resolve(),
  )
  const letAllGo = (): void => {
    isHeld = false
    for (const go of begun) go()
  }
  return { begun, letAllGo }
}

describe('making the replica durable', () => {
  it('holds up no round, and the cursor says what was in the files before it began', async () => {
    const disk = slowDisk()
    const store = await Store.open()
    const directory = join(scratchDirectory(), 'replica')
    const writer = new JournalWriter()
    writer.file('before', Buffer.from('before'))
    await store.send(writer)
    const running = new RunningReplica(store, directory)
    // The replica's end waits for the disk.
    onTestFinished(disk.letAllGo)
    await running.reach(writer)
    await vi.waitFor(() => expect(disk.begun).toHaveLength(1))
    const { epoch, seq } = writer.end
    writer.file('meanwhile', Buffer.from('meanwhile'))
    await store.send(writer)
    await running.reach(writer)
    expect(readFileSync(join(directory, writer.agent, VOLUME, 'meanwhile'), 'utf8')).toBe('meanwhile')
    const cursor = new ReplicaCursor(directory)
    expect(cursor.read(writer.agent)).toBeUndefined()
    disk.begun[0]?.()
    await vi.waitFor(() => expect(cursor.read(writer.agent)).toEqual({ epoch, seq }))
    disk.letAllGo()
    await running.stop()
    expect(cursor.read(writer.agent)).toEqual({ epoch: writer.end.epoch, seq: writer.end.seq })
  })

  it('is waited for where too much was written since it began', async () => {
    const disk = slowDisk()
    const directory = scratchDirectory()
    const agent = label('pacs1', 'Agent')
    const head = { epoch: 1, seq: 5 }
    const replica = agentReplica({ epoch: 1, seq: 1 }, head)
    const onEnd = vi.fn<() => void>()
    const parts = { agents: new Map([[agent, replica]]), cursor: new ReplicaCursor(directory), problems: new ReplicaProblems() }
    const sync = new ReplicaSync({ ...parts, log: silentLog, onLoss: () => {}, onEnd })
    onTestFinished(() => sync.close())
    sync.cover(directory)
    replica.applied = head
    await sync.pass()
    await vi.waitFor(() => expect(disk.begun).toHaveLength(1))
    sync.wrote(REPLICA_UNSYNCED_BYTES_MAX)
    await sync.pass()
    sync.wrote(1)
    const passing = sync.pass()
    expect(await Promise.race([passing, setImmediate('it waits')])).toBe('it waits')
    disk.begun[0]?.()
    await passing
    await vi.waitFor(() => expect(disk.begun).toHaveLength(2))
    expect(onEnd).toHaveBeenCalledOnce()
    disk.letAllGo()
    await sync.flush()
    expect(parts.cursor.read(agent)).toEqual(head)
  })

  it('believes nothing after a lost write, be it told to somebody else', async () => {
    const disk = slowDisk()
    const directory = scratchDirectory()
    const agent = label('pacs1', 'Agent')
    const replica = agentReplica({ epoch: 1, seq: 1 }, { epoch: 1, seq: 5 })
    const onLoss = vi.fn<() => void>()
    const parts = { agents: new Map([[agent, replica]]), cursor: new ReplicaCursor(directory), problems: new ReplicaProblems() }
    const sync = new ReplicaSync({ ...parts, log: silentLog, onLoss, onEnd: () => {} })
    onTestFinished(() => sync.close())
    sync.cover(directory)
    disk.letAllGo()
    replica.applied = { epoch: 1, seq: 5 }
    await sync.flush()
    vi.spyOn(libc ?? { filesystemSynced: () => Promise.resolve() }, 'filesystemSynced').mockRejectedValueOnce(new Error('EIO'))
    replica.applied = { epoch: 1, seq: 6 }
    // Somebody who works on a stopped volume asks first, and is the one who is told.
    const asked = sync.filesystems()
    const flushed = sync.flush()
    await expect(asked).rejects.toThrow('EIO')
    await flushed
    expect(onLoss).toHaveBeenCalledOnce()
    expect(replica.needsWhole).toBe(true)
    expect(parts.cursor.read(agent)).toBeUndefined()
    expect(() => sync.requireSound()).toThrow('EIO')
    expect(() => sync.requireSound()).not.toThrow()
  })
})
