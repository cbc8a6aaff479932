import { chmodSync, closeSync, existsSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DeleteObjectCommand, GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { CopyVerifyReport } from '../../collector/copy-verify.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import type { HealedFile } from '../../collector/scrub.ts'
import { CopiedSite } from '../support/copied-site.ts'
import type { Installation } from '../support/installation.ts'
import { hasObjectStore, ObjectStore } from '../support/object-store.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'
import { until } from '../support/until.ts'
import { Random } from '../support/workload.ts'

/** More than a pack holds, so that one of them is full. */
const FILES = 40
const FILE_BYTES = 2_000_000
const SECONDS = 90
const UP_MS_MAX = 120_000
const PACK = 'packs/01/000000000001.pack'
const GROWING = 'packs/02/000000000002.pack'
const SEGMENT = 'segments/01/000000000001.seg'

let site: CopiedSite
let installation: Installation

/** An archive with a copy, of which the collector runs and the agent does not any more. */
async function archive(place: readonly string[]): Promise<void> {
  site = await CopiedSite.make()
  ;({ installation } = site)
  await site.startCollector()
  site.addCopy('vault', ...place)
  await site.protect(FILES, FILE_BYTES)
  await installation.kill('pacs1', 'SIGTERM')
  await untilSealed(join(site.repository, PACK))
  await site.untilState('current')
}

async function untilSealed(pack: string): Promise<void> {
  const isSealed = (): boolean => existsSync(pack) && (statSync(pack).mode & 0o222) === 0
  await until(`${pack} is sealed`, SECONDS, () => (isSealed() ? true : undefined))
}

function damage(file: string, offset: number, length = 64): void {
  const { mode } = statSync(file)
  chmodSync(file, 0o600)
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.alloc(length, 0x55), 0, length, offset)
  closeSync(fd)
  chmodSync(file, mode & 0o777)
}

function verify(...options: string[]): { readonly status: number; readonly report: CopyVerifyReport } {
  const { status, stdout, stderr } = installation.try('copy', 'verify', 'vault', '--data', installation.data, '--json', ...options)
  if (stdout === '') throw new Error(stderr)
  return { status, report: JSON.parse(stdout) as CopyVerifyReport }
}

const found = ({ findings }: CopyVerifyReport): string[] => [...new Set(findings.map(({ file, kind }) => `${kind} ${file}`))].sort()

function scrubOften(): void {
  const config = join(installation.data, 'collector.toml')
  // A round takes two or three seconds.
  writeFileSync(config, readFileSync(config, 'utf8').replace('scrubDays = 30', 'scrubDays = 0.00003'))
}

describe('a copy in a directory', () => {
  let copy: string

  beforeEach(async () => {
    copy = join(scratchDirectory(), 'copy')
    await archive([`fs:${copy}`])
    // What a seal adds is copied a moment later than all that it holds.
    await untilSealed(join(copy, PACK))
  })

  it('is verified; what is damaged or missing is named, and mended from the repository', async () => {
    expect(verify()).toMatchObject({ status: 0, report: { findings: [], better: [] } })
    damage(join(copy, PACK), 3_000_000)
    rmSync(join(copy, SEGMENT))
    damage(join(copy, GROWING), 200)
    const { status, report } = verify()
    expect(status).toBe(3)
    expect(found(report)).toEqual([`damaged ${GROWING}`, `damaged ${PACK}`, `missing ${SEGMENT}`].sort())
    expect(installation.try('check', '--repository', copy, ...site.keyOptions).status).toBe(3)
    const repaired = verify('--repair')
    expect(repaired.report.findings.every(({ isRepaired }) => isRepaired)).toBe(true)
    expect(repaired.status).toBe(0)
    // What the copier writes anew it comes to in a moment.
    await until('it is right again', SECONDS, () => (verify().status === 0 ? true : undefined))
    site.expectRestored(copy)
  })

  it('is verified and mended while no collector runs, too, and a finished file that is gone is missing', async () => {
    await installation.kill('collector', 'SIGTERM')
    rmSync(join(copy, PACK))
    damage(join(copy, GROWING), 200)
    expect(found(verify().report)).toEqual([`damaged ${GROWING}`, `missing ${PACK}`].sort())
    expect(verify('--repair').status).toBe(0)
    await site.startCollector()
    await site.untilState('current')
    expect(verify()).toMatchObject({ status: 0, report: { findings: [] } })
    site.expectRestored(copy)
  })

  it('has what the repository has not any more, and says so', () => {
    const own = join(site.repository, PACK)
    damage(own, statSync(own).size - 40, 40)
    const { status, report } = verify()
    expect(status).toBe(0)
    expect(report).toMatchObject({ findings: [], better: [{ file: PACK, reason: 'it is damaged in the repository' }] })
    rmSync(own)
    expect(verify().report.better).toEqual([{ file: PACK, reason: 'the repository does not have it' }])
  })

  it('is re-read on schedule, and mended', async () => {
    damage(join(copy, PACK), 3_000_000)
    await installation.kill('collector', 'SIGTERM')
    scrubOften()
    await site.startCollector()
    await until('it is repaired', SECONDS, async () => ((await installation.statusIfUp())?.copies[0]?.repaired === 1 ? true : undefined))
    await until('a round is whole', SECONDS, async () => (await installation.statusIfUp())?.copies[0]?.verifiedSinceMs)
    expect(site.status.copies[0]).toMatchObject({ damaged: 0 })
    expect(verify()).toMatchObject({ status: 0, report: { findings: [] } })
    site.expectRestored(copy)
  })

  it('gives the repository what parity cannot repair there', async () => {
    const own = join(site.repository, PACK)
    const { size } = statSync(own)
    damage(own, Math.floor(size / 3), Math.floor(size / 3))
    rmSync(join(installation.data, 'replica'), { recursive: true })
    await installation.kill('collector', 'SIGTERM')
    expect(installation.try('check', '--repository', site.repository).status).toBe(3)
    scrubOften()
    await site.startCollector()
    await until('it is repaired', SECONDS, async () => (((await installation.statusIfUp())?.scrub?.repaired ?? 0) > 0 ? true : undefined))
    const [line = ''] = readFileSync(join(site.repository, 'heals.jsonl'), 'utf8').trim().split('\n').reverse()
    expect(JSON.parse(line) as HealedFile).toMatchObject({ source: 'copy vault', file: PACK })
    expect(site.status).toMatchObject({ damage: 0 })
    await installation.kill('collector', 'SIGTERM')
    site.expectRestored(site.repository)
  })
})

describe('a segment that is not full', () => {
  it('is damaged when the catalog is made, comes back from a copy, and the catalog has it all when the collector is back', async () => {
    site = await CopiedSite.make()
    ;({ installation } = site)
    await site.startCollector()
    site.addCopy('vault', `fs:${join(scratchDirectory(), 'copy')}`)
    await site.protect(1, 50_000)
    // Each in a frame of its own.
    for (const name of ['second.dcm', 'third.dcm']) {
      writeFileSync(join(site.source, name), new Random(7).bytes(50_000))
      await installation.wait('pacs1')
    }
    await site.untilState('current')
    await installation.kill('pacs1', 'SIGTERM')
    await installation.kill('collector', 'SIGTERM')
    const segment = join(site.repository, SEGMENT)
    damage(segment, FILE_HEADER_BYTES + 60)
    rmSync(join(installation.data, 'catalog'), { recursive: true })
    installation.startCollector()
    await until('the collector ends', SECONDS, () => (installation.isRunning('collector') ? undefined : true))
    expect(installation.log('collector')).toMatch(
      /the repository is damaged.*\n(.*\n)*.*the catalog lacks something; the collector starts anew/,
    )
    const [line = ''] = readFileSync(join(site.repository, 'heals.jsonl'), 'utf8').trim().split('\n').reverse()
    expect(JSON.parse(line) as HealedFile).toMatchObject({ source: 'copy vault', file: SEGMENT })
    await site.startCollector()
    expect(site.status.damage).toBe(0)
    const to = join(scratchDirectory(), 'restored')
    installation.run('restore', 'pacs1:images', '--at', 'now', '--to', to, '--data', installation.data)
    expect(differences(walkTree(site.source), walkTree(to))).toEqual([])
    await installation.kill('collector', 'SIGTERM')
    expect(installation.json('rebuild', '--data', installation.data)).toMatchObject({ before: 'equal' })
    site.expectRestored(site.repository)
  })
})

describe.skipIf(!hasObjectStore)('a copy in a bucket', () => {
  let store: ObjectStore

  beforeAll(async () => {
    store = await ObjectStore.start()
  }, UP_MS_MAX)
  afterAll(() => store.stop(), UP_MS_MAX)

  it('is verified; what is damaged or deleted is named, and mended from the repository', async () => {
    const bucket = await store.bucket()
    await archive([`s3:${bucket}/site`, '--endpoint', store.endpoint, '--credentials-file', store.credentialsFile])
    expect(verify()).toMatchObject({ status: 0, report: { findings: [], better: [] } })
    const Key = `site/${PACK}`
    const { Body } = await store.client.send(new GetObjectCommand({ Bucket: bucket, Key }))
    const bytes = Buffer.from((await Body?.transformToByteArray()) ?? [])
    bytes.fill(0x55, 3_000_000, 3_000_064)
    await store.client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: bytes }))
    const { status, report } = verify()
    expect(status).toBe(3)
    expect(found(report)).toEqual([`damaged ${PACK}`])
    expect(verify('--repair').status).toBe(0)
    expect(verify()).toMatchObject({ status: 0, report: { findings: [] } })

    await store.client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))
    expect(found(verify().report)).toEqual([`missing ${PACK}`])
    expect(verify('--repair').status).toBe(0)
    await until('it is there again', SECONDS, () => (verify().status === 0 ? true : undefined))

    // One of the parts of what grows, spoilt where it lies.
    const part = (await store.keys(bucket)).find((key) => key.startsWith(`site/${GROWING}.tail-`)) ?? ''
    await store.client.send(new PutObjectCommand({ Bucket: bucket, Key: part, Body: Buffer.alloc(100, 0x55) }))
    await installation.kill('collector', 'SIGTERM')
    await site.startCollector()
    await site.untilState('current')
    expect(verify()).toMatchObject({ status: 0, report: { findings: [] } })
  })
})
