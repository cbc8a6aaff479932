/** Restores in place with real processes: over a volume that an agent watches, and killed at random moments. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import { readIfPresent } from '../../shared/files.ts'
import { LAUNCHER } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { type Copy, differences } from '../support/truth.ts'
import { Random } from '../support/workload.ts'

const SEED = Number(process.env['PACSIMILE_SEED'] ?? Date.now() % 1_000_000)
const KILLS = process.env['PACSIMILE_SOAK'] === undefined ? 3 : 60
const VOLUME = 'pacs1:images'
const DAMAGE = 3
const NOT_FOUND = 4

beforeEach(() => {
  // What this host knows of restores is the test's own.
  process.env['PACSIMILE_RESTORES'] = join(scratchDirectory(), 'restores')
})

function growStudies(source: string, random: Random, studies: number, images: number): void {
  for (let study = 0; study < studies; study++) {
    mkdirSync(join(source, `study-${study}`), { recursive: true })
    for (let i = 0; i < images; i++) writeFileSync(join(source, `study-${study}/${i}.dcm`), random.bytes(10_000 + random.below(40_000)))
  }
}

/** As somebody does who wants money: rewritten under other names, some deleted, a note left in each directory. */
function encrypt(source: string, random: Random): void {
  for (const study of readdirSync(source)) {
    for (const name of readdirSync(join(source, study))) {
      const at = join(source, study, name)
      const choice = random.below(4)
      if (choice === 0) rmSync(at)
      if (choice === 1) writeFileSync(at, random.bytes(5000))
      if (choice === 2) renameSync(at, `${at}.locked`)
    }
    writeFileSync(join(source, study, 'README.txt'), 'pay')
  }
  renameSync(join(source, 'study-0'), join(source, 'gone'))
}

function at(site: Site): string {
  const last = site.log().at(-1)
  return `seq:${last?.epoch}:${last?.seq}`
}

describe('a restore in place over a volume that is watched', () => {
  it('is journalled like any change, and so is its undo: the agent goes on where it was, and the replica follows', async () => {
    const random = new Random(SEED)
    const source = join(scratchDirectory(), 'images')
    growStudies(source, random, 6, 12)
    const site = await Site.watching({ source })
    const { installation } = site
    const truth = walkTree(source)
    const clean = at(site)
    encrypt(source, random)
    await site.wait()
    const spoilt = walkTree(source)
    const before = site.log().at(-1)
    const expectFollowed = async (expected: Copy, what: string): Promise<void> => {
      await site.wait()
      expect(differences(expected, archiveTree(source)), what).toEqual([])
      expect(differences(expected, walkTree(installation.replicaOf('pacs1'))), `replica, ${what}`).toEqual([])
    }

    const data = ['--data', installation.data]
    const command = ['restore', VOLUME, '--at', clean, '--to', source, '--in-place', '--delete']
    expect(installation.try(...command, ...data).stderr).toContain('give --yes')
    const plan = installation.json(...command, '--dry-run', ...data) as { inPlace: { id: null; removed: unknown[]; bytesToWrite: number } }
    expect(plan.inPlace).toMatchObject({ id: null })
    expect(differences(spoilt, walkTree(source)), 'after a dry run').toEqual([])

    const report = join(scratchDirectory(), 'report.jsonl')
    const done = installation.json(...command, '--yes', '--report', report, ...data) as { inPlace: { id: string } }
    expect(done).toMatchObject({ missing: [], inPlace: { removed: plan.inPlace.removed, bytesToWrite: plan.inPlace.bytesToWrite } })
    await expectFollowed(truth, 'restored')
    const since = site.log({ since: before })
    expect(since.length).toBeGreaterThan(0)
    expect(new Set(since.map(({ epoch }) => epoch))).toEqual(new Set([before?.epoch]))
    expect(since.filter(({ path = '' }) => path.includes('.pacsimile-restore-'))).toEqual([])
    site.expectNothingMissed()

    expect(installation.json('restore', 'list')).toMatchObject({ restores: [{ id: done.inPlace.id, to: source, state: 'done' }] })
    expect(installation.json('restore', 'undo', done.inPlace.id)).toMatchObject({ done: true, troubles: [] })
    await expectFollowed(spoilt, 'taken back')
    expect(installation.json('restore', 'list')).toEqual({ restores: [] })
    site.expectNothingMissed()

    // The report names every path, and is what the collector has signed.
    const lines = readFileSync(report, 'utf8').trimEnd().split('\n')
    const paths = lines.slice(1, -1).map((line) => JSON.parse(line) as { path: string; outcome: string })
    expect(new Set(paths.filter(({ outcome }) => outcome !== 'removed').map(({ path }) => path))).toEqual(new Set(truth.keys()))
    expect(new Set(paths.map(({ outcome }) => outcome))).toEqual(new Set(['kept', 'restored', 'removed']))
    expect(installation.json('restore', 'verify-report', report, ...data)).toMatchObject({ trusted: true, paths: paths.length })
    writeFileSync(report, readFileSync(report, 'utf8').replace('"outcome":"kept"', '"outcome":"restored"'))
    expect(installation.try('restore', 'verify-report', report, ...data).status).toBe(DAMAGE)
  })
})

describe(`a restore in place, and its undo, killed ${KILLS} times each (PACSIMILE_SEED=${SEED})`, () => {
  it('end as if they had not been, and no file has half of a content', { timeout: 600_000 }, async () => {
    const random = new Random(SEED)
    const source = join(scratchDirectory(), 'images')
    growStudies(source, random, 8, 30)
    const site = await Site.watching({ source })
    const truth = walkTree(source)
    const clean = at(site)
    await site.stop()
    const { data } = site.installation
    encrypt(source, random)
    const spoilt = walkTree(source)
    const contents = new Set([...truth.values(), ...spoilt.values()].map(({ content }) => content))
    const restore = ['restore', VOLUME, '--at', clean, '--in-place', '--delete', '--yes', '--json', '--to']
    const offline = ['--repository', join(data, 'repository'), '--key-file', join(data, 'keys/repository.key')]
    let wholeMs = { restore: 0, undo: 0 }
    const killed = { restore: 0, undo: 0 }
    for (let round = 0; killed.restore < KILLS || killed.undo < KILLS; round++) {
      const live = join(scratchDirectory(), 'live')
      execFileSync('cp', ['-a', source, live])
      const run = async (what: 'restore' | 'undo', args: readonly string[]): Promise<{ status: number | null; said: string }> => {
        // The first round shows how long one takes; later ones are killed once: somewhere in that time, or while names change places.
        const atMs = Math.ceil(wholeMs[what] * (0.3 + random.below(70) / 100))
        const moments = [() => setTimeout(atMs), (ended: AbortSignal) => changing(live, what, random.below(15), ended)]
        let moment = round === 0 ? undefined : moments[round % 2]
        for (;;) {
          const started = performance.now()
          const { status, said } = await endOf(spawn(LAUNCHER, args, { stdio: ['ignore', 'pipe', 'inherit'] }), moment)
          if (round === 0) wholeMs = { ...wholeMs, [what]: performance.now() - started }
          // Where it was killed behind its last step there is nothing left to take back.
          if (status === 0 || (status === NOT_FOUND && what === 'undo' && round > 0)) return { status, said }
          expect(status, 'killed, not failed').toBeNull()
          killed[what] += 1
          moment = undefined
          for (const [path, { kind, content }] of archiveTree(live))
            if (kind === 'file' && !path.includes('.pacsimile-tmp-')) expect(contents, path).toContain(content)
        }
      }
      const { inPlace } = JSON.parse((await run('restore', [...restore, live, ...(round % 4 < 2 ? ['--data', data] : offline)])).said) as {
        inPlace: { id: string | null }
      }
      // Where it was killed behind its last step, the next run finds nothing to do, and the host knows which one has done it.
      const id = inPlace.id ?? onlyRestoreIn(site, live)
      expect(differences(truth, archiveTree(live)), `restored in round ${round}`).toEqual([])
      const { status } = await run('undo', ['restore', 'undo', id, '--in', live, '--json'])
      const found = walkTree(live)
      // The last thing that it does is to give the target its time.
      const root = status === NOT_FOUND ? spoilt.get('') : found.get('')
      if (root !== undefined) found.set('', root)
      expect(differences(spoilt, found), `taken back in round ${round}`).toEqual([])
      rmSync(live, { recursive: true })
    }
  })
})

function onlyRestoreIn({ installation }: Site, directory: string): string {
  const { restores } = installation.json('restore', 'list', '--in', directory) as { restores: { id: string; state: string }[] }
  expect(restores).toMatchObject([{ state: 'done' }])
  return restores[0]?.id ?? ''
}

/** Resolves so long after the restore, or its undo, was seen to change names, or when it has ended. */
async function changing(live: string, what: 'restore' | 'undo', moreMs: number, ended: AbortSignal): Promise<void> {
  const state = what === 'restore' ? '"swapping"' : '"undoing"'
  for (let isSeen = false; !isSeen && !ended.aborted; ) {
    const place = readdirSync(live).find((name) => name.startsWith('.pacsimile-restore-'))
    isSeen = place !== undefined && readIfPresent(join(live, place, 'note.json'))?.includes(state) === true
    if (!isSeen) await setTimeout(1)
  }
  await setTimeout(moreMs)
}

/** Killed at the moment, if it has not ended by then. */
async function endOf(
  child: ChildProcess,
  moment: ((ended: AbortSignal) => Promise<unknown>) | undefined,
): Promise<{ status: number | null; said: string }> {
  let said = ''
  child.stdout?.on('data', (bytes: Buffer) => {
    said += bytes.toString()
  })
  const ended = once(child, 'close')
  if (moment !== undefined) {
    const isEnded = new AbortController()
    // Where it ends first, nobody is left to be killed.
    await Promise.race([ended.then(() => isEnded.abort()), moment(isEnded.signal)])
    child.kill('SIGKILL')
  }
  const [status] = (await ended) as [number | null]
  return { status, said }
}
