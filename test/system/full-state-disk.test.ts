/** A real agent whose own disk fills up while it captures, and cannot be written when it starts. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AgentStatus } from '../../agent/status.ts'
import { Installation } from '../support/installation.ts'
import { SmallDisk } from '../support/small-disk.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const EXECUTABLE = join(import.meta.dirname, '../../collector/cli/pacsimile')
const DISK_BYTES = 96 << 20

interface Site {
  readonly installation: Installation
  readonly disk: SmallDisk
  readonly source: string
}

/** An enrolled agent whose state directory is a disk of its own. */
async function siteOf(): Promise<Site> {
  const installation = await Installation.make()
  installation.startCollector()
  await installation.up()
  const disk = new SmallDisk(DISK_BYTES, installation.stateOf('pacs1'))
  const source = join(installation.directory, 'source')
  installation.enroll('pacs1', source)
  return { installation, disk, source }
}

/** An agent that is told of a keeper has no supervisor of its own: its process is what ends. */
const NOBODY = '@pacsimile-test-nobody'

function alone<Result>(act: () => Result): Result {
  process.env['NOTIFY_SOCKET'] = NOBODY
  try {
    return act()
  } finally {
    delete process.env['NOTIFY_SOCKET']
  }
}

/** Files in directories of their own: each is several records. */
function write(source: string, round: number, random: Random): void {
  for (let i = 0; i < 200; i++) {
    const directory = join(source, `r${round}`, `d${i}`)
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'f'), random.bytes(2000))
  }
}

function statusOf({ installation }: Pick<Site, 'installation'>): AgentStatus {
  return installation.json('agent', 'status', '--state', installation.stateOf('pacs1')) as AgentStatus
}

describe.skipIf(process.getuid?.() !== 0)('an agent whose disk is full', () => {
  it('stops capturing, says so, and when there is space again has everything, and a gap for what it may have missed', async () => {
    const site = await siteOf()
    const { installation, disk, source } = site
    const random = new Random(1)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    await expect.poll(() => existsSync(join(disk.directory, 'ballast')), { timeout: 30_000, interval: 200 }).toBe(true)
    write(source, 0, random)
    disk.fill()
    let round = 1
    await expect
      .poll(
        () => {
          // Whatever is freed, the ballast too, is taken at once by somebody else.
          write(source, round++, random)
          disk.fill()
          return statusOf(site).alarms.join()
        },
        { timeout: 60_000, interval: 200 },
      )
      .toMatch(/the journal cannot be written/)
    write(source, round, random)
    expect(installation.try('wait', 'pacs1', '--data', installation.data, '--timeout', '1s').status).not.toBe(0)
    expect(installation.isRunning('pacs1')).toBe(true)

    disk.free()
    await installation.wait('pacs1')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    expect(installation.json('check', '--data', installation.data)).toMatchObject({ whole: true, affected: [] })
    await expect.poll(() => statusOf(site).volumes[0]?.gaps, { timeout: 30_000, interval: 200 }).toBeGreaterThan(0)
    expect(statusOf(site)).toMatchObject({ epoch: 1, alarms: [] })
    expect(installation.isRunning('pacs1')).toBe(true)
    await installation.stopAll()
  })
})

describe.skipIf(process.getuid?.() !== 0)('an agent whose disk is read-only when it starts', () => {
  it('ends with the reason and leaves everything as it is; when the disk can be written it goes on, with a gap', async () => {
    const site = await siteOf()
    const { installation, disk, source } = site
    const random = new Random(2)
    installation.startAgent('pacs1')
    write(source, 0, random)
    await installation.wait('pacs1')
    await installation.kill('pacs1')
    write(source, 1, random)
    // The agent may outlive its supervisor by a moment.
    await expect.poll(() => disk.remount('ro'), { timeout: 10_000 }).toBe(true)
    const refused = alone(() => installation.try('agent', 'run', '--state', installation.stateOf('pacs1')))
    expect(`${refused.status} ${refused.stderr}`).toMatch(/^10 .*(Read-only|EROFS)/s)

    expect(disk.remount('rw')).toBe(true)
    installation.startAgent('pacs1')
    await installation.wait('pacs1')
    expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
    expect(statusOf(site)).toMatchObject({ epoch: 1, volumes: [{ gaps: 1 }] })
    await installation.stopAll()
  })
})

describe.skipIf(spawnSync('strace', ['--version']).status !== 0)(
  'an agent whose state cannot be written, nor for a while be opened again',
  () => {
    it('begins again from what is durable, without a new start of its process, and says meanwhile that it protects nothing', async () => {
      const installation = await Installation.make()
      installation.startCollector()
      await installation.up()
      const source = join(installation.directory, 'source')
      installation.enroll('pacs1', source)
      const stateDir = installation.stateOf('pacs1')
      const [log, lock] = [join(stateDir, 'state', '000005.log'), join(stateDir, 'state', 'LOCK')]
      const faults = ['write:error=ENOSPC:when=16+', 'openat:error=EROFS:when=3..6'].flatMap((fault) => ['-e', `inject=${fault}`])
      const command = [
        '-f',
        '-qq',
        '-o',
        join(installation.directory, 'trace'),
        '-P',
        log,
        '-P',
        lock,
        '-e',
        'trace=write,openat',
        ...faults,
      ]
      const child = spawn('strace', [...command, EXECUTABLE, 'agent', 'run', '--state', stateDir], {
        stdio: 'ignore',
        // A group of its own, because strace does not end before the agent does.
        detached: true,
        // strace counts calls for each thread.
        env: { ...process.env, UV_THREADPOOL_SIZE: '1', NOTIFY_SOCKET: NOBODY },
      })
      onTestFinished(async () => {
        if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
        process.kill(-child.pid, 'SIGKILL')
        await once(child, 'exit')
      })
      await installation.wait('pacs1')
      const site = { installation, source }
      const started = statusOf(site).startedMs
      let written = 0
      await expect
        .poll(
          () => {
            writeFileSync(join(source, `f${written++}`), 'content')
            return statusOf(site)
          },
          { timeout: 30_000, interval: 200 },
        )
        .toMatchObject({ alarms: [expect.stringMatching(/nothing is protected: .*Read-only/)], volumes: [{ state: 'paused' }] })
      await installation.wait('pacs1')
      expect(differences(walkTree(source), walkTree(installation.replicaOf('pacs1')))).toEqual([])
      expect(statusOf(site)).toMatchObject({ startedMs: started, epoch: 1, alarms: [], volumes: [{ state: 'watching', gaps: 1 }] })
    })
  },
)
