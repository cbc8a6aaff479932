/** WebDAV: what is listed, what is given, what is refused. */
import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { rangeOf } from '../../collector/byte-range.ts'
import { multistatus } from '../../collector/dav-answer.ts'
import { davPart, parseDavUrl } from '../../collector/dav-place.ts'
import { parsePropfind } from '../../collector/dav-propfind.ts'
import type { RestorerIdentity } from '../../collector/restorer-identity.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { directoryVersion, JournalWriter, symlinkVersion, VOLUME } from '../support/journal-writer.ts'
import { type Answered, ReadingPort } from '../support/reading-port.ts'

const CONTENT = Buffer.from(Array.from({ length: 2600 }, (_, i) => i % 251))

interface Site {
  readonly port: ReadingPort
  readonly tls: RestorerIdentity['tls']
  readonly ask: (method: string, path: string, headers?: Record<string, string>, body?: string) => Promise<Answered>
  /** Addresses that a PROPFIND of depth 1 names. */
  readonly list: (path: string) => Promise<string[]>
}

async function site(allowed: readonly string[] = ['all']): Promise<Site> {
  const port = await ReadingPort.open()
  const { writer } = port
  writer.put('d', directoryVersion())
  writer.file('d/image.dcm', CONTENT)
  writer.file('d/\xff\n"<&', Buffer.from('bytes'))
  writer.put('d/link', symlinkVersion('image.dcm'))
  writer.put('d/deep', directoryVersion())
  for (let i = 0; i < 100; i++) writer.file(`d/deep/${i}`, Buffer.from(String(i)))
  writer.file('caf\xc3\xa9', Buffer.alloc(0))
  writer.file('d/deep/\xef\xbf\xbe', Buffer.alloc(0))
  writer.append({ kind: 'mark', volume: VOLUME, name: 'before' })
  writer.file('d/image.dcm', Buffer.from('changed'))
  writer.remove('d/deep')
  writer.file('torn', Buffer.from('half'), { consistency: 'torn' })
  await port.send()
  const other = new JournalWriter({ agent: 'secret-agent' })
  other.file('secret', Buffer.from('secret'))
  await port.send(other)
  const { tls } = await port.restorer('radiology', allowed)
  const ask: Site['ask'] = (method, path, headers = {}, body = '') => port.ask({ method, path, headers, ...tls }, body)
  const list: Site['list'] = async (path) => {
    const { status, body } = await ask('PROPFIND', path, { depth: '1' })
    expect(status).toBe(207)
    return [...body.toString().matchAll(/<D:href>([^<]*)<\/D:href>/g)].map((match) => match[1] ?? '')
  }
  return { port, tls, ask, list }
}

describe('WebDAV lists', () => {
  it('agents, volumes, moments and what a directory held', async () => {
    const { list } = await site(['pacs1'])
    expect(await list('/dav')).toEqual(['/dav/', '/dav/pacs1/'])
    expect(await list('/dav/pacs1/')).toEqual(['/dav/pacs1/', '/dav/pacs1/images/'])
    expect(await list('/dav/pacs1/images')).toEqual(['/dav/pacs1/images/', '/dav/pacs1/images/@now/', '/dav/pacs1/images/@mark:before/'])
    expect(await list('/dav/pacs1/images/@mark:before/')).toEqual([
      '/dav/pacs1/images/@mark:before/',
      '/dav/pacs1/images/@mark:before/caf%C3%A9',
      '/dav/pacs1/images/@mark:before/d/',
    ])
    // Links cannot be shown; of `deep` itself its name.
    const names = ['', '%FF%0A%22%3C%26', 'deep/', 'image.dcm']
    expect((await list('/dav/pacs1/images/@mark:before/d')).toSorted()).toEqual(
      names.map((name) => `/dav/pacs1/images/@mark:before/d/${name}`).toSorted(),
    )
    expect(await list('/dav/pacs1/images/@mark:before/d/deep/')).toHaveLength(102)
    expect((await list('/dav/pacs1/images/@now/d/')).toSorted()).toEqual(
      ['', '%FF%0A%22%3C%26', 'image.dcm'].map((name) => `/dav/pacs1/images/@now/d/${name}`).toSorted(),
    )
    expect(await list('/dav/pacs1/images/@mark:before/d/image.dcm')).toEqual(['/dav/pacs1/images/@mark:before/d/image.dcm'])
  })

  it('in XML that others read, whatever the names', async () => {
    const { ask } = await site()
    const listed = await ask('PROPFIND', '/dav/pacs1/images/@mark:before/d/', { depth: '1' })
    const deep = await ask('PROPFIND', '/dav/pacs1/images/@mark:before/d/deep/', { depth: '1' })
    const odd = '<propfind xmlns="DAV:"><prop><a xmlns="&amp;\x01\uFFFE"/></prop></propfind>'
    const echoed = await ask('PROPFIND', '/dav/', { depth: '1' }, odd)
    const body = Buffer.from(`<all>${[listed, deep, echoed].map((one) => one.body.toString().replace(/^<\?[^>]*>/, '')).join('')}</all>`)
    const script =
      'import sys,xml.etree.ElementTree as e\nfor m in e.fromstring(sys.stdin.buffer.read()):\n for r in m: print(ascii([t.text for t in r.iter() if t.text]))'
    const read = spawnSync('python3', ['-c', script], { input: body, encoding: 'utf8' })
    expect(read.stderr).toBe('')
    expect(read.stdout).toContain(String.raw`\\xff\\x0a"<&`)
    expect(read.stdout).toContain('"2600"'.replaceAll('"', "'"))
  })

  it('only the properties that are asked for, and says which there are not', async () => {
    const { ask } = await site()
    const body =
      '<?xml version="1.0"?><p:propfind xmlns:p="DAV:" xmlns:o=\'urn:"o&amp;"\'><p:prop><p:getetag/><o:color/><plain xmlns=""/><p:quota-used-bytes/></p:prop></p:propfind>'
    const answered = await ask('PROPFIND', '/dav/pacs1/images/@mark:before/d/image.dcm', { depth: '0' }, body)
    const text = answered.body.toString()
    expect(text).toMatch(/<D:getetag>&#34;[0-9a-f]{64}&#34;<\/D:getetag><\/D:prop><D:status>HTTP\/1.1 200 OK/)
    expect(text).toContain(
      '<x:color xmlns:x="urn:&#34;o&#38;&#34;"/><plain xmlns=""/><x:quota-used-bytes xmlns:x="DAV:"/></D:prop><D:status>HTTP/1.1 404',
    )
    expect(text).not.toContain('getcontentlength')
    expect((await ask('PROPFIND', '/dav/', { depth: '0' }, '<propfind xmlns="DAV:"><propname/></propfind>')).body.toString()).toContain(
      '<D:resourcetype/>',
    )
  })

  it('nothing that may not be read', async () => {
    const { list, ask } = await site(['pacs1:images'])
    expect(await list('/dav/')).toEqual(['/dav/', '/dav/pacs1/'])
    for (const path of ['/dav/secret-agent/', '/dav/secret-agent/images/', '/dav/secret-agent/images/@now/', '/dav/nobody/'])
      expect((await ask('PROPFIND', path, { depth: '0' })).status, path).toBe(404)
    expect((await ask('GET', '/dav/secret-agent/images/@now/secret')).status).toBe(404)
  })
})

describe('WebDAV gives', () => {
  it('a file of a moment, whole or a part, with its digest as its tag', async () => {
    const { ask, port } = await site()
    const file = '/dav/pacs1/images/@mark:before/d/image.dcm'
    const whole = await ask('GET', file)
    expect(whole).toMatchObject({ status: 200, body: CONTENT, headers: { 'content-length': '2600', 'accept-ranges': 'bytes' } })
    const etag = whole.headers.etag ?? ''
    expect(etag).toMatch(/^"[0-9a-f]{64}"$/)
    expect(whole.headers['last-modified']).toBe(new Date(1_700_000_000_000).toUTCString())
    expect((await ask('GET', '/dav/pacs1/images/@now/d/image.dcm')).body.toString()).toBe('changed')
    expect(await ask('HEAD', file)).toMatchObject({ status: 200, headers: { 'content-length': '2600' }, body: Buffer.alloc(0) })
    for (const [range, from, until] of [
      ['bytes=0-0', 0, 1],
      ['bytes=999-1000', 999, 1001],
      ['bytes=1000-', 1000, 2600],
      ['bytes=-1', 2599, 2600],
      ['bytes=0-99999', 0, 2600],
    ] as const) {
      const part = await ask('GET', file, { range })
      expect(part, range).toMatchObject({ status: 206, headers: { 'content-range': `bytes ${from}-${until - 1}/2600` } })
      expect(part.body.equals(CONTENT.subarray(from, until)), range).toBe(true)
    }
    expect(await ask('GET', file, { range: 'bytes=2600-' })).toMatchObject({ status: 416, headers: { 'content-range': 'bytes */2600' } })
    expect((await ask('GET', file, { 'range': 'bytes=0-0', 'if-range': '"other"' })).status).toBe(200)
    expect((await ask('GET', file, { 'if-none-match': `W/"x", ${etag}` })).status).toBe(304)
    expect((await ask('GET', '/dav/pacs1/images/@now/caf%c3%a9')).headers['content-length']).toBe('0')
    expect((await ask('GET', '/dav/pacs1/images/@now/d/%ff%0a%22%3c%26')).body.toString()).toBe('bytes')
    expect(port.access.filter(({ what }) => what === 'dav GET').at(-1)).toMatchObject({
      volume: 'images',
      at: 'now',
      path: 'd/\\xff\\x0a"<&',
    })
  })

  it('only the chunks that are asked for are read', async () => {
    const { ask, port } = await site()
    const read = vi.spyOn(port.store.history, 'chunks')
    await ask('GET', '/dav/pacs1/images/@mark:before/d/image.dcm', { range: 'bytes=1500-1600' })
    expect(read.mock.calls.map(([refs]) => refs.length)).toEqual([1])
  })

  it('a moment that is written as a time', async () => {
    const { ask } = await site()
    await new Promise((resolve) => setTimeout(resolve, 5))
    const at = new Date(Date.now() - 1).toISOString()
    expect((await ask('GET', `/dav/pacs1/images/@${at}/d/image.dcm`)).body.toString()).toBe('changed')
    expect((await ask('GET', `/dav/pacs1/images/@${at.replaceAll(':', '%3A')}/d/image.dcm`)).status).toBe(200)
  })

  it('nothing that is not whole', async () => {
    const { ask, port } = await site()
    const torn = await ask('GET', '/dav/pacs1/images/@now/torn')
    expect([torn.status, torn.body.toString()]).toEqual([410, expect.stringContaining('--torn')])
    vi.spyOn(port.store.history, 'chunks').mockImplementation(async function* (refs) {
      for (const [i, { length }] of refs.entries()) yield i < 2 ? { bytes: Buffer.alloc(length) } : { failure: 'the pack has a hole there' }
    })
    // What fails in its middle is cut, what fails at once is told.
    await expect(ask('GET', '/dav/pacs1/images/@mark:before/d/image.dcm')).rejects.toThrow(/aborted|hang up|reset/)
    vi.spyOn(port.store.history, 'chunks').mockImplementation(async function* () {
      yield { failure: 'the pack has a hole there' }
    })
    expect((await ask('GET', '/dav/pacs1/images/@mark:before/d/image.dcm')).status).toBe(500)
    expect(port.access.filter(({ outcome }) => outcome === 'damage')).toHaveLength(2)
  })
})

describe('WebDAV refuses', () => {
  const REQUESTS: readonly [string, string, Record<string, string>, number][] = [
    ['PUT', '/dav/pacs1/images/@now/x', {}, 405],
    ['DELETE', '/dav/pacs1/images/@now/d/image.dcm', {}, 405],
    ['MKCOL', '/dav/x/', {}, 405],
    ['LOCK', '/dav/pacs1/', {}, 405],
    ['PROPPATCH', '/dav/', {}, 405],
    ['POST', '/dav/', {}, 405],
    ['GET', '/dav/', {}, 405],
    ['GET', '/dav/pacs1/images/@now/d', {}, 405],
    ['PROPFIND', '/dav/', {}, 403],
    ['PROPFIND', '/dav/', { depth: 'infinity' }, 403],
    ['PROPFIND', '/dav/pacs1/images/now/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@yesterday/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@10m%20ago/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@2999-01-01T00:00:00Z/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@1999-01-01T00:00:00Z/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@mark:never/', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@now/nothing', { depth: '0' }, 404],
    ['PROPFIND', '/dav/pacs1/images/@now/d/link', { depth: '0' }, 404],
    ['GET', '/dav/pacs1/images/@now/d/link', {}, 404],
    ['GET', '/dav/pacs1/images/@now/../../../../etc/passwd', {}, 404],
    ['GET', '/dav/pacs1/images/@now/%2e%2e/%2e%2e/etc/passwd', {}, 404],
    ['GET', '/dav/pacs1/images/@now/d%2fimage.dcm', {}, 404],
    ['GET', '/dav/pacs1/images/@now/d//image.dcm', {}, 404],
    ['GET', '/dav/pacs1/images/@now/d/image.dcm%00', {}, 404],
    ['GET', '/dav/pacs1/images/@now/%zz', {}, 404],
    ['GET', '/dav/..%2f..%2fetc', {}, 404],
    ['GET', '/davx/', {}, 404],
  ]

  it('what would change something, climbs, or names nothing', async () => {
    const { ask } = await site()
    for (const [method, path, headers, status] of REQUESTS)
      expect((await ask(method, path, headers)).status, `${method} ${path} ${JSON.stringify(headers)}`).toBe(status)
  })

  it.each([
    ['no XML', 'hello'],
    ['half of it', '<propfind xmlns="DAV:"><prop>'],
    ['another document', '<mkcol xmlns="DAV:"/>'],
    ['a document type', '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><propfind xmlns="DAV:"><prop>&y;</prop></propfind>'],
    ['an entity in a namespace', '<propfind xmlns="&y;"><allprop/></propfind>'],
    ['CDATA', '<propfind xmlns="DAV:"><![CDATA[x]]><allprop/></propfind>'],
    ['a processing instruction', '<propfind xmlns="DAV:"><?php x ?><allprop/></propfind>'],
    ['a prefix that nobody declared', '<D:propfind><D:allprop/></D:propfind>'],
    ['tags that do not match', '<a:propfind xmlns:a="DAV:"><a:allprop></a:propfind></a:allprop>'],
    ['a deep one', `<propfind xmlns="DAV:"><prop>${'<a>'.repeat(100)}${'</a>'.repeat(100)}</prop></propfind>`],
    ['too many properties', `<propfind xmlns="DAV:"><prop>${'<a/>'.repeat(201)}</prop></propfind>`],
    ['two documents', '<propfind xmlns="DAV:"><allprop/></propfind><propfind xmlns="DAV:"><allprop/></propfind>'],
  ])('a body that is %s', (_, body) => {
    expect(() => parsePropfind(body)).toThrow(expect.objectContaining({ code: 'protocol' }))
  })

  it('a body that is no UTF-8, or too large', async () => {
    const { port, tls } = await site()
    const ask = (body: Buffer): Promise<number | undefined> =>
      port.ask({ method: 'PROPFIND', path: '/dav/', headers: { depth: '0' }, ...tls }, body).then(
        ({ status }) => status,
        () => undefined,
      )
    expect(await ask(Buffer.from([0x3c, 0xff, 0x3e]))).toBe(400)
    expect((await ask(Buffer.alloc(100_000, 0x20))) ?? 400).toBe(400)
  })
})

describe('the parts of WebDAV', () => {
  it('take any body apart or refuse it, in time that follows its length', () => {
    const piece = fc.constantFrom(
      '<propfind xmlns="DAV:">',
      '<prop>',
      '<a ',
      'b="',
      "'",
      '/>',
      '</prop>',
      '</propfind>',
      '<!--',
      '-->',
      '&amp;',
      ' ',
      '<?xml ',
      '?>',
      'xmlns:x=',
      '"',
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string({ maxLength: 5 })), { maxLength: 60 }), (pieces) => {
        try {
          parsePropfind(pieces.join(''))
        } catch (error) {
          expect(error).toBeInstanceOf(PacsimileError)
        }
      }),
    )
    // What goes back and forth would not end within the time of a test.
    for (const text of [
      `<a${' x'.repeat(30_000)}`,
      `<!--${'-'.repeat(60_000)}`,
      '<'.repeat(60_000),
      `<propfind xmlns="DAV:">${'<!---->'.repeat(9000)}`,
    ])
      expect(() => parsePropfind(text)).toThrow(PacsimileError)
  })

  it('write addresses that name the same when they are read', () => {
    const name = fc
      .uint8Array({ minLength: 1, maxLength: 40 })
      .map((bytes) => Buffer.from(bytes).toString('latin1').replaceAll(/[\0/]/g, 'x'))
    fc.assert(
      fc.property(name, (bytes) => {
        fc.pre(bytes !== '.' && bytes !== '..')
        const part = davPart(bytes)
        expect(part).toMatch(/^[!-~]+$/)
        expect(parseDavUrl(`/dav/pacs1/images/@now/${part}`)).toMatchObject({ kind: 'path', path: bytes })
      }),
    )
  })

  it('write XML in which nothing of a name is markup', async () => {
    const name = '"<&\'\x01]]>\uFFFF\u2028'
    const bytes = Buffer.from(name, 'utf8').toString('latin1')
    async function* items(): AsyncGenerator<{ href: string; name: string; version: undefined }> {
      yield { href: `/dav/${davPart(bytes)}/`, name: bytes, version: undefined }
    }
    const text = Buffer.concat(await Array.fromAsync(multistatus(items(), 'all'))).toString('utf8')
    expect(text).toContain('<D:displayname>&#34;&#60;&#38;&#39;\\x01]]&#62;\uFFFD\\xe2\\x80\\xa8</D:displayname>')
  })

  it.each([
    [undefined, 10, undefined],
    ['bytes=0-', 0, 'none'],
    ['bytes=-5', 0, 'none'],
    ['bytes=-0', 10, 'none'],
    ['bytes=5-2', 10, undefined],
    ['bytes=0-1,3-4', 10, undefined],
    ['items=0-1', 10, undefined],
    ['bytes=-', 10, undefined],
    ['bytes=-20', 10, { from: 0, until: 10 }],
    ['bytes=9-9', 10, { from: 9, until: 10 }],
  ])('understand the range %j of %d bytes as %j', (header, size, range) => {
    expect(rangeOf(header, size)).toEqual(range)
  })
})
