import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionOptions, connect, createServer } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { enroll } from '../../agent/enroll.ts'
import { readIdentity, tlsOptions } from '../../agent/identity.ts'
import { createToken } from '../../collector/identity.ts'
import { initCollector } from '../../collector/init.ts'
import { findToken } from '../../collector/tokens.ts'
import { issueAgent, issueCollector, makeAuthority, makeSelfSigned, parseCertificate, roleOf } from '../../shared/certificate.ts'
import { parseToken } from '../../shared/enrollment.ts'
import { ENROLLMENT_FAILURES_MAX } from '../../shared/limits.ts'
import { ENROLL_PATH } from '../../shared/wire.ts'
import { type EnrolmentCollector, enrolmentCollector, temporaryDirectory } from '../support/enrolment-collector.ts'

const VOLUMES = [{ name: 'images', path: tmpdir() }]

/** Enrols an agent. @returns its state directory */
async function enrolled(collector: EnrolmentCollector, name: string, token = collector.token()): Promise<string> {
  const stateDir = join(temporaryDirectory(), 'state')
  await enroll({ collectorUrl: collector.url, token, name, stateDir, volumes: VOLUMES })
  return stateDir
}

/** The JSON body of an answer. */
async function ask(port: number, options: ConnectionOptions, path = '/who', body = ''): Promise<Record<string, unknown>> {
  const asking = httpsRequest({ host: '127.0.0.1', port, path, method: 'POST', agent: false, ...options })
  const responded = once(asking, 'response') as Promise<[IncomingMessage]>
  asking.end(body)
  const [answer] = await responded
  let text = ''
  for await (const part of answer) text += String(part)
  return JSON.parse(text) as Record<string, unknown>
}

/** Sends what a stranger would, with a key of its own. */
async function askToEnroll(collector: EnrolmentCollector, body: unknown): Promise<Record<string, unknown>> {
  const own = await makeSelfSigned('stranger')
  const options = { ca: collector.identity.authority, cert: own.certificate, key: own.key, checkServerIdentity: () => undefined }
  return ask(collector.port, options, ENROLL_PATH, typeof body === 'string' ? body : JSON.stringify(body))
}

function spki(certificate: string): Buffer {
  return parseCertificate(certificate).publicKey.export({ type: 'spki', format: 'der' })
}

describe('an agent', () => {
  it('is known by its name from its enrolment on', async () => {
    const collector = await enrolmentCollector()
    const stateDir = await enrolled(collector, 'pacs1')
    expect(await ask(collector.port, tlsOptions(stateDir))).toEqual({ kind: 'agent', name: 'pacs1' })
    for (const file of ['agent.key', 'agent.crt', 'ca.crt']) expect(statSync(join(stateDir, 'identity', file)).mode & 0o777).toBe(0o600)
    expect(readFileSync(join(stateDir, 'agent.toml'), 'utf8')).toContain(collector.url)
  })

  it('learns the last epoch of its name', async () => {
    const collector = await enrolmentCollector()
    const request = {
      collectorUrl: collector.url,
      token: collector.token(),
      name: 'second-life',
      stateDir: temporaryDirectory(),
      volumes: VOLUMES,
    }
    await expect(enroll(request)).resolves.toMatchObject({ lastEpoch: 7, repository: collector.identity.repositoryId })
  })

  it('that is enrolled is not enrolled again over itself', async () => {
    const collector = await enrolmentCollector()
    const stateDir = await enrolled(collector, 'pacs1')
    const before = readIdentity(stateDir)
    const again = enroll({ collectorUrl: collector.url, token: collector.token(), name: 'pacs2', stateDir, volumes: VOLUMES })
    await expect(again).rejects.toMatchObject({ code: 'already-exists' })
    expect(readIdentity(stateDir)).toEqual(before)
  })

  it('is a stranger, and cut off, as soon as it is revoked', async () => {
    const collector = await enrolmentCollector()
    const stateDir = await enrolled(collector, 'pacs1')
    const socket = connect({ host: '127.0.0.1', port: collector.port, ...tlsOptions(stateDir) })
    socket.on('error', () => {})
    await once(socket, 'secureConnect')
    // An answer shows that the collector has seen the connection too.
    socket.write('POST /who HTTP/1.1\r\nhost: collector\r\ncontent-length: 0\r\n\r\n')
    await once(socket, 'data')
    const closed = once(socket, 'close')
    collector.identity.revoke('pacs1')
    await closed
    expect(await ask(collector.port, tlsOptions(stateDir))).toMatchObject({ kind: 'stranger', reason: expect.stringContaining('revoked') })
  })

  it('gives its name up only to a token made for that name, and is a stranger then', async () => {
    const collector = await enrolmentCollector()
    const first = await enrolled(collector, 'pacs1')
    const token = collector.token()
    await expect(enrolled(collector, 'pacs1', token)).rejects.toMatchObject({ code: 'already-exists' })
    const second = await enrolled(collector, 'pacs1', collector.token('pacs1'))
    expect(await ask(collector.port, tlsOptions(second))).toEqual({ kind: 'agent', name: 'pacs1' })
    expect(await ask(collector.port, tlsOptions(first))).toMatchObject({ kind: 'stranger' })
    // The refusal did not use the other token up.
    await enrolled(collector, 'pacs2', token)
  })

  it('whose file at the collector is damaged is a stranger', async () => {
    const collector = await enrolmentCollector()
    const stateDir = await enrolled(collector, 'pacs1')
    writeFileSync(join(collector.dataDir, 'agents', 'pacs1.json'), '{"version":1')
    expect(await ask(collector.port, tlsOptions(stateDir))).toMatchObject({ kind: 'stranger' })
  })
})

describe('a peer', () => {
  it('without a certificate is cut off before HTTP', async () => {
    const collector = await enrolmentCollector()
    const socket = connect({ host: '127.0.0.1', port: collector.port, rejectUnauthorized: false })
    let received = 0
    socket.on('error', () => {})
    socket.on('data', (bytes) => (received += bytes.length))
    socket.write('POST /who HTTP/1.1\r\nhost: collector\r\ncontent-length: 0\r\n\r\n')
    await once(socket, 'close')
    expect({ received, requests: collector.requests() }).toEqual({ received: 0, requests: 0 })
  })

  it('with an agent certificate of another authority is a stranger', async () => {
    const collector = await enrolmentCollector()
    await enrolled(collector, 'pacs1')
    const own = await makeSelfSigned('pacs1')
    const cert = await issueAgent(await makeAuthority('other'), spki(own.certificate), 'pacs1')
    const options = { ca: collector.identity.authority, cert, key: own.key, checkServerIdentity: () => undefined }
    expect(await ask(collector.port, options)).toMatchObject({ kind: 'stranger' })
  })

  it('with an agent certificate of this authority that was never enrolled is a stranger', async () => {
    const collector = await enrolmentCollector()
    const authority = { certificate: collector.identity.authority, key: readFileSync(join(collector.dataDir, 'keys', 'ca.key'), 'utf8') }
    const own = await makeSelfSigned('ghost')
    const cert = await issueAgent(authority, spki(own.certificate), 'ghost')
    const options = { ca: authority.certificate, cert, key: own.key, checkServerIdentity: () => undefined }
    expect(await ask(collector.port, options)).toMatchObject({ kind: 'stranger', reason: 'No agent ghost is enrolled' })
  })

  it('that speaks an older TLS is refused', async () => {
    const collector = await enrolmentCollector()
    await expect(ask(collector.port, { rejectUnauthorized: false, maxVersion: 'TLSv1.2' })).rejects.toThrow(/alert protocol version/)
  })
})

describe('a server', () => {
  async function serve(credentials: { key: string; cert: string }): Promise<{ port: number; received: () => number }> {
    let received = 0
    const server = createServer({ ...credentials, minVersion: 'TLSv1.3' }, (socket) => {
      socket.on('error', () => {})
      socket.on('data', (bytes) => (received += bytes.length))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    return { port: (server.address() as AddressInfo).port, received: () => received }
  }

  it('with the certificate of another agent is refused by an agent', async () => {
    const collector = await enrolmentCollector()
    const thief = readIdentity(await enrolled(collector, 'thief'))
    const { port } = await serve({ key: thief.key, cert: thief.certificate + thief.authority })
    const socket = connect({ host: '127.0.0.1', port, ...tlsOptions(await enrolled(collector, 'pacs1')) })
    await expect(once(socket, 'secureConnect')).rejects.toThrow(/purpose/)
  })

  it('with a server certificate that names no collector is refused by an agent', async () => {
    const collector = await enrolmentCollector()
    const stateDir = await enrolled(collector, 'pacs1')
    expect(tlsOptions(stateDir).checkServerIdentity).toBeTypeOf('function')
    const { raw } = parseCertificate(readIdentity(stateDir).certificate)
    expect(tlsOptions(stateDir).checkServerIdentity('host', { raw } as never)).toMatchObject({ code: 'not-trusted' })
  })

  it('of another authority is sent nothing by an agent that enrols', async () => {
    const collector = await enrolmentCollector()
    const authority = await makeAuthority('false')
    const server = await issueCollector(authority, collector.identity.repositoryId)
    const impostor = await serve({ key: server.key, cert: server.certificate + authority.certificate })
    const stateDir = temporaryDirectory()
    const collectorUrl = `wss://127.0.0.1:${impostor.port}`
    const enrolling = enroll({ collectorUrl, token: collector.token(), name: 'pacs1', stateDir, volumes: VOLUMES })
    await expect(enrolling).rejects.toMatchObject({ code: 'not-trusted' })
    expect(impostor.received()).toBe(0)
    expect(readdirSync(stateDir)).toEqual([])
  })

  it('that shows the right authority but was not signed by it is sent nothing by an agent that enrols', async () => {
    const collector = await enrolmentCollector()
    const server = await issueCollector(await makeAuthority('false'), collector.identity.repositoryId)
    const impostor = await serve({ key: server.key, cert: server.certificate + collector.identity.authority })
    const collectorUrl = `wss://127.0.0.1:${impostor.port}`
    const enrolling = enroll({ collectorUrl, token: collector.token(), name: 'pacs1', stateDir: temporaryDirectory(), volumes: VOLUMES })
    await expect(enrolling).rejects.toMatchObject({ code: 'not-trusted' })
    expect(impostor.received()).toBe(0)
  })

  it('that is not there is unreachable', async () => {
    const collector = await enrolmentCollector()
    const request = { token: collector.token(), name: 'pacs1', stateDir: temporaryDirectory(), volumes: VOLUMES }
    await expect(enroll({ ...request, collectorUrl: 'wss://127.0.0.1:1' })).rejects.toMatchObject({ code: 'collector-unreachable' })
  })
})

describe('a token', () => {
  it('works once', async () => {
    const collector = await enrolmentCollector()
    const token = collector.token()
    await enrolled(collector, 'pacs1', token)
    await expect(enrolled(collector, 'pacs2', token)).rejects.toMatchObject({ code: 'token-invalid' })
  })

  it('works for one of two who redeem it at once', async () => {
    const collector = await enrolmentCollector()
    const token = collector.token()
    const outcomes = await Promise.allSettled(['a', 'b', 'c', 'd'].map((name) => enrolled(collector, name, token)))
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(collector.identity.agents.names()).toHaveLength(1)
  })

  it('found by two, is redeemed by one', async () => {
    const collector = await enrolmentCollector()
    const token = parseToken(collector.token())
    const [first, second] = [findToken(collector.dataDir, token, 'a'), findToken(collector.dataDir, token, 'b')]
    first.redeem()
    expect(() => second.redeem()).toThrow(expect.objectContaining({ code: 'token-invalid' }))
  })

  it('expires, and leaves no file', async () => {
    const collector = await enrolmentCollector()
    const token = createToken(collector.dataDir, { ttlMs: -1 })
    await expect(enrolled(collector, 'pacs1', token)).rejects.toMatchObject({
      code: 'token-invalid',
      message: expect.stringContaining('expired'),
    })
    createToken(collector.dataDir, { ttlMs: -1 })
    collector.token()
    expect(readdirSync(join(collector.dataDir, 'tokens'))).toHaveLength(1)
  })

  it('for one name enrols no other', async () => {
    const collector = await enrolmentCollector()
    const token = collector.token('pacs1')
    await expect(enrolled(collector, 'pacs2', token)).rejects.toMatchObject({ code: 'token-invalid' })
    await enrolled(collector, 'pacs1', token)
  })

  it("is not in the collector's files", async () => {
    const collector = await enrolmentCollector()
    const { id, secret } = parseToken(collector.token())
    expect(readFileSync(join(collector.dataDir, 'tokens', `${id}.json`), 'utf8')).not.toContain(secret)
  })
})

describe('an enrolment', () => {
  it.each([
    ['no JSON', 'hello'],
    ['another shape', { name: 'pacs1' }],
    ['an unknown field', { token: 'x', name: 'pacs1', role: 'admin' }],
  ])('with %s is refused', async (_, body) => {
    const collector = await enrolmentCollector()
    expect(await askToEnroll(collector, body)).toMatchObject({ error: { code: 'protocol' } })
  })

  it('with a name that is a path is refused', async () => {
    const collector = await enrolmentCollector()
    expect(await askToEnroll(collector, { token: collector.token(), name: '../keys/ca' })).toMatchObject({ error: { code: 'usage' } })
  })

  it('that failed too often is not heard any more', async () => {
    const collector = await enrolmentCollector()
    const guess = collector.token().replace(/\.[^.]+\./, '.0000000000000000.')
    for (let i = 0; i < ENROLLMENT_FAILURES_MAX; i++) await askToEnroll(collector, { token: guess, name: 'pacs1' })
    await expect(enrolled(collector, 'pacs1')).rejects.toThrow(/Too many/)
  })

  it('certifies only P-256 keys, and the role says agent', async () => {
    const authority = await makeAuthority('x')
    const own = await makeSelfSigned('pacs1')
    expect(roleOf(parseCertificate(await issueAgent(authority, spki(own.certificate), 'pacs1')))).toEqual({ kind: 'agent', name: 'pacs1' })
    await expect(issueAgent(authority, Buffer.from('junk'), 'pacs1')).rejects.toMatchObject({ code: 'not-trusted' })
  })
})

describe('init', () => {
  it('refuses a directory that is in use, and changes nothing in it', async () => {
    const { dataDir } = await enrolmentCollector()
    const key = readFileSync(join(dataDir, 'keys', 'ca.key'))
    await expect(initCollector({ dataDir })).rejects.toMatchObject({ code: 'already-exists' })
    expect(readFileSync(join(dataDir, 'keys', 'ca.key'))).toEqual(key)
  })

  it('works in an empty directory, and leaves it empty when it fails', async () => {
    const dataDir = temporaryDirectory()
    await expect(initCollector({ dataDir, listen: 'nowhere' })).rejects.toMatchObject({ code: 'config-invalid' })
    expect(readdirSync(dataDir)).toEqual([])
    await initCollector({ dataDir, passphrase: 'correct horse' })
    expect(existsSync(join(dataDir, 'collector.toml'))).toBe(true)
    expect(existsSync(join(dataDir, 'keys', 'repository.key'))).toBe(false)
  })

  it('begins anew where an earlier one died', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    writeFileSync(`${dataDir}.partial`, 'half')
    await initCollector({ dataDir })
    expect(existsSync(`${dataDir}.partial`)).toBe(false)
  })
})
