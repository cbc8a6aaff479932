import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { checkRepository } from '../../collector/check.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import type { PruneReport } from '../../collector/prune.ts'
import type { PrunePlan } from '../../collector/prune-plan.ts'
import { rebuildCatalog } from '../../collector/rebuild.ts'
import { ROOT } from '../../shared/path.ts'
import { Installation } from '../support/installation.ts'
import { directoryVersion, JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const PRUNE = join(import.meta.dirname, '../support/prune-archive.ts')

interface Answer {
  readonly plan: PrunePlan
  readonly done: Omit<PruneReport, 'plan'>
}

describe('prune of a running collector', () => {
  const FILES = 8
  const FILE_BYTES = 10_000_000
  const ROUNDS = 3

  it('shows what it would do, does it when it is agreed to, keeps what is held, and gives the room back', async () => {
    const installation = await Installation.make()
    const { data } = installation
    const config = join(data, 'collector.toml')
    writeFileSync(config, `${readFileSync(config, 'utf8')}\n[retention]\nall = "0h"\nquarantine = "0h"\n`)
    const source = join(installation.directory, 'source')
    installation.startCollector()
    await installation.up(data)
    installation.enroll('pacs1', source)
    installation.startAgent('pacs1')
    const random = new Random(3)
    for (const study of ['kept', 'other']) mkdirSync(join(source, study))
    const rounds: { readonly at: string; readonly copy: ReturnType<typeof walkTree> }[] = []
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < FILES; i++) writeFileSync(join(source, 'other', `${i}.dcm`), random.bytes(FILE_BYTES))
      writeFileSync(join(source, 'kept', '1.dcm'), random.bytes(FILE_BYTES))
      await installation.wait('pacs1')
      rounds.push({ at: new Date().toISOString(), copy: walkTree(source) })
    }
    const truth = walkTree(source)
    installation.run('hold', 'add', 'trial', 'pacs1:images/kept', '--data', data)
    expect(installation.run('hold', 'list', '--data', data).stdout).toMatch(/trial +pacs1:images +- +- +kept/)
    expect(installation.try('hold', 'add', 'trial', 'pacs1:images', '--data', data).status).toBe(9)

    const copy = join(installation.directory, 'copy')
    installation.run('copy', 'add', 'usb', `fs:${copy}`, '--data', data)
    const before = repositoryBytes(data)
    const { plan } = installation.json('prune', '--dry-run', '--data', data) as Answer
    // Nothing has told yet how old anything is.
    expect(plan.volumes).toMatchObject([{ isLimited: true, kept: { current: FILES + 1 } }])
    expect(installation.try('prune', '--data', data).stderr).toContain('--yes')
    expect(repositoryBytes(data)).toBe(before)
    const first = installation.json('prune', '--yes', '--data', data) as Answer
    expect(first.plan.volumes).toMatchObject([
      { expiring: FILES * (ROUNDS - 1), kept: { current: FILES + 1, held: ROUNDS - 1 }, versions: (FILES + 1) * ROUNDS },
    ])
    expect(first.done.retired).toBeGreaterThan(1)
    const second = installation.json('prune', '--yes', '--data', data) as Answer
    expect(second.done.deleted).toBe(first.done.retired)
    expect(before - repositoryBytes(data)).toBeGreaterThan(FILES * FILE_BYTES)
    expect(installation.run('prune', '--dry-run', '--data', data).stdout).toContain('There is nothing to remove')
    // The copy loses what the repository has lost.
    await until('the copy to follow', 60, () =>
      packsIn(join(copy, 'packs')).join() === packsIn(join(data, 'repository/packs')).join() ? true : undefined,
    )

    // What was there then is known; what expired is said, and what is held can be had.
    const [old] = rounds
    const to = join(installation.directory, 'old')
    const restored = installation.try('restore', 'pacs1:images', '--at', old?.at ?? '', '--to', to, '--data', data)
    expect(restored.status).toBe(8)
    expect(restored.stderr + restored.stdout).toContain('has expired')
    const kept = new Map([...(old?.copy ?? [])].filter(([path]) => !path.startsWith('other/')))
    expect(new Set(differences(kept, walkTree(to)))).toEqual(new Set())
    expect(installation.run('log', 'pacs1:images/other', '--data', data).stdout).toMatch(/put file +9\.5 MiB +expired +other\/0\.dcm/)
    writeFileSync(join(source, 'other', 'new.dcm'), random.bytes(FILE_BYTES))
    await installation.wait('pacs1')
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    expect(installation.json('check', '--repository', join(data, 'repository'))).toMatchObject({
      whole: true,
      expired: FILES * (ROUNDS - 1),
      affected: [],
    })
    expect(installation.json('rebuild', '--data', data)).toMatchObject({ before: 'equal' })

    expect(installation.json('check', '--repository', copy, '--key-file', join(data, 'keys/repository.key'))).toMatchObject({ whole: true })

    // Without a collector it is done on the directory itself.
    installation.run('hold', 'remove', 'trial', '--data', data)
    for (let i = 0; i < 2; i++) installation.run('prune', '--yes', '--data', data)
    const now = join(installation.directory, 'now')
    installation.run('restore', 'pacs1:images', '--at', rounds.at(-1)?.at ?? '', '--to', now, '--repository', join(data, 'repository'))
    expect(differences(truth, walkTree(now))).toEqual([])
  })
})

function packsIn(packs: string): string[] {
  return readdirSync(packs, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.pack'))
    .sort()
}

function repositoryBytes(data: string): number {
  const packs = join(data, 'repository/packs')
  return packsIn(packs).reduce((sum, name) => sum + statSync(join(packs, name)).size, 0)
}

/** A data directory with packs to be deleted, to be moved from, and to be kept. */
async function archive(): Promise<{ directory: string; key: string; writer: JournalWriter }> {
  const store = await Store.open()
  const writer = new JournalWriter()
  const random = new Random(5)
  const shared = random.bytes(1000)
  writer.put('d', directoryVersion())
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 3; i++) writer.file(`d/${i}`, random.bytes(4000))
    writer.file('shared', Buffer.concat([shared, random.bytes(2000)]))
    await store.send(writer)
    store.repository.abandonOpenFiles()
  }
  await store.stop()
  return { directory: store.directory, key: store.dataKey.toString('hex'), writer }
}

function prune(directory: string, key: string, injection?: string): { said: string; why: string; isKilled: boolean } {
  const program = [process.execPath, '--disable-warning=ExperimentalWarning', PRUNE, directory, key]
  const trace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `inject=${injection}`]
  const [command = '', ...args] = injection === undefined ? program : [...trace, ...program]
  const { stdout, stderr, signal, status } = spawnSync(command, args, { encoding: 'utf8' })
  return { said: stdout, why: stderr, isKilled: signal === 'SIGKILL' || status === 137 }
}

/** What is there now can be had, and so can what is not said to have expired. */
async function expectSound(directory: string, key: string, writer: JournalWriter): Promise<void> {
  const dataKey = Buffer.from(key, 'hex')
  const repositoryDirectory = join(directory, 'repository')
  expect(await checkRepository(repositoryDirectory, dataKey)).toMatchObject({ damage: [], affected: [] })
  await using history = await OfflineHistory.open(repositoryDirectory, dataKey)
  let files = 0
  for await (const { version, absent } of history.tree(writer.agent, VOLUME, ROOT, writer.end)) {
    expect(absent).toBeUndefined()
    if (version.kind !== 'file') continue
    files += 1
    for await (const chunk of history.chunks(version.chunks)) expect(chunk).toHaveProperty('bytes')
  }
  expect(files).toBe(4)
}

async function expectRebuilt(directory: string, key: string): Promise<void> {
  const [repositoryDirectory, dataKey] = [join(directory, 'repository'), Buffer.from(key, 'hex')]
  const rebuilt = await rebuildCatalog({ directory: join(directory, 'catalog'), repositoryDirectory, dataKey })
  expect(rebuilt).toMatchObject({ before: 'equal', differences: 0, damage: [] })
}

describe.skipIf(spawnSync('strace', ['-V']).status !== 0 && process.env['CI'] === undefined)('a prune', () => {
  const CALLS = ['fsync,fdatasync', 'pwritev,pwrite64', 'write', 'unlink,unlinkat', 'link,linkat,rename,renameat,renameat2'] as const

  it.each(CALLS)('that is killed in %s is finished by the next one', async (calls) => {
    const { directory, key, writer } = await archive()
    let kills = 0
    // Those of a process that begins and ends are many, and look alike.
    const step = calls === 'write' ? 5 : 1
    for (let n = 1; ; n += step) {
      const copy = join(scratchDirectory(), 'copy')
      cpSync(directory, copy, { recursive: true })
      const { isKilled, said } = prune(copy, key, `${calls}:signal=KILL:when=${n}`)
      if (!isKilled) {
        expect(said).toBe('pruned')
        break
      }
      kills += 1
      await expectSound(copy, key, writer)
      expect(prune(copy, key).said).toBe('pruned')
      await expectSound(copy, key, writer)
      await expectRebuilt(copy, key)
      expect(existsSync(join(copy, 'repository/packs/01/000000000001.pack'))).toBe(false)
      rmSync(copy, { recursive: true })
    }
    expect(kills).toBeGreaterThan(0)
  })

  it.each([
    ['fsync,fdatasync', 'EIO', 'io'],
    ['pwritev,pwrite64', 'ENOSPC', 'space'],
    ['unlink,unlinkat', 'EIO', 'io'],
  ] as const)('whose disk fails in %s with %s is finished by the next one', async (calls, errno, code) => {
    const { directory, key, writer } = await archive()
    let failures = 0
    for (let n = 1; ; n++) {
      const copy = join(scratchDirectory(), 'copy')
      cpSync(directory, copy, { recursive: true })
      const { said, why } = prune(copy, key, `${calls}:error=${errno}:when=${n}`)
      if (said === 'pruned' && n > 3) break
      if (said !== 'pruned') {
        expect(said, why).toBe(code)
        failures += 1
      }
      await expectSound(copy, key, writer)
      expect(prune(copy, key).said).toBe('pruned')
      await expectSound(copy, key, writer)
      await expectRebuilt(copy, key)
      rmSync(copy, { recursive: true })
    }
    expect(failures).toBeGreaterThan(0)
  })
})
