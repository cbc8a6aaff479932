/** find, history, diff, marks and the filters of log, as processes, against a history that the test makes up. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ListedEntry } from '../../collector/history-source.ts'
import { NO_DIGEST } from '../../shared/digest.ts'
import { relativePath } from '../../shared/path.ts'
import type { RecordSummary } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { withAdditions } from '../../shared/version-extensions.ts'
import { directoryVersion, fileVersion } from '../support/agent-parts.ts'
import { at, FakeHistory, FIRST_MS, IMAGES, LAST_MS, serveHistory } from '../support/fake-history.ts'
import { launch } from '../support/launcher.ts'
import { scratchDirectory } from '../support/scratch.ts'

const HEADER = { previous: NO_DIGEST, epoch: 1, volume: IMAGES } as const

function entry(path: string, version: Version): ListedEntry {
  return { path: relativePath(path), position: { epoch: 1, seq: 5 }, version, absent: undefined }
}

function archive(): FakeHistory {
  const history = new FakeHistory()
  history.entries.push(
    entry('', directoryVersion()),
    entry('a.dcm', fileVersion('aaaa')),
    entry('study-01', directoryVersion()),
    entry('study-01/B.DCM', fileVersion('b')),
    entry('study-01/caf\xc3\xa9.txt', fileVersion('coffee')),
    entry('study-01/x\n.dcm', fileVersion('newline')),
  )
  return history
}

/** Two puts, a rename and an end, by two writers. */
function changes(): FakeHistory {
  const history = new FakeHistory()
  const writer = { pid: 4711, uid: 104, executable: '/usr/sbin/Orthanc' }
  const add = (record: RecordSummary, version?: Version): unknown => history.records.push({ record, version, absent: undefined })
  const time = at(FIRST_MS)
  add({ ...HEADER, seq: 2, time, kind: 'put', path: relativePath('d/1.dcm') }, withAdditions(fileVersion('one'), { writer }))
  add(
    { ...HEADER, seq: 3, time, kind: 'put', path: relativePath('d/1.dcm') },
    withAdditions(fileVersion('one and two'), { writer: { ...writer, pid: 1, executable: '/bin/rsync' } }),
  )
  add({ ...HEADER, seq: 4, time, kind: 'rename', path: relativePath('d/1.dcm'), to: relativePath('d/2.txt') })
  add({ ...HEADER, seq: 5, time, kind: 'remove', path: relativePath('d/1.dcm') })
  return history
}

function paths(stdout: string): unknown[] {
  return stdout
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => (JSON.parse(line) as { path: unknown }).path)
}

describe('find', () => {
  it('shows names that match, with their whole paths, escaped', async () => {
    const data = await serveHistory(archive())
    const { stdout, stderr } = await launch('find', 'pacs1:images', '*.dcm', '--data', data)
    expect(stdout.split('\n').slice(0, -1)).toEqual([
      expect.stringMatching(/ 4 B .* a\.dcm$/),
      expect.stringMatching(/ study-01\/x\\x0a\.dcm$/),
    ])
    expect(stderr).toMatch(/^pacs1:images at .*\n2 matches among 6 paths\n$/)
  })

  it('takes a pattern of paths, whatever the case, and kinds', async () => {
    const data = await serveHistory(archive())
    const found = async (...args: string[]): Promise<unknown[]> =>
      paths((await launch('find', 'pacs1:images', ...args, '--json', '--data', data)).stdout)
    expect(await found('study-01/*')).toHaveLength(3)
    expect(await found('*.dcm', '-i')).toEqual(['a.dcm', 'study-01/B.DCM', 'study-01/x\n.dcm'])
    expect(await found('*', '--type', 'directory')).toEqual(['study-01'])
    expect(await found('café*')).toEqual(['study-01/café.txt'])
    expect(await found('nothing')).toEqual([])
  })

  it('of a directory that was not there says so', async () => {
    const { status, stderr } = await launch('find', 'pacs1:images/stady-01', '*', '--data', await serveHistory(archive()))
    expect(status).toBe(4)
    expect(stderr).toContain('pacs1:images/study-01 did')
  })
})

describe('history', () => {
  it('shows every version with its content and writer, and its ends', async () => {
    const { stdout } = await launch('history', 'pacs1:images/d/1.dcm', '--data', await serveHistory(changes()))
    expect(stdout.split('\n').slice(0, -1)).toEqual([
      expect.stringMatching(/^TIME +AGE +SEQ +WHAT +SIZE +DIGEST +CONSISTENCY +WRITER$/),
      expect.stringMatching(/ 1:2 +put file +3 B +[0-9a-f]{12} +stable +\/usr\/sbin\/Orthanc \(104\), pid 4711$/),
      expect.stringMatching(/ 1:3 +put file +11 B +[0-9a-f]{12} +stable +\/bin\/rsync \(104\), pid 1$/),
      expect.stringMatching(/ 1:4 +renamed away +- +- +- +-$/),
      expect.stringMatching(/ 1:5 +gone \(remove\) +- +- +- +-$/),
    ])
  })

  it('of a path that was never there is an error', async () => {
    const { status, stderr } = await launch('history', 'pacs1:images/d/9.dcm', '--data', await serveHistory(changes()))
    expect(status).toBe(4)
    expect(stderr).toContain('was never there')
  })
})

describe('log', () => {
  it('is narrowed to names, kinds of records and writers', async () => {
    const data = await serveHistory(changes())
    const seqs = async (...args: string[]): Promise<number[]> => {
      const { stdout } = await launch('log', 'pacs1:images', ...args, '--json', '--data', data)
      return stdout
        .trim()
        .split('\n')
        .filter(Boolean)
        .map((line) => (JSON.parse(line) as { seq: number }).seq)
    }
    expect(await seqs('--op', 'rename,remove')).toEqual([4, 5])
    expect(await seqs('--match', '*.txt')).toEqual([4])
    expect(await seqs('--writer', 'Orthanc')).toEqual([2])
    expect(await seqs('--writer', 'uid:104', '--match', 'd/1.*')).toEqual([2, 3])
    expect(await seqs('--writer', 'pid:1')).toEqual([3])
    const none = await launch('log', 'pacs1:images', '--writer', 'nobody', '--data', data)
    expect(none.status).toBe(4)
  })

  it('refuses a kind that there is not, and an end of what is followed', async () => {
    const data = await serveHistory(changes())
    const wrong = await launch('log', 'pacs1:images', '--op', 'delete', '--data', data)
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining('"delete": there are put, remove') as string })
    expect(await launch('log', 'pacs1:images', '--follow', '--to', 'now', '--data', data)).toMatchObject({ status: 2 })
  })
})

describe('diff', () => {
  it('with a directory says what is there that was not, what is not there, and what differs', async () => {
    const data = await serveHistory(archive())
    const directory = join(scratchDirectory(), 'now')
    mkdirSync(join(directory, 'study-01'), { recursive: true })
    writeFileSync(join(directory, 'a.dcm'), 'aaab')
    writeFileSync(join(directory, 'new'), '')
    const { status, stdout, stderr } = await launch('diff', 'pacs1:images', '--at', 'now', '--with', directory, '--data', data)
    expect(status).toBe(0)
    const lines = stdout.split('\n')
    expect(lines).toContainEqual(expect.stringMatching(/^M a\.dcm {2}content, .*mtime.* 4 B$/))
    expect(lines).toContain('+ new  0 B')
    expect(lines).toContain('- study-01/B.DCM  1 B')
    expect(stderr).toMatch(/1 added, 3 removed, \d changed/)
    const same = await launch('diff', 'pacs1:images', '--from', '2026-11-24 10:30', '--data', data)
    expect(same).toMatchObject({ status: 0, stdout: '', stderr: expect.stringContaining('No difference.') as string })
  })

  it('asks for what it needs', async () => {
    const data = await serveHistory(archive())
    const refused = async (...args: string[]): Promise<string> => {
      const { status, stderr } = await launch('diff', 'pacs1:images', ...args, '--data', data)
      expect(status).toBe(2)
      return stderr
    }
    expect(await refused()).toContain('--from T1 [--to T2], or --at T --with DIR')
    expect(await refused('--at', 'now')).toContain('--at goes with --with DIR')
    expect(await refused('--from', 'now', '--with', '/tmp')).toContain('name it with --at')
    const nowhere = await launch('diff', 'pacs1:images', '--with', join(scratchDirectory(), 'none'), '--data', data)
    expect(nowhere).toMatchObject({ status: 10, stderr: expect.stringContaining('ENOENT') as string })
    const typo = await launch('diff', 'pacs1:images/stady-01', '--from', '2026-11-24 10:30', '--data', data)
    expect(typo).toMatchObject({ status: 4, stderr: expect.stringContaining('pacs1:images/study-01 did') as string })
  })
})

describe('marks', () => {
  it('are listed, or it is said how one is set', async () => {
    const history = new FakeHistory()
    const data = await serveHistory(history)
    expect((await launch('marks', 'pacs1:images', '--data', data)).stderr).toContain('pacsimile mark AGENT:VOLUME NAME')
    history.named.push({ name: 'before-upgrade', time: at(LAST_MS), position: { epoch: 1, seq: 7 } })
    const { stdout } = await launch('marks', 'pacs1:images', '--data', data)
    expect(stdout).toMatch(/^TIME .*\n2026-11-24 11:00:00.000 \+01:00 .* 1:7 +before-upgrade\n$/)
    expect(await launch('marks', 'pacs1:images/x', '--data', data)).toMatchObject({ status: 2 })
    expect(await launch('mark', 'pacs1:images', 'Not A Label', '--data', data)).toMatchObject({ status: 2 })
  })
})
