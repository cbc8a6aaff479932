import { closeSync, cpSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { makeFilesystem } from '../support/filesystem.ts'
import { canMount, command } from '../support/image-filesystem.ts'
import { Site } from '../support/site.ts'
import { someFiles } from '../support/some-files.ts'
import { storm } from '../support/storm.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const SOAK = process.env['PACSIMILE_SOAK'] === '1'
const KILLS = SOAK ? 50 : 6
const RESTARTS = SOAK ? 50 : 3
const GUST_OPERATIONS = 3000
const OVERFLOW_OPERATIONS = 30_000
/** Where directories were renamed meanwhile, all that was told is waited for beside the scan. */
const OVERFLOW_PATIENCE_SECONDS = 150
/** To capture what one storm did. */
const BACKLOG_SECONDS = 10
const LIMIT = { timeout: (180 + (KILLS + RESTARTS) * 10) * 1000 }
const BALLAST_PIECE = 1 << 20
const BALLAST_PIECES_MAX = 400

const child = (site: Site): Promise<number> => until('the agent answers', 30, async () => (await site.statusIfRunning())?.pid)

describe.skipIf(!canMount)(`an agent (PACSIMILE_SEED=${SEED})`, () => {
  it(
    `that is killed ${KILLS} times during storms loses no event: nothing unannounced, everything equal, and no gap but for versions that it held`,
    LIMIT,
    async () => {
      const site = await Site.watching({ source: makeFilesystem('ext4', 2 * 1024 ** 3).at })
      const random = new Random(SEED)
      const { supervisor } = site.status
      expect(supervisor, 'the process that starts the agent again').toBeTypeOf('number')
      for (let round = 0; round < KILLS; round++) {
        const pid = await child(site)
        expect(pid).not.toBe(supervisor)
        const blowing = storm(join(site.source, `round-${round}`), { operations: GUST_OPERATIONS, seed: SEED + round })
        await setTimeout(random.below(400))
        process.kill(pid, 'SIGKILL')
        await blowing
        await until('another child', 30, async () => {
          const now = (await site.statusIfRunning())?.pid
          return now === pid ? undefined : now
        })
        expect(site.status.supervisor).toBe(supervisor)
      }
      // Hardly anything was captured between two kills: all that every storm did waits now.
      await site.expectEqual(50 + KILLS * BACKLOG_SECONDS)
      // Versions that were in the hands of the process died with it; those that have no name any more are declared.
      site.expectNothingMissed((cause) => cause.startsWith('the agent was ended while'))
      expect(site.log().filter(({ op }) => op === 'epoch')).toHaveLength(1)
    },
  )

  it(
    `that is stopped and started ${RESTARTS} times during storms has gaps only while it did not run, and everything is equal`,
    LIMIT,
    async () => {
      const site = await Site.watching({ source: makeFilesystem('ext4', 2 * 1024 ** 3).at })
      const random = new Random(SEED)
      const away: { from: number; until: number }[] = []
      for (let round = 0; round < RESTARTS; round++) {
        const blowing = storm(join(site.source, `round-${round}`), { operations: GUST_OPERATIONS, seed: SEED + round })
        await setTimeout(random.below(400))
        const from = Date.now()
        await site.stop(round % 2 === 0 ? 'SIGTERM' : 'SIGKILL')
        await blowing
        site.start()
        await site.wait()
        away.push({ from, until: Date.now() })
      }
      await site.expectEqual()
      const strange = site.gaps.filter(
        (gap) => !away.some((span) => Date.parse(gap.from) <= span.until && Date.parse(gap.until) >= span.from),
      )
      expect(strange).toEqual([])
      expect(site.log().filter(({ op }) => op === 'epoch')).toHaveLength(1)
    },
  )

  it('S08 whose queue overflows says so in a gap, scans, and everything is equal', LIMIT, async () => {
    const environment = { PACSIMILE_TEST_QUEUE: 'limited' }
    const site = await Site.watching({ source: makeFilesystem('ext4', 2 * 1024 ** 3).at, environment })
    expect(site.gaps).toEqual([])
    const pid = await child(site)
    process.kill(pid, 'SIGSTOP')
    try {
      await storm(site.source, { operations: OVERFLOW_OPERATIONS, seed: SEED })
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    await site.expectEqual(OVERFLOW_PATIENCE_SECONDS)
    const { gaps } = site
    // One for each queue that overflowed: the names of what changed, and what was closed.
    expect(gaps.length).toBeGreaterThan(0)
    expect(gaps.filter(({ cause }) => !/overflow/i.test(cause))).toEqual([])
    // Over: what comes next is covered again.
    writeFileSync(join(site.source, 'after'), 'content')
    await site.expectEqual()
    expect(site.status.volumes[0]).toMatchObject({ mode: 'complete', state: 'watching' })
    expect(site.gaps).toHaveLength(gaps.length)
  })

  it('S10 whose state directory is on a full disk goes on, and has everything when there is space again', LIMIT, async () => {
    const small = makeFilesystem('ext4', 96 << 20)
    const source = makeFilesystem('ext4', 1 << 30).at
    const site = await Site.watching({ source }, (installation) => {
      mkdirSync(join(small.at, 'state'))
      symlinkSync(join(small.at, 'state'), installation.stateOf('pacs1'))
    })
    await site.installation.kill('collector')
    small.prove()
    const ballast = join(small.at, 'ballast')
    fill(ballast)
    await storm(source, { operations: GUST_OPERATIONS, seed: SEED })
    await until('the full disk is an alarm', 60, async () => ((await site.statusIfRunning())?.alarms.length ?? 0) > 0 || undefined)
    expect(site.installation.isRunning('pacs1')).toBe(true)

    rmSync(ballast)
    site.installation.startCollector()
    await site.expectEqual()
    expect(site.installation.json('check', '--data', site.installation.data)).toMatchObject({ whole: true, affected: [] })
    await site.installation.stopAll()
  })

  it('whose state directory is an old copy begins a new epoch, and the history stays whole', LIMIT, async () => {
    const site = await Site.watching({ source: makeFilesystem('ext4', 1 << 30).at })
    someFiles(site.source)
    await site.wait()
    await site.stop()
    const old = `${site.state}-old`
    cpSync(site.state, old, { recursive: true, preserveTimestamps: true })

    site.start()
    await storm(site.source, { operations: GUST_OPERATIONS, seed: SEED })
    await site.wait()
    const before = { copy: walkTree(site.source), last: site.log().at(-1) }
    await site.stop()
    rmSync(site.state, { recursive: true })
    renameSync(old, site.state)
    writeFileSync(join(site.source, 'd0', 'f0'), 'changed while it was stopped')

    site.start()
    await site.expectEqual()
    expect(site.status.epoch).toBeGreaterThan(before.last?.epoch ?? 0)
    const restored = site.restore(`seq:${before.last?.epoch}:${before.last?.seq}`)
    expect(differences(before.copy, walkTree(restored)).slice(0, 20)).toEqual([])
    expect(site.installation.json('check', '--data', site.installation.data)).toMatchObject({ whole: true, damage: [], affected: [] })
  })
})

/** Takes all the space there is, in at most so many pieces. */
function fill(file: string): void {
  const fd = openSync(file, 'w')
  try {
    for (const size of [BALLAST_PIECE, 4096]) {
      for (let piece = 0; piece < BALLAST_PIECES_MAX; piece++) {
        if (writeSync(fd, Buffer.alloc(size, 'b')) < size) break
      }
    }
    fsyncSync(fd)
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
  } finally {
    closeSync(fd)
  }
  command('sync', '-f', file)
}
