/** A store whose replica holds what was written so far, to be held against a restore. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { JournalWriter, VOLUME } from './journal-writer.ts'
import { RunningReplica, restoredHead } from './running-replica.ts'
import { scratchDirectory } from './scratch.ts'
import { Store } from './store.ts'
import { walkTree } from './tree-walk.ts'

export interface FollowedStore {
  readonly store: Store
  readonly writer: JournalWriter
  readonly running: RunningReplica
  /** The volume in the replica. */
  readonly root: string
}

/** A replica that holds what `fill` writes. */
export async function followedStore(fill: (writer: JournalWriter) => void): Promise<FollowedStore> {
  const store = await Store.open()
  const directory = join(scratchDirectory(), 'replica')
  const writer = new JournalWriter()
  fill(writer)
  await store.send(writer)
  const running = new RunningReplica(store, directory)
  await running.reach(writer)
  return { store, writer, running, root: join(directory, writer.agent, VOLUME) }
}

/** Resolves when the replica holds what was written. */
export async function follow({ store, writer, running }: FollowedStore): Promise<void> {
  await store.send(writer)
  await running.reach(writer)
}

export async function expectEqual({ store, writer, root }: FollowedStore): Promise<void> {
  expect(walkTree(root)).toEqual(await restoredHead(store, writer))
  expect(existsSync(join(root, '../../../replica-drift')), 'nobody else wrote').toBe(false)
}
