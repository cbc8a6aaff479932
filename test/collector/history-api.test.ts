/** What restorers are told over the network, and what they are not. */
import { once } from 'node:events'
import { mkdirSync, readdirSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { HistorySource } from '../../collector/history-source.ts'
import { restore } from '../../collector/restore.ts'
import type { RestorerIdentity } from '../../collector/restorer-identity.ts'
import { TlsHistory } from '../../collector/tls-history.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { QUESTION_BYTES_MAX } from '../../shared/limits.ts'
import { type Label, label, ROOT, relativePath } from '../../shared/path.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { ReadingPort } from '../support/reading-port.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { walkTree } from '../support/tree-walk.ts'
import { differences } from '../support/truth.ts'

const PACS = label('pacs1', 'agent')
const PATIENTLY = { timeout: 15_000 }

async function archive(options?: Parameters<typeof ReadingPort.open>[0]): Promise<ReadingPort> {
  const port = await ReadingPort.open(options)
  const { writer } = port
  writer.put('d', directoryVersion())
  writer.file('d/one', Buffer.from('one '.repeat(1000)))
  writer.file('d/\xff\xfe\n"<&', Buffer.from('bytes'))
  writer.put('link', symlinkVersion('d/\xff'))
  writer.file('empty', Buffer.alloc(0))
  writer.append({ kind: 'mark', volume: VOLUME, name: 'before' })
  writer.file('d/one', Buffer.from('two '.repeat(500)))
  writer.rename('d', 'e')
  writer.remove('empty')
  await port.send()
  return port
}

async function connected(identity: RestorerIdentity): Promise<TlsHistory> {
  const history = await TlsHistory.connect(identity)
  onTestFinished(() => history[Symbol.asyncDispose]())
  return history
}

async function everything(source: HistorySource): Promise<unknown[]> {
  const head = await source.point(PACS, VOLUME, { kind: 'head' })
  const marked = await source.point(PACS, VOLUME, { kind: 'mark', name: 'before' })
  const contents = async (versions: AsyncIterable<{ version?: unknown }>): Promise<unknown[]> => {
    const found: unknown[] = []
    for await (const { version } of versions) {
      const chunks = (version as { chunks?: Parameters<HistorySource['chunks']>[0] } | undefined)?.chunks ?? []
      for await (const result of source.chunks(chunks)) found.push('bytes' in result ? result.bytes.toString('latin1') : result)
    }
    return found
  }
  const query = { path: ROOT, from: undefined, until: undefined }
  const renamed = relativePath('e/one')
  return [
    await source.volumes(),
    head,
    marked,
    await source.window(PACS, VOLUME),
    await source.marks(PACS, VOLUME),
    await source.lastWhole(PACS, VOLUME, renamed, head.position),
    await Array.fromAsync(source.tree(PACS, VOLUME, ROOT, head.position)),
    await Array.fromAsync(source.tree(PACS, VOLUME, ROOT, marked.position)),
    await Array.fromAsync(source.log(PACS, VOLUME, query)),
    await Array.fromAsync(source.versions(PACS, VOLUME, renamed)),
    await contents(source.tree(PACS, VOLUME, ROOT, head.position)),
    await contents(source.tree(PACS, VOLUME, ROOT, marked.position)),
    await contents(source.log(PACS, VOLUME, query)),
    await contents(source.versions(PACS, VOLUME, renamed)),
  ]
}

/** Without what only the network needs. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value).filter(([key]) => !('digest' in value && (key === 'of' || key === 'index')))
  return Object.fromEntries(fields.map(([key, field]) => [key, plain(field)]))
}

describe('history over the network', () => {
  it('says what the collector itself says, and gives the same content', async () => {
    const port = await archive()
    const remote = await connected(await port.restorer('radiology', ['pacs1:images']))
    const [far, near] = [await everything(remote), await everything(port.store.history)]
    expect(plain(far)).toEqual(plain(near))
    expect(JSON.stringify(near.at(-3))).toContain('one one')
  })

  it('is restored like any other', { timeout: 60_000 }, async () => {
    const port = await archive()
    const { writer } = port
    for (let i = 0; i < 300; i++) writer.file(`many-${i}`, Buffer.from(`${i} `.repeat(1500)))
    await port.send()
    const remote = await connected(await port.restorer('radiology', ['pacs1']))
    const point = await remote.point(PACS, VOLUME, { kind: 'head' })
    const wanted = { agent: PACS, volume: VOLUME, path: ROOT, point, dryRun: false, setuid: false, special: false, torn: false }
    const [far, near] = [join(scratchDirectory(), 'far'), join(scratchDirectory(), 'near')]
    const report = await restore(remote, { ...wanted, to: far })
    await restore(port.store.history, { ...wanted, to: near })
    expect(report).toMatchObject({ files: 302, missing: [], fromReplica: 0 })
    expect(differences(walkTree(near), walkTree(far))).toEqual([])
  })

  it('that brings other content than its digest names gives no file', async () => {
    const port = await archive()
    const remote = await connected(await port.restorer('radiology'))
    vi.spyOn(port.store.history, 'chunks').mockImplementation(async function* (refs) {
      for (const { length } of refs) yield { bytes: Buffer.alloc(length, 'x') }
    })
    const point = await remote.point(PACS, VOLUME, { kind: 'head' })
    const to = join(scratchDirectory(), 'out')
    const wanted = { agent: PACS, volume: VOLUME, path: ROOT, point, to, dryRun: false, setuid: false, special: false, torn: false }
    const report = await restore(remote, wanted)
    expect(report.damaged).toBe(true)
    expect(report.missing.map(({ path }) => path).toSorted()).toEqual(['e/one', 'e/\xff\xfe\n"<&'])
    expect(readdirSync(join(to, 'e'))).toEqual([])
  })

  it('is of the volumes that are allowed, and says nothing of others', async () => {
    const port = await archive()
    const other = new JournalWriter({ agent: 'secret-agent' })
    other.file('same', Buffer.from('bytes'))
    await port.send(other)
    const allowed = await port.restorer('radiology', ['pacs1', 'pacs2'])
    const remote = await connected(allowed)
    expect(await remote.volumes()).toEqual([{ agent: 'pacs1', volume: 'images' }])
    const secret = label('secret-agent', 'agent')
    const nowhere = label('nowhere', 'agent')
    const asked = (agent: Label): Promise<unknown>[] => [
      remote.point(agent, VOLUME, { kind: 'head' }),
      remote.window(agent, VOLUME),
      remote.marks(agent, VOLUME),
      remote.lastWhole(agent, VOLUME, ROOT, { epoch: 1, seq: 3 }),
      Array.fromAsync(remote.tree(agent, VOLUME, ROOT, { epoch: 1, seq: 3 })),
      Array.fromAsync(remote.log(agent, VOLUME, { path: ROOT, from: undefined, until: undefined })),
      Array.fromAsync(remote.versions(agent, VOLUME, ROOT)),
    ]
    // The same word for one that is there and one that is not.
    for (const answer of [...asked(secret), ...asked(nowhere)]) await expect(answer).rejects.toMatchObject({ code: 'not-allowed' })
    const unknown = await remote.window(label('pacs2', 'agent'), VOLUME).catch((error: unknown) => error)
    expect(unknown).toMatchObject({ code: 'not-found', message: expect.not.stringContaining('secret') })
    // The same bytes are in both: by the place where they are not allowed they are not given.
    const ask = async (agent: string, path: string, seq: number): Promise<number> => {
      const body = JSON.stringify({ agent, volume: 'images', files: [{ path, at: { epoch: 1, seq }, from: 0, count: 1 }] })
      return (await port.ask({ method: 'POST', path: '/v1/history/content', ...allowed.tls }, body)).status
    }
    expect(await ask('pacs1', 'd/\xff\xfe\n"<&', 6)).toBe(200)
    expect(await ask('secret-agent', 'same', 4)).toBe(403)
    expect(port.access.filter(({ outcome }) => outcome === 'not-allowed')).toHaveLength(15)
  })

  it('leaves a line for who asked what, and one for what became of it', async () => {
    const port = await archive()
    const remote = await connected(await port.restorer('radiology', ['pacs1']))
    const [file] = await Array.fromAsync(remote.tree(PACS, VOLUME, relativePath('e/one'), { epoch: 1, seq: 12 }))
    if (file?.version.kind !== 'file') throw new Error('it is a file')
    await Array.fromAsync(remote.chunks(file.version.chunks))
    const lines = port.access.slice(-4)
    expect(lines).toMatchObject([
      { event: 'asked', restorer: 'radiology', by: 'certificate', what: 'tree', agent: 'pacs1', volume: 'images', path: 'e/one' },
      { event: 'ended', outcome: 'whole' },
      { event: 'asked', what: 'content', at: [['e/one', file.position.epoch, file.position.seq, 0, 2]] },
      { event: 'ended', outcome: 'whole', bytes: 2000 + 2 * 5 },
    ])
    expect([lines[0]?.id, lines[2]?.id]).toEqual([lines[1]?.id, lines[3]?.id])
  })

  it('is not given while the catalog lacks something, also not by WebDAV', async () => {
    let isFolded = false
    const requireFolded = (): void => {
      if (!isFolded) throw new PacsimileError('rebuilding', 'The catalog is being made')
    }
    const port = await archive({ requireFolded })
    const identity = await port.restorer('radiology')
    await expect(TlsHistory.connect(identity)).rejects.toMatchObject({ code: 'rebuilding' })
    const get = { path: '/dav/pacs1/images/@mark:before/d/one', ...identity.tls }
    expect((await port.ask(get)).status).toBe(503)
    isFolded = true
    expect(await (await connected(identity)).volumes()).toHaveLength(1)
    expect((await port.ask(get)).status).toBe(200)
  })

  it('is not given where that line cannot be written', async () => {
    const port = await archive()
    const { tls } = await port.restorer('radiology')
    // A directory stands where the file of the day would.
    mkdirSync(join(port.dataDir, 'access', `${new Date().toISOString().slice(0, 10)}.jsonl`))
    const refused = await port.ask({ method: 'POST', path: '/v1/history/window', ...tls }, '{"agent":"pacs1","volume":"images"}')
    expect(refused.status).toBe(500)
    expect(JSON.parse(refused.body.toString())).toMatchObject({ error: { code: 'io' } })
  })

  it('ends in the middle of an answer when its restorer is revoked', async () => {
    const port = await archive()
    const remote = await connected(await port.restorer('radiology'))
    const [file] = await Array.fromAsync(remote.tree(PACS, VOLUME, relativePath('e/one'), { epoch: 1, seq: 12 }))
    if (file?.version.kind !== 'file') throw new Error('it is a file')
    const [isSent, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    vi.spyOn(port.store.history, 'chunks').mockImplementation(async function* () {
      yield { bytes: Buffer.alloc(1 << 20) }
      isSent.resolve()
      await gate.promise
    })
    const reading = Array.fromAsync(remote.chunks(file.version.chunks))
    await isSent.promise
    port.identity.revokeRestorer('radiology')
    await expect(reading).rejects.toMatchObject({ code: 'collector-unreachable' })
    await expect(remote.volumes()).rejects.toMatchObject({ code: 'not-trusted' })
    gate.resolve()
    await vi.waitFor(() => expect(port.access.at(-1)).toMatchObject({ event: 'ended', outcome: 'cut' }), PATIENTLY)
  })

  it('goes on after its idle connections were closed, and says when nobody answers any more', async () => {
    const port = await archive({
      patience: { headersTimeout: 1000, requestTimeout: 1000, connectionsCheckingInterval: 50, keepAliveTimeout: 50 },
    })
    const remote = await connected(await port.restorer('radiology'))
    for (let i = 0; i < 5; i++) {
      await remote.volumes()
      await new Promise((resolve) => setTimeout(resolve, i * 30))
    }
    await port.receiver.close()
    await expect(remote.volumes()).rejects.toMatchObject({ code: 'collector-unreachable' })
  })

  it('is taken from a collector of the own installation only', async () => {
    const [port, other] = [await archive(), await archive()]
    const [own, strange] = [await port.restorer('radiology'), await other.restorer('radiology')]
    await expect(TlsHistory.connect({ ...own, collector: strange.collector })).rejects.toMatchObject({ code: 'not-trusted' })
    // A restorer's certificate is no collector's.
    const server = createServer({ key: own.tls.key, cert: own.tls.cert, ca: own.tls.ca, requestCert: true }, (_, response) =>
      response.end('{"result":[]}'),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port: number } = server.address() as AddressInfo
    await expect(TlsHistory.connect({ ...own, collector: { ...own.collector, port: number } })).rejects.toMatchObject({
      code: 'not-trusted',
    })
  })
})

describe('a hostile restorer', () => {
  const VOLUME_OF = { agent: 'pacs1', volume: 'images' }
  const TREE = { ...VOLUME_OF, at: { epoch: 1, seq: 5 } }
  const content = (...files: object[]): object => ({ ...VOLUME_OF, files })
  const FILE = { path: 'd/one', at: { epoch: 1, seq: 5 }, from: 0, count: 1 }

  const QUESTIONS: readonly [string, string, unknown, number][] = [
    ['a question that nobody knows', 'nonsense', {}, 404],
    ['a name that every object has', 'constructor', {}, 404],
    ['a path for a question', '../../etc/passwd', {}, 404],
    ['what only the admin socket answers', 'chunks', { chunks: [] }, 404],
    ['what only the admin socket answers, too', 'prune', { isDespiteDoubts: true }, 404],
    ['no JSON', 'window', '{"agent":', 400],
    ['no object', 'window', '[]', 400],
    ['a volume that is no name', 'window', { agent: 'pacs1', volume: '../images' }, 400],
    ['a path that climbs', 'tree', { ...TREE, path: '../../etc' }, 400],
    ['a path with NUL', 'tree', { ...TREE, path: 'a\0b' }, 400],
    ['a path of characters that are no bytes', 'tree', { ...TREE, path: '\u{141}' }, 400],
    ['a path that is too long', 'tree', { ...TREE, path: 'a/'.repeat(3000) }, 400],
    ['a time beyond all calendars', 'point', { ...VOLUME_OF, at: { kind: 'time', ms: 1e300 } }, 400],
    ['a position that is none', 'tree', { ...TREE, path: '', at: { epoch: -1, seq: 0.5 } }, 400],
    ['no file', 'content', content(), 400],
    ['chunks behind the end', 'content', content({ ...FILE, from: 3, count: 2 }), 404],
    ['chunks of a directory', 'content', content({ ...FILE, path: 'd', at: { epoch: 1, seq: 4 } }), 404],
    ['a version that was never made', 'content', content({ ...FILE, at: { epoch: 1, seq: 6 } }), 404],
    ['too many chunks', 'content', content({ ...FILE, count: 65_536 }, FILE), 400],
    ['too many files', 'content', content(...Array.from({ length: 4097 }, () => FILE)), 400],
  ]

  it('is told what is wrong with his question', async () => {
    const port = await archive()
    const { tls } = await port.restorer('radiology')
    for (const [what, name, body, status] of QUESTIONS) {
      const text = typeof body === 'string' ? body : JSON.stringify(body)
      const answered = await port.ask({ method: 'POST', path: `/v1/history/${name}`, ...tls }, text)
      expect(answered.status, what).toBe(status)
      expect(JSON.parse(answered.body.toString()), what).toMatchObject({ error: { code: expect.not.stringMatching('internal') } })
    }
  })

  it('who does not end his question, or his request, is cut off', async () => {
    const port = await archive({
      patience: { headersTimeout: 200, requestTimeout: 400, connectionsCheckingInterval: 50, keepAliveTimeout: 1000 },
    })
    const { tls } = await port.restorer('radiology')
    const begun = [
      'POST /v1/history/tree HTTP/1.1\r\nhost: x\r\nx-slow: ',
      'POST /v1/history/tree HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"agent":',
    ]
    for (const text of begun) {
      const socket = connect({ ...tls, host: '127.0.0.1', port: port.receiver.address.port })
      socket.on('error', () => {})
      socket.resume()
      await once(socket, 'secureConnect')
      const closed = once(socket, 'close')
      socket.write(text)
      await closed
    }
    const remote = await connected(await port.restorer('radiology'))
    expect(await remote.volumes()).toHaveLength(1)
  })

  it('who sends more than a question may have is told so before it has all come', async () => {
    const port = await archive()
    const { tls } = await port.restorer('radiology')
    const answered = await port
      .ask({ method: 'POST', path: '/v1/history/tree', ...tls }, Buffer.alloc(QUESTION_BYTES_MAX + 1, 0x20))
      .catch(() => undefined)
    expect(answered?.status ?? 400).toBe(400)
    expect((await port.ask({ method: 'GET', path: '/v1/history/volumes', ...tls })).status).toBe(404)
  })

  it('gets so many answers at once and no more', async () => {
    const port = await archive()
    const { tls } = await port.restorer('radiology')
    const gate = Promise.withResolvers<void>()
    vi.spyOn(port.store.history, 'volumes').mockImplementation(() => gate.promise.then(() => []))
    const ask = (): Promise<number> => port.ask({ method: 'POST', path: '/v1/history/volumes', ...tls }, '{}').then(({ status }) => status)
    const waiting = Array.from({ length: 16 }, ask)
    await vi.waitFor(() => expect(port.access.filter(({ event }) => event === 'asked')).toHaveLength(16), PATIENTLY)
    expect(await ask()).toBe(429)
    gate.resolve()
    expect(new Set(await Promise.all(waiting))).toEqual(new Set([200]))
    expect(await ask()).toBe(200)
  })
})
