/** What a restore may be asked to do otherwise: owners, a rate; and the report that it leaves. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseRate } from '../../collector/cli/rate.ts'
import { createIdentity } from '../../collector/identity.ts'
import { parseOwnerMap } from '../../collector/owner-map.ts'
import { Pace } from '../../collector/pace.ts'
import { reportSigner } from '../../collector/report-signer.ts'
import { type RestoreReport, restore } from '../../collector/restore.ts'
import type { RestoreRequest } from '../../collector/restore-plan.ts'
import { type ReportSigner, type Unsigned, verifyReport, writeReport } from '../../collector/restore-report.ts'
import { keepSealedIdentity } from '../../collector/sealed-identity.ts'
import { silentLog } from '../../shared/log.ts'
import type { RelativePath } from '../../shared/path.ts'
import { JournalWriter, VOLUME } from '../support/journal-writer.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Store } from '../support/store.ts'
import { until } from '../support/until.ts'

const isRoot = process.getuid?.() === 0

async function restored(write: (writer: JournalWriter) => void, change: Partial<RestoreRequest>): Promise<RestoreReport> {
  const store = await Store.open()
  const writer = new JournalWriter()
  write(writer)
  await store.send(writer)
  const point = await store.history.point(writer.agent, VOLUME, { kind: 'head' })
  const whole = { agent: writer.agent, volume: VOLUME, path: '' as RelativePath, point, to: join(scratchDirectory(), 'to') }
  if (change.inPlace === true) mkdirSync(whole.to)
  return restore(store.history, { ...whole, dryRun: false, setuid: false, special: false, torn: false, ...change })
}

describe('owners', () => {
  it('are mapped by numbers and by names of this host, users and groups apart where that is asked', () => {
    const { users, groups } = parseOwnerMap(['1000:2000', 'user:5:root', 'group:6:7'])
    expect([...users]).toEqual([
      [1000, 2000],
      [5, 0],
    ])
    expect([...groups]).toEqual([
      [1000, 2000],
      [6, 7],
    ])
    for (const wrong of ['', '5', '5:', 'x:5:6', 'nobody-of-this-name:5', '1:4294967295', '1:2:3'])
      expect(() => parseOwnerMap([wrong]), wrong).toThrow(expect.objectContaining({ code: 'usage' }))
    expect(() => parseOwnerMap(['1:2', 'user:1:3'])).toThrow('already')
  })

  it.skipIf(!isRoot)('that change places stay two, also in place, and without owners files belong to who restores', async () => {
    const write = (writer: JournalWriter): void => {
      writer.file('a', Buffer.from('a'), { uid: 1001, gid: 1001 })
      writer.file('b', Buffer.from('b'), { uid: 1002, gid: 1002 })
    }
    for (const inPlace of [false, true]) {
      const { to } = await restored(write, { inPlace, owners: parseOwnerMap(['user:1001:1002', 'user:1002:1001']) })
      expect(['a', 'b'].map((name) => [statSync(join(to, name)).uid, statSync(join(to, name)).gid])).toEqual([
        [1002, 1001],
        [1001, 1002],
      ])
      const without = await restored(write, { inPlace, owner: 'none' })
      expect(statSync(join(without.to, 'a')).uid).toBe(0)
      expect(without.shortcomings).toEqual([])
    }
  })
})

describe('a rate', () => {
  it('always has a unit', () => {
    const read = ['50MB/s', '800 KiB/s', '1.5gb', '10B/s'].map((text) => parseRate(text, '--bandwidth'))
    expect(read).toEqual([50_000_000, 819_200, 1_500_000_000, 10])
    for (const wrong of ['50', 'fast', '0MB/s', '5 parsecs', '-1MB/s'])
      expect(() => parseRate(wrong, '--bandwidth')).toThrow('is not a rate')
  })

  it('holds back what is beyond it, and nothing where there is none', async () => {
    const started = performance.now()
    const pace = new Pace(100_000)
    // Half a second of it is free.
    for (let i = 0; i < 8; i++) await pace.take(10_000, () => i)
    expect(performance.now() - started).toBeGreaterThan(250)
    const { seconds } = await restored((writer) => void writer.file('a', Buffer.alloc(300_000, 'a')), { bytesPerSecond: 400_000 })
    expect(seconds).toBeGreaterThan(0.2)
    expect(new Pace(undefined).take(1e12, () => 'at once')).toBe('at once')
  })
})

describe('a report', () => {
  async function identity(): Promise<{ dataDir: string; store: Store }> {
    const store = await Store.open()
    const dataDir = scratchDirectory()
    await createIdentity(dataDir, store.repository.id)
    mkdirSync(join(dataDir, 'agents'))
    return { dataDir, store }
  }

  async function written(signer: ReportSigner | Unsigned): Promise<string> {
    const report = await restored(
      (writer) => {
        writer.file('a', Buffer.from('a'))
        writer.file('x\xff', Buffer.from('b'))
        writer.file('torn', Buffer.from('c'), { consistency: 'torn' })
      },
      { namesPaths: true },
    )
    const file = join(scratchDirectory(), 'report.jsonl')
    writeReport(file, report, { to: report.to }, { startedMs: 0, endedMs: 1 }, signer)
    return file
  }

  it('names every path with its digest and what became of it, and every byte of it is signed', async () => {
    const { dataDir } = await identity()
    const file = await written(reportSigner({ dataDir, repository: undefined }))
    expect(verifyReport(file)).toMatchObject({ paths: 4, signer: expect.stringMatching(/^collector [0-9a-f]{32}$/) as string })
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
    expect(lines.slice(1, -1).map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { path: '', outcome: 'restored', type: 'directory' },
      { path: 'a', outcome: 'restored', size: 1, digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string },
      { path: 'torn', outcome: 'missing', cause: 'torn' },
      { path: null, pathBytes: 'eP8=', outcome: 'restored' },
    ])
    const whole = readFileSync(file)
    for (let at = 0; at < whole.lastIndexOf(0x0a, whole.length - 2); at += 29) {
      const spoilt = Buffer.from(whole)
      spoilt[at] = (spoilt[at] ?? 0) ^ 1
      writeFileSync(file, spoilt)
      const refusal = expect.objectContaining({ code: expect.stringMatching(/^(damage|format-invalid)$/) as string }) as Error
      expect(() => verifyReport(file), `byte ${at}`).toThrow(refusal)
    }
    writeFileSync(file, [...lines.slice(0, 2), ...lines.slice(3), ''].join('\n'))
    expect(() => verifyReport(file)).toThrow(expect.objectContaining({ code: 'damage' }))
  })

  it('is signed from a bare repository too, and says where nobody could', async () => {
    const { dataDir, store } = await identity()
    const repository = { id: store.repository.id, directory: store.repositoryDirectory, dataKey: store.dataKey }
    expect(reportSigner({ dataDir: undefined, repository })).toEqual({ unsigned: 'the repository holds no identity of a collector' })
    const stop = new AbortController()
    const kept = keepSealedIdentity({ dataDir, repository, dataKey: store.dataKey, log: silentLog }, stop.signal)
    const signer = await until('the sealed identity', 10, () => {
      const found = reportSigner({ dataDir: undefined, repository })
      return 'unsigned' in found ? undefined : found
    })
    stop.abort()
    await kept
    expect(verifyReport(await written(signer))).toMatchObject({ paths: 4 })
    const file = await written({ unsigned: 'no key' })
    expect(() => verifyReport(file)).toThrow(
      expect.objectContaining({ code: 'not-trusted', message: expect.stringContaining('no key') as string }),
    )
    // Signed by a key whose certificate another authority has issued.
    const other = await identity()
    const stranger = reportSigner({ dataDir: other.dataDir, repository: undefined })
    if ('unsigned' in stranger) throw new Error(stranger.unsigned)
    const mixed = await written({ ...stranger, authority: signer.authority })
    expect(() => verifyReport(mixed)).toThrow(expect.objectContaining({ code: 'not-trusted' }))
  })
})
