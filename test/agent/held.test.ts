import { describe, expect, it, onTestFinished } from 'vitest'
import type { StoredChunk } from '../../agent/capture-thread.ts'
import { Held } from '../../agent/held.ts'
import { Spool } from '../../agent/spool.ts'
import { HELD_BYTES_MAX } from '../../shared/limits.ts'
import { silentLog } from '../../shared/log.ts'
import { chunkOf } from '../support/agent-parts.ts'
import { scratchDirectory } from '../support/scratch.ts'

function make({ quotaBytes = 1 << 20, directory = scratchDirectory(), isLinkUp = true } = {}): {
  held: Held
  spool: Spool
  directory: string
} {
  const spool = Spool.open(directory, quotaBytes, silentLog)
  onTestFinished(() => spool.close())
  const held = new Held(spool)
  held.setLink(isLinkUp)
  return { held, spool, directory }
}

const ONE = chunkOf('one')
const TWO = chunkOf('two')

async function holds(held: Held, ...chunks: (typeof ONE)[]): Promise<boolean[]> {
  return Promise.all(chunks.map(async ({ digest }) => (await held.read(digest)) !== undefined))
}

describe('held content', () => {
  it('stays in memory while the link is up, until its record is acknowledged', async () => {
    const { held, spool } = make()
    expect(held.keep(ONE.digest, ONE.chunk, 'event', 0)).toBeUndefined()
    held.release(100)
    expect(await holds(held, ONE)).toEqual([true])
    held.need(101, [ONE.digest], [ONE.digest])
    held.release(100)
    expect(await holds(held, ONE)).toEqual([true])
    held.release(101)
    expect(await holds(held, ONE)).toEqual([false])
    expect([held.bytes, spool.bytes]).toEqual([0, 0])
  })

  it('stays until the last record that names it is acknowledged', async () => {
    const { held } = make()
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    held.need(1, [ONE.digest], [ONE.digest])
    held.need(2, [ONE.digest], [])
    held.release(1)
    expect(await holds(held, ONE)).toEqual([true])
    held.release(2)
    expect(await holds(held, ONE)).toEqual([false])
  })

  it('goes when its capture is not recorded', async () => {
    const { held } = make()
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    held.unpin([ONE.digest])
    expect(await holds(held, ONE)).toEqual([false])
  })

  it('is in the spool before it is said to be kept, while the link is down', async () => {
    const { held, spool } = make({ isLinkUp: false })
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    expect(spool.has(ONE.digest)).toBe(true)
    expect(held.bytes).toBe(0)
    expect(await holds(held, ONE)).toEqual([true])
  })

  it('goes to the spool when the link is lost', async () => {
    const { held, spool } = make()
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    held.setLink(false)
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    expect(spool.has(ONE.digest)).toBe(true)
  })

  it('goes to the spool when it has waited for 5 s', async () => {
    const { held, spool } = make()
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    await held.keep(TWO.digest, TWO.chunk, 'event', 4000)
    held.spillOld(5001)
    await spool.append(ONE.digest, ONE.chunk)
    expect([spool.has(ONE.digest), spool.has(TWO.digest)]).toEqual([true, false])
  })

  it('goes to the spool when memory is full', async () => {
    const { held, spool } = make()
    const large: StoredChunk = { length: HELD_BYTES_MAX, filtered: false, compressed: false, bytes: Buffer.alloc(HELD_BYTES_MAX) }
    expect(held.keep(ONE.digest, large, 'event', 0)).toBeUndefined()
    await held.keep(TWO.digest, TWO.chunk, 'event', 0)
    expect(spool.has(TWO.digest)).toBe(true)
    expect(held.hasRoomForScan).toBe(false)
  })

  it('is still there for the records that need it after a restart, and nothing else is', async () => {
    const first = make({ isLinkUp: false })
    await first.held.keep(ONE.digest, ONE.chunk, 'event', 0)
    await first.held.keep(TWO.digest, TWO.chunk, 'event', 0)
    await first.spool.close()
    const { held, spool } = make({ directory: first.directory })
    held.need(5, [TWO.digest], [])
    held.forgetUnneeded()
    expect(await holds(held, ONE, TWO)).toEqual([false, true])
    held.release(5)
    expect([...spool.digests()]).toEqual([])
  })

  it('stays in memory when the spool has no room, and then leaves content in its file', async () => {
    const { held } = make({ quotaBytes: 0, isLinkUp: false })
    await held.keep(ONE.digest, ONE.chunk, 'event', 0)
    expect(await holds(held, ONE)).toEqual([true])
    expect(held.shipBytesMax('scan')).toBe(0)
    expect(held.shipBytesMax('event')).toBe(Number.POSITIVE_INFINITY)
  })
})
