/**
 * The replica as stand-in: against an encrypting process, a mass delete, what hospitals do in bulk, and in use while its source is away.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { rewriteHeader } from '../../collector/cli/dicom-sample.ts'
import { dicomImage } from '../support/dicom-archive.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Site } from '../support/site.ts'
import { archiveTree, walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'

const VOLUME = 'pacs1:images'
const IMAGES = process.env['PACSIMILE_SOAK'] === undefined ? 300 : 10_000
const STUDY_IMAGES = IMAGES / 20
/** In which a mass change counts, where a test cannot wait for the minute that it is by default. */
const WINDOW_SECONDS = 8
/** docs/errors.md */
const EXIT_STOPPED = 16

interface Standing {
  readonly state: string
  readonly clean?: { readonly epoch: number; readonly seq: number }
}

/** An archive of 20 studies in one directory for each, watched, and a truth of it before anything happens. */
async function archive(): Promise<{ site: Site; source: string }> {
  const source = join(scratchDirectory(), 'images')
  for (let study = 0; study < 20; study++) {
    mkdirSync(join(source, `s${study}`), { recursive: true })
    for (let i = 0; i < STUDY_IMAGES; i++) writeFileSync(join(source, `s${study}/${i}.dcm`), dicomImage(`study${study}`, i))
  }
  return { site: await Site.watching({ source, hasBreaker: true }), source }
}

function replicaOf(site: Site): string {
  return site.installation.replicaOf('pacs1')
}

/** As `status --json` tells, whatever it exits with. */
function standingOf(site: Site): Standing {
  const { stdout } = site.installation.try('status', '--data', site.installation.data, '--json')
  const { agents } = JSON.parse(stdout) as { agents: { volumes: { replica: Standing }[] }[] }
  const [volume] = agents[0]?.volumes ?? []
  if (volume === undefined) throw new Error('no volume is told of')
  return volume.replica
}

/** Encrypts every file below a directory, as such a process does: reads, writes under another name, removes. */
async function encrypting(directory: string): Promise<void> {
  const script = `
    const fs = require('node:fs'), path = require('node:path'), crypto = require('node:crypto')
    const key = crypto.randomBytes(32)
    for (const name of fs.readdirSync(process.argv[1], { recursive: true })) {
      const file = path.join(process.argv[1], name)
      if (!fs.statSync(file).isFile()) continue
      const cipher = crypto.createCipheriv('aes-256-ctr', key, crypto.randomBytes(16))
      fs.writeFileSync(file, cipher.update(fs.readFileSync(file)))
      fs.renameSync(file, file + '.locked')
    }`
  const child = spawn(process.execPath, ['-e', script, directory], { stdio: 'inherit' })
  await once(child, 'exit')
}

describe('the breaker', () => {
  it(`stops an encrypting process of ${IMAGES} files; rewound, the replica and a restore equal the truth`, {
    timeout: 600_000,
  }, async () => {
    const { site, source } = await archive()
    const { installation } = site
    const truth = walkTree(source)
    await encrypting(source)
    await until('the replica is paused', 60, () => (standingOf(site).state === 'paused' ? true : undefined))
    expect(installation.try('status', '--data', installation.data).status).toBe(EXIT_STOPPED)
    expect(installation.try('wait', 'pacs1', '--data', installation.data).status).toBe(EXIT_STOPPED)
    // A collector that dies then starts no better informed, and lets nothing through.
    await installation.kill('collector')
    installation.startCollector()
    await until('it is paused still', 60, () => {
      const { stdout } = installation.try('status', '--data', installation.data, '--json')
      return stdout !== '' && standingOf(site).state === 'paused' ? true : undefined
    })
    const { clean } = standingOf(site)
    installation.run('replica', 'rewind', VOLUME, '--data', installation.data)
    expect(differences(truth, walkTree(replicaOf(site)))).toEqual([])
    expect(differences(truth, walkTree(site.restore(`seq:${clean?.epoch}:${clean?.seq}`)))).toEqual([])
    // The history has it all, also what is not applied.
    await site.stop()
    expect(site.log().filter(({ op, path }) => op === 'put' && path?.endsWith('.locked')).length).toBeGreaterThanOrEqual(IMAGES)
    site.start()
    installation.run('replica', 'resume', VOLUME, '--data', installation.data)
    await site.expectEqual()
  })

  it('stops a mass delete, and lets pass a study, rewritten headers and an announced move', { timeout: 600_000 }, async () => {
    const { site, source } = await archive()
    const { installation } = site
    rmSync(join(source, 's3'), { recursive: true })
    await site.expectEqual()
    for (const name of readdirSync(join(source, 's4'))) {
      for (const study of ['s4', 's5', 's6', 's7', 's8', 's9']) {
        const file = join(source, study, name)
        writeFileSync(file, rewriteHeader(readFileSync(file), { patientName: 'Merged^Patient' }))
      }
    }
    await site.expectEqual()
    const expected = ['replica', 'expect', VOLUME, '--for', '1h', '--reason', 'another layout', '--data', installation.data]
    installation.run(...expected)
    for (let study = 4; study < 20; study++) {
      mkdirSync(join(source, `moved/s${study}`), { recursive: true })
      for (const name of readdirSync(join(source, `s${study}`)))
        renameSync(join(source, `s${study}`, name), join(source, `moved/s${study}`, name))
    }
    await site.expectEqual()
    // What was announced is over.
    installation.run('replica', 'expect', VOLUME, '--for', '1ms', '--reason', 'done', '--data', installation.data)
    const truth = walkTree(source)
    for (let study = 4; study < 16; study++) rmSync(join(source, `moved/s${study}`), { recursive: true })
    await until('the replica is paused', 60, () => (standingOf(site).state === 'paused' ? true : undefined))
    installation.run('replica', 'rewind', VOLUME, '--data', installation.data)
    expect(differences(truth, walkTree(replicaOf(site)))).toEqual([])
  })
})

describe('a restore in place that the breaker would take for a mass change', () => {
  it('says so before it runs, with the command that announces it', { timeout: 600_000 }, async () => {
    const { site, source } = await archive()
    const { installation } = site
    const config = join(installation.data, 'collector.toml')
    writeFileSync(config, readFileSync(config, 'utf8').replace(/^seconds = .*$/m, `seconds = ${WINDOW_SECONDS}`))
    await installation.kill('collector', 'SIGTERM')
    installation.startCollector()
    await installation.until('status', '--data', installation.data)
    const last = site.log().at(-1)
    for (let study = 20; study < 32; study++) {
      mkdirSync(join(source, `s${study}`))
      for (let i = 0; i < STUDY_IMAGES; i++) writeFileSync(join(source, `s${study}/${i}.dcm`), dicomImage(`study${study}`, i))
    }
    await site.expectEqual()
    const recordedMs = Date.now()
    // What came within the window counts for nothing when it goes.
    await until('the window is over', 60, () => (Date.now() - recordedMs > WINDOW_SECONDS * 1000 ? true : undefined))
    const data = ['--data', installation.data]
    const restore = ['restore', VOLUME, '--at', `seq:${last?.epoch}:${last?.seq}`, '--to', source, '--in-place', '--delete', ...data]
    const expectFollowed = async (): Promise<void> => {
      await site.wait()
      expect(differences(archiveTree(source), walkTree(replicaOf(site)))).toEqual([])
    }
    const massChange = (): unknown =>
      (installation.json(...restore, '--dry-run') as { inPlace: { massChange: { command: string } | null } }).inPlace.massChange
    const gone = 12 * (STUDY_IMAGES + 1)
    const command = `pacsimile replica expect ${VOLUME} --for 1h --reason 'restore in place'`
    expect(massChange()).toEqual({ target: VOLUME, gone, share: 20, files: 50, configured: true, command })
    // What is so little is not worth a word.
    expect(installation.try(...restore, '--dry-run', '--include', 's20').stderr).not.toContain('replica expect')

    const unannounced = installation.try(...restore, '--yes')
    expect(unannounced.stderr).toContain(`Announce it first: ${command}`)
    await until('the replica is paused', 60, () => (standingOf(site).state === 'paused' ? true : undefined))
    installation.run('replica', 'resume', VOLUME, ...data)
    await expectFollowed()

    const [, id] = /restore undo ([0-9a-f]{12})/.exec(unannounced.stdout) ?? []
    installation.run('restore', 'undo', id ?? '')
    await expectFollowed()
    installation.run('replica', 'expect', VOLUME, '--for', '1h', '--reason', 'restore in place', ...data)
    expect(massChange()).toBeNull()
    installation.run(...restore, '--yes')
    await expectFollowed()
  })
})

describe('a failover', () => {
  it('keeps what was written, over killed collectors; brings it back but for conflicts, or keeps it aside', {
    timeout: 600_000,
  }, async () => {
    const { site, source } = await archive()
    const { installation } = site
    const data = ['--data', installation.data]
    const frozen = walkTree(source)
    // Killed as soon as it was asked: the command, given again, goes on.
    const asked = installation.start('begin', ['failover', 'begin', VOLUME, ...data])
    await until('it is written down', 30, () =>
      existsSync(join(installation.data, 'replica/.standings/pacs1/images.json')) ? true : undefined,
    )
    await installation.kill('collector')
    if (asked.exitCode === null) await once(asked, 'exit')
    installation.startCollector()
    await installation.until('failover', 'begin', VOLUME, ...data)
    const replica = replicaOf(site)
    expect(differences(frozen, walkTree(replica))).toEqual([])
    // A PACS works on it, while its source is not quite as dead as was thought.
    writeFileSync(join(replica, 's0/0.dcm'), rewriteHeader(dicomImage('study0', 0), { patientName: 'Night^Shift' }))
    writeFileSync(join(replica, 's1/0.dcm'), 'both wrote this')
    rmSync(join(replica, 's2/0.dcm'))
    mkdirSync(join(replica, 'night'))
    writeFileSync(join(replica, 'night/1.dcm'), dicomImage('night', 1))
    writeFileSync(join(source, 's1/0.dcm'), 'and so did the source')
    writeFileSync(join(source, 's19/late.dcm'), dicomImage('late', 1))
    await until('the history goes on', 30, () => (site.log().some(({ path }) => path === 's19/late.dcm') ? true : undefined))
    expect(existsSync(join(replica, 's19/late.dcm'))).toBe(false)
    const { entries } = installation.json('failover', 'diff', VOLUME, ...data) as { entries: { path: string; change: string }[] }
    expect(entries.map(({ path, change }) => `${change} ${path}`).sort()).toEqual([
      'added night',
      'added night/1.dcm',
      'changed s0/0.dcm',
      'changed s1/0.dcm',
      'removed s2/0.dcm',
    ])
    const open = spawn('sleep', ['60'], { cwd: replica })
    const end = ['failover', 'end', VOLUME, '--bring-back', source, ...data]
    expect(installation.try('failover', 'end', VOLUME, ...data).status, 'without a choice').toBe(2)
    expect(installation.try(...end).stderr).toContain(`among them ${open.pid} (sleep`)
    const closed = once(open, 'exit')
    open.kill()
    await closed
    const ended = installation.try(...end, '--json')
    expect(ended.status).toBe(8)
    const report = JSON.parse(ended.stdout) as { branch: string; applied: number; conflicts: { path: string }[] }
    expect(report.conflicts.map(({ path }) => path)).toEqual(['s1/0.dcm'])
    expect(readFileSync(join(source, 's1/0.dcm'), 'utf8')).toBe('and so did the source')
    expect(readFileSync(join(report.branch, 'files/s1/0.dcm'), 'utf8')).toBe('both wrote this')
    expect(readFileSync(join(source, 'night/1.dcm'))).toEqual(dicomImage('night', 1))
    expect(existsSync(join(source, 's2/0.dcm'))).toBe(false)
    await site.expectEqual()

    // Once more, and given up; the collector is killed under the end.
    installation.run('failover', 'begin', VOLUME, ...data)
    appendFileSync(join(replica, 's0/0.dcm'), 'more')
    for (let i = 0; i < 200; i++) writeFileSync(join(replica, `s1/new-${i}`), `${i}`)
    writeFileSync(join(source, 's0/1.dcm'), dicomImage('study0', 77))
    const ending = installation.start('end', ['failover', 'end', VOLUME, '--discard', '--json', ...data])
    await until('it has begun', 30, () => (readdirSync(join(report.branch, '..')).length > 1 ? true : undefined))
    await installation.kill('collector')
    if (ending.exitCode === null) await once(ending, 'exit')
    installation.startCollector()
    await installation.up()
    if (standingOf(site).state !== 'following') installation.try('failover', 'end', VOLUME, '--discard', ...data)
    await site.expectEqual()
    const { branches } = installation.json('failover', 'status', VOLUME, ...data) as { branches: { directory: string }[] }
    const [, branch] = branches
    expect(readdirSync(join(branch?.directory ?? '', 'files/s1'))).toHaveLength(200)
    expect(
      readFileSync(join(branch?.directory ?? '', 'files/s0/0.dcm'))
        .subarray(-4)
        .toString(),
    ).toBe('more')
  })
})

describe('a volume without a replica', () => {
  it('is restored from the packs, and compared when it has one again', async () => {
    const source = join(scratchDirectory(), 'images')
    mkdirSync(source, { recursive: true })
    writeFileSync(join(source, 'a'), 'one')
    const site = await Site.watching({ source })
    const { installation } = site
    const config = join(installation.data, 'collector.toml')
    const text = readFileSync(config, 'utf8')
    await installation.kill('collector', 'SIGTERM')
    writeFileSync(config, text.replace('[replicaVolumes]', `[replicaVolumes]\n"${VOLUME}" = "off"`))
    installation.startCollector()
    await installation.up()
    writeFileSync(join(source, 'b'), 'two')
    await site.wait()
    expect(standingOf(site).state).toBe('off')
    expect(existsSync(join(replicaOf(site), 'b'))).toBe(false)
    expect(differences(walkTree(source), walkTree(site.restore('now')))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    writeFileSync(config, text)
    installation.startCollector()
    await installation.up()
    await site.expectEqual()
  })
})
