import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type Copy, sourceOf } from '../../collector/repository/copy.ts'
import { Lease } from '../../collector/repository/copy-lease.ts'
import { S3Copy } from '../../collector/repository/copy-s3.ts'
import { copySuite } from '../suites/copy-suite.ts'
import { hasObjectStore, ObjectStore } from '../support/object-store.ts'
import { scratchDirectory } from '../support/scratch.ts'

const NAME = 'packs/01/000000000001.pack'
const WRITER = { repository: 'r', instance: '1'.repeat(32) }
const UP_MS_MAX = 120_000
const never = new AbortController().signal

it('a server that ignores the conditions of puts is refused', async () => {
  const server = createServer((request, response) => {
    request.resume().once('end', () => response.writeHead(200, { etag: '"x"' }).end())
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const credentialsFile = join(scratchDirectory(), 'credentials')
  writeFileSync(credentialsFile, 'aws_access_key_id = a\naws_secret_access_key = b\n')
  await using copy = await S3Copy.open({ bucket: 'bucket', prefix: '', endpoint: `http://127.0.0.1:${port}`, credentialsFile }, never)
  await expect(copy.prove()).rejects.toMatchObject({ code: 'unsupported' })
})

describe.skipIf(!hasObjectStore)('with a real S3 server', () => {
  let store: ObjectStore

  beforeAll(async () => {
    store = await ObjectStore.start()
  }, UP_MS_MAX)
  afterAll(() => store.stop(), UP_MS_MAX)

  const open = (bucket: string, lockDays?: number): Promise<Copy> =>
    S3Copy.open({ bucket, prefix: 'archive/one', endpoint: store.endpoint, credentialsFile: store.credentialsFile, lockDays }, never)

  copySuite('s3', async () => {
    const bucket = await store.bucket()
    return { copy: await open(bucket), other: await open(bucket) }
  })

  it('a file that grows is parts, and one object when it is finished', async () => {
    const bucket = await store.bucket()
    const copy = await open(bucket)
    await copy.append(NAME, 0, Buffer.from('abc'))
    await copy.append(NAME, 3, Buffer.from('d'))
    const key = `archive/one/${NAME}`
    expect(await store.keys(bucket)).toEqual([`${key}.tail-0000000000000000`, `${key}.tail-0000000000000003`])
    await copy.finish(NAME, sourceOf(Buffer.from('abcdef')))
    expect(await store.keys(bucket)).toEqual([key])
  })

  it('a part whose answer was lost is taken for put, and what follows it goes on behind', async () => {
    const copy = await open(await store.bucket())
    await copy.append(NAME, 0, Buffer.from('abc'))
    await copy.append(NAME, 0, Buffer.from('abc'))
    await copy.append(NAME, 0, Buffer.from('abcdef'))
    expect((await copy.read(NAME, 0, 100)).toString()).toBe('abcdef')
  })

  it('the server keeps the conditions of puts', async () => {
    const bucket = await store.bucket()
    await (await open(bucket)).prove?.()
    expect(await store.keys(bucket)).toEqual([])
  })

  it('a bucket that is not there, and a wrong key, are said so', async () => {
    await expect(Array.fromAsync((await open('nowhere')).list('packs/'))).rejects.toMatchObject({ code: 'not-found' })
    const place = { bucket: await store.bucket(), prefix: '', endpoint: store.endpoint, credentialsFile: '/nowhere' }
    await expect(S3Copy.open(place, never)).rejects.toMatchObject({ code: 'io' })
  })

  it('of a bucket with object lock, nothing that is finished is lost by a removal', async () => {
    const bucket = await store.bucket({ lock: true })
    const copy = await open(bucket, 1)
    await Lease.take(copy, WRITER)
    await copy.append(NAME, 0, Buffer.from('abc'))
    await copy.finish(NAME, sourceOf(Buffer.from('abcdef')))
    const { GetObjectRetentionCommand, ListObjectVersionsCommand, DeleteObjectCommand } = await import('@aws-sdk/client-s3')
    const Key = `archive/one/${NAME}`
    const { Retention } = await store.client.send(new GetObjectRetentionCommand({ Bucket: bucket, Key }))
    expect(Retention?.Mode).toBe('COMPLIANCE')
    // Which is what reading it and finding it whole does, once in a round of scrubbing.
    await (await open(bucket, 30)).renew?.(NAME)
    const renewed = await store.client.send(new GetObjectRetentionCommand({ Bucket: bucket, Key }))
    const days = ((renewed.Retention?.RetainUntilDate?.getTime() ?? 0) - Date.now()) / 86_400_000
    expect(days).toBeGreaterThan(29.9)
    expect(days).toBeLessThan(30.1)
    await copy.remove(NAME)
    const { Versions = [] } = await store.client.send(new ListObjectVersionsCommand({ Bucket: bucket, Prefix: Key }))
    const [version] = Versions.filter((found) => found.Key === Key)
    expect(version?.Size).toBe(6)
    await expect(store.client.send(new DeleteObjectCommand({ Bucket: bucket, Key, VersionId: version?.VersionId }))).rejects.toMatchObject({
      name: 'AccessDenied',
    })
  })
})
