/** Who a restorer is, and who is none. */
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { enroll } from '../../agent/enroll.ts'
import { tlsOptions } from '../../agent/identity.ts'
import { Allowance } from '../../collector/allowance.ts'
import { hashPassword, isPassword, newPassword } from '../../collector/password.ts'
import { enrollRestorer, readRestorer } from '../../collector/restorer-identity.ts'
import { issueAgent, issueRestorer, makeSelfSigned, parseCertificate, roleOf } from '../../shared/certificate.ts'
import { label } from '../../shared/path.ts'
import { JOURNAL_PATH } from '../../shared/wire.ts'
import { ReadingPort } from '../support/reading-port.ts'
import { scratchDirectory } from '../support/scratch.ts'

const QUESTION = { method: 'POST', path: '/v1/history/volumes' } as const
/** How that is seen differs by the moment. */
const CUT_OFF = /hang up|ECONNRESET|EPIPE|disconnected|closed/
const HOUR_MS = 3_600_000

async function agentOf(port: ReadingPort, name: string): Promise<object> {
  const { createToken } = await import('../../collector/identity.ts')
  const stateDir = join(scratchDirectory(), 'state')
  const token = createToken(port.dataDir, { ttlMs: 60_000 })
  await enroll({ collectorUrl: port.url, token, name, stateDir, volumes: [{ name: 'images', path: tmpdir() }] })
  return tlsOptions(stateDir)
}

describe('a restorer', () => {
  it('is known by its certificate, whose key was made where it is and is its owner’s alone', async () => {
    const port = await ReadingPort.open()
    const directory = join(scratchDirectory(), 'restorer')
    const token = port.token('radiology', ['pacs1', 'pacs2:db'])
    const done = await enrollRestorer(directory, { collector: port.url, token, name: 'radiology' })
    expect(done).toMatchObject({ restorer: 'radiology', allowed: ['pacs1', 'pacs2:db'], repository: port.identity.repositoryId })
    for (const file of ['restorer.key', 'restorer.crt', 'ca.crt', 'restorer.toml'])
      expect(statSync(join(directory, file)).mode & 0o777, file).toBe(0o600)
    const { tls } = readRestorer(directory)
    expect(roleOf(parseCertificate(tls.cert))).toEqual({ kind: 'restorer', name: 'radiology' })
    expect((await port.ask({ ...QUESTION, ...tls }, '{}')).status).toBe(200)
    // The token was good once.
    const again = enrollRestorer(join(scratchDirectory(), 'again'), { collector: port.url, token, name: 'radiology' })
    await expect(again).rejects.toMatchObject({ code: 'token-invalid' })
  })

  it('is made by a token for that very name, never by one for an agent, and an agent never by one for a restorer', async () => {
    const port = await ReadingPort.open()
    const directory = join(scratchDirectory(), 'restorer')
    const { createToken } = await import('../../collector/identity.ts')
    const forAgents = createToken(port.dataDir, { ttlMs: 60_000 })
    const forRestorer = port.token('radiology', ['all'])
    const refused = { code: 'token-invalid' }
    await expect(enrollRestorer(directory, { collector: port.url, token: forAgents, name: 'radiology' })).rejects.toMatchObject(refused)
    await expect(enrollRestorer(directory, { collector: port.url, token: forRestorer, name: 'other' })).rejects.toMatchObject(refused)
    const stateDir = join(scratchDirectory(), 'state')
    const volumes = [{ name: 'images', path: tmpdir() }]
    const asAgent = enroll({ collectorUrl: port.url, token: forRestorer, name: 'radiology', stateDir, volumes })
    await expect(asAgent).rejects.toMatchObject(refused)
    // No refusal has used them up.
    await enrollRestorer(directory, { collector: port.url, token: forRestorer, name: 'radiology' })
    await enroll({ collectorUrl: port.url, token: forAgents, name: 'pacs1', stateDir, volumes })
  })

  it('may append to no journal', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    const headers = {
      'connection': 'Upgrade',
      'upgrade': 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      'sec-websocket-protocol': 'pacsimile.v1',
    }
    expect((await port.ask({ path: JOURNAL_PATH, headers, ...tls })).status).toBe(403)
  })

  it('is one only with a certificate that says so and is the one that was issued last', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    expect((await port.ask({ ...QUESTION, ...tls }, '{}')).status).toBe(200)
    const second = await port.restorer('radiology')
    expect((await port.ask({ ...QUESTION, ...tls }, '{}')).status).toBe(403)
    expect((await port.ask({ ...QUESTION, ...second.tls }, '{}')).status).toBe(200)

    const agent = await agentOf(port, 'pacs1')
    expect((await port.ask({ ...QUESTION, ...agent }, '{}')).status).toBe(403)
    // Of the right authority, and enrolled by nobody; an agent of a restorer's name; a restorer of an agent's name.
    const key = readFileSync(join(port.dataDir, 'keys', 'ca.key'), 'utf8')
    const authority = { certificate: port.identity.authority, key }
    const own = await makeSelfSigned('x')
    const spki = parseCertificate(own.certificate).publicKey.export({ type: 'spki', format: 'der' })
    for (const cert of [
      await issueRestorer(authority, spki, 'ghost', 60_000),
      await issueAgent(authority, spki, 'radiology'),
      await issueRestorer(authority, spki, 'pacs1', 60_000),
      await issueRestorer(authority, spki, 'radiology', 60_000),
      own.certificate,
    ])
      expect((await port.ask({ ...QUESTION, cert, key: own.key }, '{}')).status).toBe(403)
  })

  it('is cut off as soon as it is revoked, also from what it is being sent', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    const socket = connect({ ...tls, host: '127.0.0.1', port: port.receiver.address.port, rejectUnauthorized: false })
    socket.on('error', () => {})
    await once(socket, 'secureConnect')
    socket.write('POST /v1/history/volumes HTTP/1.1\r\nhost: collector\r\ncontent-length: 2\r\n\r\n{}')
    await once(socket, 'data')
    const closed = once(socket, 'close')
    port.identity.revokeRestorer('radiology')
    await closed
    const refused = await port.ask({ ...QUESTION, ...tls }, '{}')
    expect(refused.status).toBe(403)
    expect(refused.body.toString()).toContain('revoked')
    expect(() => port.identity.restorers.setPassword('radiology', undefined)).toThrow(expect.objectContaining({ code: 'not-trusted' }))
  })

  it('whose certificate expires on an open connection is refused there too', async () => {
    let now = Date.now()
    const port = await ReadingPort.open({ clock: { now: () => now } })
    const { tls } = await port.restorer('radiology', ['all'], HOUR_MS)
    const socket = connect({ ...tls, host: '127.0.0.1', port: port.receiver.address.port, rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    const ask = async (): Promise<string> => {
      socket.write('POST /v1/history/volumes HTTP/1.1\r\nhost: collector\r\ncontent-length: 2\r\n\r\n{}')
      const [bytes] = (await once(socket, 'data')) as [Buffer]
      return bytes.toString('latin1').split('\r\n')[0] ?? ''
    }
    expect(await ask()).toBe('HTTP/1.1 200 OK')
    now += 2 * HOUR_MS
    expect(await ask()).toBe('HTTP/1.1 403 Forbidden')
    socket.destroy()
  })

  it('whose certificate has ended is told when, and what makes another one', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology', ['all'], 1)
    const refused = await port.ask({ ...QUESTION, ...tls }, '{}')
    expect(refused.status).toBe(403)
    expect(refused.body.toString()).toContain(`The certificate of the restorer radiology ended at ${new Date().getUTCFullYear()}-`)
    expect(refused.body.toString()).toContain('`pacsimile restorer token radiology` at the collector')
  })

  it('whose file at the collector is damaged is refused', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    writeFileSync(join(port.dataDir, 'restorers', 'radiology.json'), '{"version":1')
    expect((await port.ask({ ...QUESTION, ...tls }, '{}')).status).toBe(403)
  })

  it('is listed with its last use', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    const { restorers } = port.identity
    expect(restorers.lastUseMs(label('radiology', 'x'))).toBeUndefined()
    await port.ask({ ...QUESTION, ...tls }, '{}')
    expect(restorers.lastUseMs(label('radiology', 'x'))).toBeGreaterThan(Date.now() - HOUR_MS)
    expect(restorers.list().map(({ name, allowance }) => [name, allowance.words])).toEqual([['radiology', ['all']]])
  })
})

describe('what may be read', () => {
  const place = (agent: string, volume: string): Parameters<Allowance['has']>[0] => ({
    agent: label(agent, 'a'),
    volume: label(volume, 'v'),
  })

  it.each([
    [['all'], true, true, true],
    [['pacs1'], true, true, false],
    [['pacs1:images'], true, false, false],
    [['pacs1:db', 'pacs2:images'], false, true, true],
  ])('of %j', (words, ...expected) => {
    const allowance = new Allowance(words)
    expect([place('pacs1', 'images'), place('pacs1', 'db'), place('pacs2', 'images')].map((one) => allowance.has(one))).toEqual(expected)
  })

  it.each([[[]], [['PACS1']], [['a:b:c']], [['a:']], [[':b']], [['../x']], [['']]])('is refused as %j', (words) => {
    expect(() => new Allowance(words)).toThrow(expect.objectContaining({ code: 'usage' }))
  })
})

describe('a password', () => {
  it('is long, of letters that are told apart, another one each time, and kept as a hash that only it fits', async () => {
    const [one, two] = [newPassword(), newPassword()]
    expect(one).toMatch(/^(?:[0-9a-hjkmnp-tv-z]{8}-){3}[0-9a-hjkmnp-tv-z]{8}$/)
    expect(two).not.toBe(one)
    const hash = await hashPassword(one)
    expect(JSON.stringify(hash)).not.toContain(one)
    expect(await isPassword(one, hash)).toBe(true)
    expect(await isPassword(two, hash)).toBe(false)
  })

  it('is what lets connections without a certificate come as far as WebDAV, and no further', async () => {
    const port = await ReadingPort.open()
    const { tls } = await port.restorer('radiology')
    const dav = { method: 'OPTIONS', path: '/dav/' }
    const basic = (password: string): object => ({
      headers: { authorization: `Basic ${Buffer.from(`radiology:${password}`).toString('base64')}` },
    })
    // None was given out: cut off.
    await expect(port.ask({ ...dav, ...basic('x') })).rejects.toThrow(CUT_OFF)
    const password = newPassword()
    port.identity.restorers.setPassword('radiology', await hashPassword(password))
    expect((await port.ask(dav)).headers['www-authenticate']).toContain('Basic realm="Pacsimile"')
    expect((await port.ask({ ...dav, ...basic(password) })).status).toBe(200)
    expect((await port.ask({ ...dav, ...basic(`${password}x`) })).status).toBe(401)
    expect((await port.ask({ ...QUESTION, ...basic(password) }, '{}')).status).toBe(403)
    expect((await port.ask({ method: 'POST', path: '/v1/enroll', ...basic(password) }, '{}')).status).toBe(403)
    expect((await port.ask({ ...dav, ...tls })).status).toBe(200)
    // A new certificate begins without one.
    await port.restorer('radiology')
    await expect(port.ask({ ...dav, ...basic(password) })).rejects.toThrow(CUT_OFF)
  })

  it('that is wrong too often from an address is not looked at any more', async () => {
    const port = await ReadingPort.open()
    await port.restorer('radiology')
    const password = newPassword()
    port.identity.restorers.setPassword('radiology', await hashPassword(password))
    const ask = async (given: string): Promise<number> => {
      const headers = { authorization: `Basic ${Buffer.from(`radiology:${given}`).toString('base64')}` }
      return (await port.ask({ method: 'OPTIONS', path: '/dav/', headers })).status
    }
    const statuses: number[] = []
    for (let i = 0; i < 11; i++) statuses.push(await ask(`wrong ${i}`))
    expect(statuses).toEqual([...Array.from({ length: 10 }, () => 401), 429])
    expect(await ask(password)).toBe(429)
  })

  it('that many connections show at once is checked for all of them', async () => {
    const port = await ReadingPort.open()
    await port.restorer('radiology')
    const password = newPassword()
    port.identity.restorers.setPassword('radiology', await hashPassword(password))
    const headers = { authorization: `Basic ${Buffer.from(`radiology:${password}`).toString('base64')}` }
    const asked = Array.from({ length: 12 }, () => port.ask({ method: 'OPTIONS', path: '/dav/', headers }))
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual(Array.from({ length: 12 }, () => 200))
  })

  it('that is switched off is good no more on a connection that has shown it', async () => {
    const port = await ReadingPort.open()
    await port.restorer('radiology')
    const password = newPassword()
    const { restorers } = port.identity
    restorers.setPassword('radiology', await hashPassword(password))
    const socket = connect({ host: '127.0.0.1', port: port.receiver.address.port, rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    const authorization = `Basic ${Buffer.from(`radiology:${password}`).toString('base64')}`
    const ask = async (): Promise<string> => {
      socket.write(`OPTIONS /dav/ HTTP/1.1\r\nhost: collector\r\nauthorization: ${authorization}\r\n\r\n`)
      const [bytes] = (await once(socket, 'data')) as [Buffer]
      return bytes.toString('latin1').split('\r\n')[0] ?? ''
    }
    expect([await ask(), await ask()]).toEqual(['HTTP/1.1 200 OK', 'HTTP/1.1 200 OK'])
    restorers.setPassword('radiology', undefined)
    expect(await ask()).toBe('HTTP/1.1 401 Unauthorized')
    socket.destroy()
  })
})
