/**
 * From a token to a certificate, as whoever enrols does it: key pair, connection, request, and what of the answer is believed.
 *
 * Order: the collector proves by its certificate chain that it is the one of the token; only then the token is sent, over a connection
 * made with the new key; the answer is checked. Invariant: the key leaves this process nowhere but by what the caller writes. It
 * prevents a token told to whoever answered, and a certificate that is for somebody else's key.
 */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:tls'
import type { z } from 'zod'
import { type Credentials, checkCollectorRole, fingerprintOf, makeSelfSigned, parseCertificate, roleOf } from './certificate.ts'
import type { CollectorAddress } from './collector-address.ts'
import { ENROLLMENT_REFUSAL, parseToken, type Token } from './enrollment.ts'
import { asPacsimileError, ERRORS, type ErrorCode, errnoOf, PacsimileError, reasonOf } from './errors.ts'
import { ENROLLMENT_BYTES_MAX } from './limits.ts'

const PATIENCE_MS = 30_000

export interface TokenExchange<Reply> {
  readonly address: CollectorAddress
  /** Of the request, such as ENROLL_PATH. */
  readonly path: string
  readonly token: string
  readonly role: 'agent' | 'restorer'
  readonly name: string
  readonly reply: z.ZodType<Reply>
}

export interface Exchanged<Reply> {
  /** Private key, PEM. */
  readonly key: string
  readonly reply: Reply
}

/** @throws token-invalid, already-exists, not-trusted, collector-unreachable, protocol */
export async function exchangeToken<Reply extends { readonly certificate: string; readonly ca: string }>(
  exchange: TokenExchange<Reply>,
): Promise<Exchanged<Reply>> {
  const { address, name } = exchange
  const token = parseToken(exchange.token)
  const own = await makeSelfSigned(name)
  try {
    const authority = await authorityOf(address, token)
    const reply = await post(exchange, authority, own)
    checkReply(reply, own, token, exchange)
    return { key: own.key, reply }
  } catch (error) {
    throw asExchangeError(error, address)
  }
}

/** Looks at the certificates that the server shows, and says nothing. @returns PEM @throws not-trusted */
async function authorityOf({ host, port, url }: CollectorAddress, token: Token): Promise<string> {
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

async function post<Reply>(
  { address: { host, port }, path, token, name, reply }: TokenExchange<Reply>,
  authority: string,
  own: Credentials,
): Promise<Reply> {
  const trusted = {
    ca: authority,
    cert: own.certificate,
    key: own.key,
    minVersion: 'TLSv1.3',
    checkServerIdentity: checkCollectorRole,
  } as const
  const headers = { 'content-type': 'application/json' }
  const signal = AbortSignal.timeout(PATIENCE_MS)
  const asking = httpsRequest({ host, port, path, method: 'POST', agent: false, headers, signal, ...trusted })
  const responded = once(asking, 'response') as Promise<[IncomingMessage]>
  // Once the answer has begun, its reader is told of errors.
  asking.on('error', () => {})
  asking.end(JSON.stringify({ token: token.trim(), name }))
  const [answer] = await responded
  if (answer.statusCode === 404)
    throw new PacsimileError('unsupported', 'The collector is older than this program and does not know what was asked')
  const value = await readJson(answer)
  if (answer.statusCode === 200) return reply.parse(value)
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

function checkReply(
  reply: { readonly certificate: string; readonly ca: string },
  own: Credentials,
  token: Token,
  { role: kind, name }: TokenExchange<unknown>,
): void {
  const authority = parseCertificate(reply.ca)
  const certificate = parseCertificate(reply.certificate)
  const role = roleOf(certificate)
  const fits =
    fingerprintOf(authority) === token.authority &&
    certificate.verify(authority.publicKey) &&
    certificate.publicKey.equals(parseCertificate(own.certificate).publicKey) &&
    role?.kind === kind &&
    role.name === name
  if (!fits) throw new PacsimileError('not-trusted', `The collector issued a certificate that is not for this ${kind} and its key`)
}

function asExchangeError(error: unknown, { url }: CollectorAddress): PacsimileError {
  if (error instanceof PacsimileError) return error
  if (error instanceof SyntaxError || (error instanceof Error && error.name === 'ZodError')) {
    return new PacsimileError('protocol', `The collector at ${url} gave an answer that is none`, { cause: error })
  }
  return asConnectionError(error, url)
}

/** What TLS or the network said of a connection to a collector. */
export function asConnectionError(error: unknown, url: string): PacsimileError {
  if (error instanceof PacsimileError) return error
  const isTimeout = error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError')
  if (isTimeout || errnoOf(error) !== undefined) {
    return new PacsimileError('collector-unreachable', `No answer from ${url}: ${reasonOf(error)}`, { cause: error })
  }
  // What is left are the verdicts of TLS on the server's certificate, such as CERT_HAS_EXPIRED.
  if (error instanceof Error && 'code' in error) {
    return new PacsimileError('not-trusted', `The certificate of ${url} does not hold: ${error.message}`, { cause: error })
  }
  return asPacsimileError(error, `Asking ${url}`)
}
