import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { type ReplicaOptions, RunningReplica, restoredHead } from '../support/running-replica.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'

const NEVER = new AbortController().signal

interface Stand {
  readonly store: Store
  readonly writer: JournalWriter
  readonly running: RunningReplica
  readonly root: string
}

/** A replica of a few files, looked at once. */
async function stand(options: ReplicaOptions = {}): Promise<Stand> {
  const store = await Store.open()
  const directory = join(scratchDirectory(), 'replica')
  const writer = new JournalWriter()
  writer.put('d', directoryVersion())
  for (const name of ['a', 'b', 'c', 'd/e', 'd/f']) writer.file(name, Buffer.from(`content of ${name} `.repeat(200)))
  writer.put('link', symlinkVersion('a'))
  await store.send(writer)
  const running = new RunningReplica(store, directory, options)
  await running.reach(writer)
  const found = await running.drift.check(writer.agent, VOLUME, NEVER)
  expect(found, 'before anybody wrote').toEqual({ paths: 0, directory: undefined })
  return { store, writer, running, root: join(directory, writer.agent, VOLUME) }
}

async function expectRepaired({ store, writer, running, root }: Stand): Promise<void> {
  await running.following(writer)
  expect(walkTree(root)).toEqual(await restoredHead(store, writer))
}

describe('what somebody wrote into the replica', () => {
  it('is put aside and repaired: changed, added, removed, replaced, and of other rights', async () => {
    const site = await stand()
    const { running, root, writer } = site
    writeFileSync(join(root, 'a'), 'somebody wrote this')
    rmSync(join(root, 'b'))
    mkdirSync(join(root, 'new/deep'), { recursive: true })
    writeFileSync(join(root, 'new/deep/file'), 'more')
    rmSync(join(root, 'link'))
    symlinkSync('/etc/passwd', join(root, 'link'))
    chmodSync(join(root, 'd/f'), 0o777)
    const { directory = '' } = await running.drift.check(writer.agent, VOLUME, NEVER)
    await expectRepaired(site)
    expect(dirname(directory)).toBe(join(root, '../../../replica-drift', writer.agent, VOLUME))
    expect(readFileSync(join(directory, 'files/a'), 'utf8')).toBe('somebody wrote this')
    expect(readFileSync(join(directory, 'files/new/deep/file'), 'utf8')).toBe('more')
    const { entries } = JSON.parse(readFileSync(join(directory, 'branch.json'), 'utf8')) as { entries: { path: string }[] }
    expect(entries.map(({ path }) => path).sort()).toEqual(['a', 'b', 'd/f', 'link', 'new', 'new/deep', 'new/deep/file'])
    expect(await running.drift.check(writer.agent, VOLUME, NEVER)).toEqual({ paths: 0, directory: undefined })
  })

  it('is found where size and time are as they were', async () => {
    const site = await stand()
    const at = join(site.root, 'd/e')
    const { atime, mtime } = statSync(at)
    const bytes = readFileSync(at)
    bytes.writeUInt8(bytes.readUInt8(7) ^ 1, 7)
    writeFileSync(at, bytes, { flag: 'r+' })
    utimesSync(at, atime, mtime)
    const { paths, directory = '' } = await site.running.drift.check(site.writer.agent, VOLUME, NEVER)
    expect(paths).toBe(1)
    expect(readFileSync(join(directory, 'files/d/e'))).toEqual(bytes)
    await expectRepaired(site)
  })

  it('stays where it is, and is listed, where there is no room to keep it aside', async () => {
    const { running, root, writer } = await stand({ driftBytesMax: 10 })
    writeFileSync(join(root, 'a'), 'too much to keep')
    expect(await running.drift.check(writer.agent, VOLUME, NEVER)).toEqual({ paths: 0, directory: undefined })
    await running.following(writer)
    expect(readFileSync(join(root, 'a'), 'utf8')).toBe('too much to keep')
    expect([...running.replica.problems(writer.agent, VOLUME).keys()]).toEqual(['a'])
    expect(existsSync(join(root, '../../../replica-drift'))).toBe(false)
  })

  it('is put aside by a round that replaces or removes it', async () => {
    const site = await stand()
    const { store, writer, running, root } = site
    writeFileSync(join(root, 'a'), 'somebody was here')
    writeFileSync(join(root, 'b'), 'and here')
    writer.file('a', Buffer.from('another content of a'))
    writer.remove('b')
    await store.send(writer)
    await running.reach(writer)
    await expectRepaired(site)
    const drifts = join(root, '../../../replica-drift', writer.agent, VOLUME)
    const kept = readdirSync(drifts).flatMap((name) =>
      readdirSync(join(drifts, name, 'files')).map((file) => readFileSync(join(drifts, name, 'files', file), 'utf8')),
    )
    expect(kept.sort()).toEqual(['and here', 'somebody was here'])
  })

  it('is not what is recorded meanwhile', async () => {
    const site = await stand()
    const { store, writer, running, root } = site
    for (let i = 0; i < 300; i++) writer.file(`d/many${i}`, Buffer.from(`${i}`))
    const sent = store.send(writer)
    const checked = running.drift.check(writer.agent, VOLUME, NEVER)
    running.replica.hint([writer.agent])
    await sent
    writer.remove('c')
    writer.file('a', Buffer.from('a new one'))
    await store.send(writer)
    running.replica.hint([writer.agent])
    expect((await checked).paths).toBe(0)
    await expectRepaired(site)
    expect(readdirSync(root)).not.toContain('c')
  })
})
