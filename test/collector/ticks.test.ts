import { describe, expect, it, vi } from 'vitest'
import type { AccessEnd } from '../../collector/access-chain.ts'
import { accessAnchors, ledgerEntries } from '../../collector/ledger-view.ts'
import { KEEP_ALL } from '../../collector/retention.ts'
import { Ticks } from '../../collector/ticks.ts'
import { digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { JournalWriter } from '../support/journal-writer.ts'
import { Store } from '../support/store.ts'

describe('ticks of the ledger', () => {
  it('are left out while there is no room for them, and end nothing', async () => {
    const { catalog, repository, ingest, ...store } = await openedStore()
    const ticks = new Ticks({ catalog, repository, ingest, policy: KEEP_ALL })
    const refused = vi.spyOn(ingest, 'note').mockRejectedValue(new PacsimileError('space', 'it is full'))
    await ticks.run(store.aborting())
    expect(refused).toHaveBeenCalled()
    refused.mockRestore()
    await ticks.run(store.aborting())
    const entries = await Array.fromAsync(ledgerEntries(catalog))
    expect(entries.map(({ body }) => body.kind)).toContain('tick')
  })
})

describe('the access log in the ledger', () => {
  it('is named with a tick, where it went on since the last', async () => {
    const { catalog, repository, ingest } = await openedStore()
    const ends: AccessEnd[] = []
    const ticks = new Ticks({ catalog, repository, ingest, policy: KEEP_ALL, accessEnd: () => ends.at(-1) })
    await ticks.tick()
    ends.push({ day: '2026-11-29', bytes: 712, hash: digestOf(Buffer.from('a line')) })
    await ticks.tick()
    await ticks.tick()
    const entries = await Array.fromAsync(ledgerEntries(catalog))
    expect(entries.map(({ body }) => body.kind)).toEqual(['tick', 'tick', 'access', 'tick'])
    expect(await accessAnchors(catalog)).toEqual(ends)
  })
})

async function openedStore() {
  const store = await Store.open()
  // A commit has gone through.
  await store.send(new JournalWriter())
  const { catalog, repository, ingest } = store
  const aborting = (): AbortSignal => AbortSignal.timeout(200)
  return { catalog, repository, ingest, aborting }
}
