/** The commands that read history, as processes, against a history that the test makes up. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { editDistance } from '../../collector/cli/absence.ts'
import type { ListedEntry } from '../../collector/history-source.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { relativePath } from '../../shared/path.ts'
import type { Version } from '../../shared/version.ts'
import { withAdditions } from '../../shared/version-extensions.ts'
import { directoryVersion, fileVersion } from '../support/agent-parts.ts'
import { at, FakeHistory, FIRST_MS, IMAGES, LAST_MS, serveHistory } from '../support/fake-history.ts'
import { LAUNCHER, launch } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'

function entry(path: string, version: Version, absent?: ListedEntry['absent']): ListedEntry {
  return { path: relativePath(path), position: { epoch: 1, seq: 5 }, version, absent }
}

/** A file whose content can be had. */
function stored(history: FakeHistory, path: string, content: string, changes: Parameters<typeof fileVersion>[1] = {}): ListedEntry {
  const version = fileVersion(content, changes)
  for (const { digest } of version.chunks) history.contents.set(digest, Buffer.from(content))
  return entry(path, version)
}

const link: Version = {
  kind: 'symlink',
  mode: 0o777,
  uid: 0,
  gid: 0,
  mtimeNs: 1n,
  ctimeNs: 1n,
  inode: 2n,
  links: 1,
  xattrs: [],
  target: 'study\xff',
}

function archive(): FakeHistory {
  const history = new FakeHistory()
  history.entries.push(
    entry('', directoryVersion()),
    stored(history, 'a.dcm', 'aaaa'),
    entry('current', link),
    entry('study-01', directoryVersion({ mode: 0o1777 })),
    stored(history, 'study-01/caf\xc3\xa9', 'coffee', { consistency: 'unverified' }),
    stored(history, 'study-01/x\xff', 'bytes', { xattrs: [{ name: 'user.n', value: 'v' }] }),
  )
  return history
}

function lines(stdout: string): Record<string, unknown>[] {
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

describe('ls', () => {
  it('lists one level, names as they can be typed, with doubts beside them', async () => {
    const data = await serveHistory(archive())
    const root = await launch('ls', 'pacs1:images', '--data', data)
    expect(root.stdout.split('\n').slice(1, -1)).toEqual([
      expect.stringMatching(/^-rw-r--r-- {2}0:0 {4} 4 B {2}1970-01-01 01:00:00.000 \+01:00 {2}a\.dcm$/),
      expect.stringMatching(/^lrwxrwxrwx .* current -> study\\xff$/),
      expect.stringMatching(/^drwxrwxrwt .* study-01$/),
    ])
    expect(root.stderr).toBe('pacs1:images at 2026-11-24 11:00:00.000 +01:00 (2026-11-24T10:00:00.000Z), seq 1:9, the newest\n')
    const study = await launch('ls', 'pacs1:images/study-01/', '--data', data)
    expect(study.stdout).toMatch(/ café \(unverified\)\n.* x\\xff\n$/)
  })

  it('answers in JSON one entry a line, names exact', async () => {
    const data = await serveHistory(archive())
    const { stdout, stderr } = await launch('ls', 'pacs1:images', '-R', '--json', '--data', data)
    expect(lines(stdout).map((line) => line['path'])).toEqual(['a.dcm', 'current', 'study-01', 'study-01/café', 'study-01/x\\xff'])
    expect(lines(stdout).at(-1)).toMatchObject({
      pathBytes: Buffer.from('study-01/x\xff', 'latin1').toString('base64'),
      size: 5,
      mode: '0644',
      xattrs: [{ name: 'user.n', value: Buffer.from('v').toString('base64') }],
    })
    expect(lines(stdout)[1]).toMatchObject({ target: 'study\\xff', targetBytes: Buffer.from('study\xff', 'latin1').toString('base64') })
    expect(stderr).toBe('')
  })

  it('says what was there instead of what was not', async () => {
    const data = await serveHistory(archive())
    const typo = await launch('ls', 'pacs1:images/stady-01/x', '--data', data)
    expect(typo.status).toBe(4)
    expect(typo.stderr).toContain('pacs1:images/stady-01/x did not exist at that moment; pacs1:images/study-01 did')
    const other = await launch('ls', 'pacs1:images/study-01/nothing-like-it', '--data', data)
    expect(other.stderr).toContain('; pacs1:images/study-01 did')
  })

  it('warns of a moment that is not certain', async () => {
    const history = archive()
    history.now = { ...history.now, whole: false, gap: { from: at(FIRST_MS), until: at(LAST_MS), cause: 'asleep' } }
    const { status, stderr } = await launch('ls', 'pacs1:images', '--at', '2026-11-24 10:30', '--data', await serveHistory(history))
    expect(status).toBe(0)
    expect(stderr).toMatch(/first full scan[^]*asleep/)
  })
})

describe('log', () => {
  const header = { previous: NO_DIGEST, epoch: 1, volume: IMAGES }

  function records(count: number): FakeHistory {
    const history = new FakeHistory()
    for (let seq = 2; seq < count + 2; seq++) {
      const record = { ...header, seq, time: at(FIRST_MS + seq), kind: 'put', path: relativePath(`${seq}.dcm`) } as const
      history.records.push({ record, version: fileVersion('x'), absent: seq === 2 ? 'lost' : undefined })
    }
    return history
  }

  it('shows every record, and marks content that is lost', async () => {
    const history = records(2)
    const gap = { ...header, seq: 9, time: at(LAST_MS), kind: 'gap', from: at(FIRST_MS), until: at(LAST_MS), cause: 'asleep' } as const
    history.records.push({ record: gap, version: undefined, absent: undefined })
    const data = await serveHistory(history)
    const { stdout } = await launch('log', 'pacs1:images', '--data', data)
    expect(stdout.split('\n').slice(0, -1)).toEqual([
      expect.stringMatching(/^TIME +SEQ +WHAT +SIZE +CONSISTENCY +PATH$/),
      expect.stringMatching(/^2026-11-24 10:00:00.002 \+01:00 {2}1:2 +put file +1 B +content lost +2\.dcm$/),
      expect.stringMatching(/ put file +1 B +stable +3\.dcm$/),
      expect.stringMatching(/ gap +- +- +2026.* to 2026.*: asleep$/),
    ])
    const json = await launch('log', 'pacs1:images', '--json', '--data', data)
    expect(lines(json.stdout)[0]).toMatchObject({ op: 'put', path: '2.dcm', lost: true, version: { kind: 'file', size: 1 } })
    expect(lines(json.stdout)[2]).toMatchObject({ op: 'gap', from: '2026-11-24T09:00:00.000Z', cause: 'asleep' })
  })

  it('shows who wrote a version, what it was sure of and whether it was inferred, and says the same in JSON', async () => {
    const history = new FakeHistory()
    const writer = { pid: 4711, uid: 104, executable: '/usr/sbin/Orthanc' }
    const put = (seq: number, path: string, version: Version): void => {
      const record = { ...header, seq, time: at(FIRST_MS + seq), kind: 'put', path: relativePath(path) } as const
      history.records.push({ record, version, absent: undefined })
    }
    const sparse = fileVersion('a sparse file', { consistency: 'crash-consistent' })
    put(2, 'a.dcm', withAdditions(sparse, { writer, holes: [{ offset: 2, length: 5 }] }))
    put(3, 'b.dcm', withAdditions(fileVersion('x', { consistency: 'torn' }), { writer: { ...writer, executable: '' } }))
    put(4, 'd', withAdditions(directoryVersion(), { isInferred: true }))
    const data = await serveHistory(history)
    const { stdout } = await launch('log', 'pacs1:images', '--data', data)
    expect(stdout.split('\n').slice(1, -1)).toEqual([
      expect.stringMatching(/ put file +13 B +crash-consistent +a\.dcm {2}by \/usr\/sbin\/Orthanc \(104\), pid 4711$/),
      expect.stringMatching(/ put file +1 B +torn +b\.dcm {2}by uid 104, pid 4711$/),
      expect.stringMatching(/ put directory +- +- +d {2}\(inferred\)$/),
    ])
    // A path begins within the first 80 of 100 columns.
    for (const line of stdout.split('\n').slice(2, -1)) expect(line.search(/ (b\.dcm|d) /)).toBeLessThan(80)
    const json = lines((await launch('log', 'pacs1:images', '--json', '--data', data)).stdout)
    expect(json.map((line) => line['version'])).toMatchObject([
      { consistency: 'crash-consistent', writer, inferred: false, holes: 5 },
      { consistency: 'torn', writer: { ...writer, executable: '' }, inferred: false },
      { inferred: true },
    ])
    expect(json[1]).not.toHaveProperty('version.holes')
  })

  it('shows what came after --from, and ends with 4 where nothing did', async () => {
    const data = await serveHistory(records(3))
    const all = await launch('log', 'pacs1:images', '--from', '2020-01-01', '--json', '--data', data)
    expect(lines(all.stdout)).toHaveLength(3)
    const last = await launch('log', 'pacs1:images', '--from', '2026-11-24T09:00:00.003Z', '--json', '--data', data)
    expect(lines(last.stdout)).toHaveLength(1)
    const none = await launch('log', 'pacs1:images', '--from', '2026-11-24T09:30:00Z', '--data', data)
    expect(none).toMatchObject({ status: 4, stdout: '' })
  })

  it('ends quietly when its reader has seen enough', async () => {
    const data = await serveHistory(records(20_000))
    const child = spawn(LAUNCHER, ['log', 'pacs1:images', '--data', data], { stdio: ['ignore', 'pipe', 'pipe'] })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    await once(child.stdout, 'data')
    child.stdout.destroy()
    await once(child, 'close')
    expect({ status: child.exitCode, stderr }).toEqual({ status: 0, stderr: '' })
  })
})

describe('cat', () => {
  it('writes exactly the content', async () => {
    const data = await serveHistory(archive())
    expect((await launch('cat', 'pacs1:images/study-01/café', '--data', data)).stdout).toBe('coffee')
    const json = await launch('cat', 'pacs1:images/study-01/x\\xff', '--json', '--data', data)
    expect(JSON.parse(json.stdout)).toMatchObject({ size: 5, content: Buffer.from('bytes').toString('base64') })
  })

  it('refuses a directory, and ends with 3 where the content is damaged, with 8 where it was lost or has expired', async () => {
    const history = archive()
    history.entries.push(
      entry('torn', fileVersion('nowhere')),
      entry('y', fileVersion('gone'), 'lost'),
      entry('z', fileVersion('old'), 'expired'),
    )
    const data = await serveHistory(history)
    expect((await launch('cat', 'pacs1:images/study-01', '--data', data)).status).toBe(2)
    const damaged = await launch('cat', 'pacs1:images/torn', '--data', data)
    expect(damaged).toMatchObject({ status: 3, stdout: '', stderr: expect.stringContaining('the pack has a hole there') })
    expect((await launch('cat', 'pacs1:images/y', '--data', data)).status).toBe(8)
    expect(await launch('cat', 'pacs1:images/z', '--data', data)).toMatchObject({
      status: 8,
      stderr: expect.stringContaining('has expired'),
    })
  })
})

describe('restore', () => {
  it('says the moment first and last, and writes what was there', async () => {
    const data = await serveHistory(archive())
    const to = join(scratchDirectory(), 'new')
    const { status, stdout, stderr } = await launch('restore', 'pacs1:images', '--at', '2026-11-24 11:00', '--to', to, '--data', data)
    const moment = '2026-11-24 11:00:00.000 +01:00 (2026-11-24T10:00:00.000Z)'
    expect(stderr).toContain(`Restoring pacs1:images as it was at ${moment}\n`)
    expect(stdout).toContain(`Restored pacs1:images as of ${moment} into ${to}:\n3 files, 2 directories, 1 symlink, 15 B, in `)
    expect(stderr).toContain('1 file could not be proven to be whole')
    expect(status).toBe(0)
    expect(readFileSync(join(to, 'study-01/café'), 'utf8')).toBe('coffee')
    expect(readlinkSync(join(to, 'current'), 'buffer').toString('latin1')).toBe('study\xff')
    expect(lstatSync(join(to, 'study-01')).mode & 0o7777).toBe(0o1777)
  })

  it.each([
    ['lost', 'lost', 8],
    ['expired', 'expired', 8],
    ['damaged', undefined, 3],
  ] as const)('restores the rest of a %s file, lists it, and does not end well', async (_, absent, status) => {
    const history = archive()
    history.entries.push(entry('bad', fileVersion('nowhere'), absent))
    const data = await serveHistory(history)
    const to = join(scratchDirectory(), 'new')
    const done = await launch('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', data)
    expect(done.status).toBe(status)
    expect(done.stderr).toMatch(/1 path could not be restored:\n {4}bad: /)
    expect(readFileSync(join(to, 'a.dcm'), 'utf8')).toBe('aaaa')
  })

  it('leaves out what is torn or special, says how to have it and when it was whole, and has it when asked', async () => {
    const history = archive()
    history.entries.push(
      stored(history, 'db', 'parts of two moments', { consistency: 'torn' }),
      entry('pipe', { kind: 'fifo', mode: 0o622, uid: 0, gid: 0, mtimeNs: 1n, ctimeNs: 1n, inode: 3n, links: 1, xattrs: [] }),
    )
    history.whole = at(FIRST_MS)
    const data = await serveHistory(history)
    const [without, whole] = [join(scratchDirectory(), 'without'), join(scratchDirectory(), 'with')]
    const left = await launch('restore', 'pacs1:images', '--at', 'now', '--to', without, '--data', data)
    expect(left.status).toBe(8)
    expect(left.stderr).toContain('2 paths could not be restored:\n')
    expect(left.stderr).toMatch(
      / {4}db: its content was torn .*--torn restores it.*; the last whole version is of 2026-11-24 10:00:00.000 /,
    )
    expect(left.stderr).toContain('    pipe: a fifo is recorded; --special recreates it\n')
    expect(left.stderr).not.toContain('changed while being read')
    const all = await launch('restore', 'pacs1:images', '--at', 'now', '--to', whole, '--torn', '--special', '--data', data)
    expect(all.status).toBe(0)
    expect(all.stderr).toContain('1 file changed while being read at the time')
    expect(readFileSync(join(whole, 'db'), 'utf8')).toBe('parts of two moments')
    expect(lstatSync(join(whole, 'pipe')).isFIFO()).toBe(true)
    expect((await launch('cat', 'pacs1:images/db', '--data', data)).stderr).toContain('warning: pacs1:images/db changed while')
  })

  it('does not end well while the repository is known to be damaged, and says where', async () => {
    const history = archive()
    history.damage.push({ file: '/r/packs/01/1.pack', offset: 77, reason: 'wrong checksum' })
    const data = await serveHistory(history)
    const done = await launch('restore', 'pacs1:images', '--at', 'now', '--to', join(scratchDirectory(), 'new'), '--data', data)
    expect(done).toMatchObject({ status: 3, stderr: expect.stringContaining('/r/packs/01/1.pack at byte 77: wrong checksum') })
  })

  it('only plans with --dry-run, and never writes into a directory that holds something', async () => {
    const data = await serveHistory(archive())
    const to = join(scratchDirectory(), 'new')
    const plan = await launch('restore', 'pacs1:images', '--at', 'now', '--to', to, '--dry-run', '--data', data)
    expect(plan).toMatchObject({ status: 0, stdout: expect.stringContaining('Would restore pacs1:images') })
    expect(lstatSync(to, { throwIfNoEntry: false })).toBeUndefined()
    expect((await launch('restore', 'pacs1:images', '--at', 'now', '--to', data, '--data', data)).status).toBe(9)
  })
})

it('names are alike when few letters differ', () => {
  expect([
    editDistance('study', 'study'),
    editDistance('study', 'stady'),
    editDistance('study', 'studies'),
    editDistance('', 'ab'),
  ]).toEqual([0, 1, 3, 2])
})
