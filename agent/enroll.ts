/**
 * From a token to an enrolled agent: key pair, certificate, configuration.
 *
 * Order: the collector proves by its certificate chain that it is the one of the token; only then the token is sent, over a
 * connection made with the new key; the answer is checked; STATE/identity is written; `agent.toml` comes last. Invariant:
 * `agent.toml` is there only with a complete identity, is never overwritten, and belongs with it to the owner of the state
 * directory. It prevents an agent that cannot read its own key, one that starts with a key that nobody certified, a second
 * enrolment that cuts off the first, and a token told to whoever answered.
 */
import { once } from 'node:events'
import { statSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { hostname } from 'node:os'
import { connect } from 'node:tls'
import { type Credentials, fingerprintOf, makeSelfSigned, parseCertificate, roleOf } from '../shared/certificate.ts'
import { ENROLLMENT_REFUSAL, ENROLLMENT_REPLY, type EnrollmentReply, parseToken, type Token } from '../shared/enrollment.ts'
import { asPacsimileError, ERRORS, type ErrorCode, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { ENROLLMENT_BYTES_MAX, LABEL_MAX } from '../shared/limits.ts'
import { label } from '../shared/path.ts'
import { ENROLL_PATH } from '../shared/wire.ts'
import { checkAgentConfig, createAgentConfig, isConfigured } from './config.ts'
import { checkCollectorRole, writeIdentity } from './identity.ts'

export interface EnrollRequest {
  /** `wss://HOST:PORT` or `https://HOST:PORT` */
  readonly collectorUrl: string
  readonly token: string
  /** By default the host's name. */
  readonly name?: string
  readonly stateDir: string
  readonly volumes: readonly { readonly name: string; readonly path: string }[]
}

export interface Enrolled {
  readonly agent: string
  /** As written to `agent.toml`. */
  readonly collector: string
  readonly repository: string
  /** The highest epoch that the collector knows of this name. */
  readonly lastEpoch: number
}

const DEFAULT_PORT = 7443
const PATIENCE_MS = 30_000

/** @throws already-exists, token-invalid, not-trusted, collector-unreachable, usage, config-invalid, io, space */
export async function enroll(request: EnrollRequest): Promise<Enrolled> {
  const { stateDir, volumes } = request
  if (isConfigured(stateDir)) throw new PacsimileError('already-exists', `The agent in ${stateDir} is enrolled already`)
  const name = label(request.name ?? defaultName(), 'The agent name')
  const token = parseToken(request.token)
  const address = parseAddress(request.collectorUrl)
  const config = { name, collector: address.url, volume: volumes.map((volume) => ({ ...volume })) }
  checkAgentConfig(config)
  const own = await makeSelfSigned(name)
  let reply: EnrollmentReply
  try {
    const authority = await authorityOf(address, token)
    reply = await post(address, authority, own, { token: request.token.trim(), name })
  } catch (error) {
    throw asEnrollError(error, address)
  }
  checkReply(reply, own, token, name)
  asOwnerOf(stateDir, (directory) => {
    writeIdentity(directory, { key: own.key, certificate: reply.certificate, authority: reply.ca })
    createAgentConfig(directory, config)
  })
  return { agent: name, collector: address.url, repository: reply.repository, lastEpoch: reply.lastEpoch }
}

/**
 * What root writes into the directory of the user as whom the agent runs must be that user's. It is written as that user,
 * not given away afterwards: who owns the directory could put something else of root's in the place of the file meanwhile.
 * From within the directory, because that user may not be allowed to come there without the capabilities of the agent.
 */
function asOwnerOf(stateDir: string, write: (directory: string) => void): void {
  const owner = statSync(stateDir, { throwIfNoEntry: false })
  if (owner === undefined || owner.uid === 0 || process.geteuid?.() !== 0) {
    write(stateDir)
    return
  }
  const before = process.cwd()
  process.chdir(stateDir)
  process.setegid?.(owner.gid)
  process.seteuid?.(owner.uid)
  try {
    write('.')
  } finally {
    process.seteuid?.(0)
    process.setegid?.(0)
    process.chdir(before)
  }
}

function defaultName(): string {
  const name = hostname()
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
  return name.slice(0, LABEL_MAX) || 'agent'
}

interface Address {
  readonly url: string
  readonly host: string
  readonly port: number
}

function parseAddress(text: string): Address {
  const url = URL.parse(text)
  const isUsable =
    url !== null && ['wss:', 'https:'].includes(url.protocol) && url.hostname !== '' && url.pathname === '/' && url.search === ''
  if (!isUsable) throw new PacsimileError('usage', `The collector ${JSON.stringify(text)} is not of the form wss://HOST:PORT`)
  // URL drops the standard port even where it was given.
  const standard = /:443\/?$/.test(text) ? 443 : DEFAULT_PORT
  const port = url.port === '' ? standard : Number(url.port)
  return { url: `wss://${url.hostname}:${port}`, host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port }
}

/** Looks at the certificates that the server shows, and says nothing. @returns PEM @throws not-trusted */
async function authorityOf({ host, port, url }: Address, token: Token): Promise<string> {
  // Nothing is believed of this connection but the hash of a certificate, by which `post` then verifies everything.
  const socket = connect({ host, port, minVersion: 'TLSv1.3', rejectUnauthorized: false })
  // The server hangs up on a peer without a certificate, perhaps while we still look.
  socket.on('error', () => {})
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(PATIENCE_MS) })
    let certificate = socket.getPeerX509Certificate()
    while (certificate !== undefined && fingerprintOf(certificate) !== token.authority) certificate = certificate.issuerCertificate
    if (certificate !== undefined) return certificate.toString()
  } finally {
    socket.destroy()
  }
  throw new PacsimileError('not-trusted', `The server at ${url} is not the collector that made this token; nothing was sent to it`)
}

async function post({ host, port }: Address, authority: string, own: Credentials, body: object): Promise<EnrollmentReply> {
  const trusted = {
    ca: authority,
    cert: own.certificate,
    key: own.key,
    minVersion: 'TLSv1.3',
    checkServerIdentity: checkCollectorRole,
  } as const
  const headers = { 'content-type': 'application/json' }
  const signal = AbortSignal.timeout(PATIENCE_MS)
  const asking = httpsRequest({ host, port, path: ENROLL_PATH, method: 'POST', agent: false, headers, signal, ...trusted })
  const responded = once(asking, 'response') as Promise<[IncomingMessage]>
  // Once the answer has begun, its reader is told of errors.
  asking.on('error', () => {})
  asking.end(JSON.stringify(body))
  const [answer] = await responded
  const value = await readJson(answer)
  if (answer.statusCode === 200) return ENROLLMENT_REPLY.parse(value)
  const { code, message } = ENROLLMENT_REFUSAL.parse(value).error
  throw new PacsimileError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'protocol', `The collector refused: ${message}`)
}

async function readJson(answer: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of answer as AsyncIterable<Buffer>) {
    length += part.length
    if (length > ENROLLMENT_BYTES_MAX) throw new PacsimileError('protocol', 'The collector answered with too many bytes')
    parts.push(part)
  }
  return JSON.parse(Buffer.concat(parts).toString('utf8')) as unknown
}

function checkReply(reply: EnrollmentReply, own: Credentials, token: Token, name: string): void {
  const authority = parseCertificate(reply.ca)
  const certificate = parseCertificate(reply.certificate)
  const role = roleOf(certificate)
  const fits =
    fingerprintOf(authority) === token.authority &&
    certificate.verify(authority.publicKey) &&
    certificate.publicKey.equals(parseCertificate(own.certificate).publicKey) &&
    role?.kind === 'agent' &&
    role.name === name
  if (!fits) throw new PacsimileError('not-trusted', 'The collector issued a certificate that is not for this agent and its key')
}

function asEnrollError(error: unknown, { url }: Address): PacsimileError {
  if (error instanceof PacsimileError) return error
  if (error instanceof SyntaxError || (error instanceof Error && error.name === 'ZodError')) {
    return new PacsimileError('protocol', `The collector at ${url} gave an answer that is none`, { cause: error })
  }
  const isTimeout = error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError')
  if (isTimeout || errnoOf(error) !== undefined) {
    return new PacsimileError('collector-unreachable', `No answer from ${url}: ${reasonOf(error)}`, { cause: error })
  }
  // What is left are the verdicts of TLS on the server's certificate, such as CERT_HAS_EXPIRED.
  if (error instanceof Error && 'code' in error) {
    return new PacsimileError('not-trusted', `The certificate of ${url} does not hold: ${error.message}`, { cause: error })
  }
  return asPacsimileError(error, `Enrolling at ${url}`)
}
