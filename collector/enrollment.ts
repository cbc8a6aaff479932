/**
 * POST /v1/enroll and /v1/enroll/restorer: a stranger with a token becomes an agent, or a restorer.
 *
 * The certificate is issued for the key with which the stranger made this very TLS connection, so possession is proven and no
 * request can name the key of somebody else. Invariant: before the token is checked nothing is believed, kept or spent: the
 * body is bounded, its shape is strict, and failures are counted by address. It prevents the one door that is open to
 * strangers from being a way to exhaust the collector, or to guess.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TLSSocket } from 'node:tls'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { ENROLLMENT_REQUEST, type EnrollmentReply, type RestorerReply } from '../shared/enrollment.ts'
import { asPacsimileError, type ErrorCode, PacsimileError, reasonOf } from '../shared/errors.ts'
import { ENROLLMENT_BYTES_MAX, ENROLLMENT_FAILURES_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import { RESTORER_ENROLL_PATH } from '../shared/wire.ts'
import { FailureLimit } from './failure-limit.ts'
import type { Identity } from './identity.ts'

const FAILURE_WINDOW_MS = 60_000

const STATUS: Partial<Record<ErrorCode, number>> = {
  'usage': 400,
  'protocol': 400,
  'not-trusted': 403,
  'token-invalid': 403,
  'already-exists': 409,
}

export class Enrollment {
  readonly #identity: Identity
  readonly #lastEpoch: (agent: Label) => number | Promise<number>
  readonly #log: Log
  readonly #limit: FailureLimit

  /** @param lastEpoch the highest epoch that is known of an agent; 0 for none */
  constructor(identity: Identity, lastEpoch: (agent: Label) => number | Promise<number>, log: Log, clock: WallClock = systemClock) {
    this.#identity = identity
    this.#lastEpoch = lastEpoch
    this.#log = log
    this.#limit = new FailureLimit(clock, ENROLLMENT_FAILURES_MAX, FAILURE_WINDOW_MS)
  }

  /** Answers one request; never throws. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const address = request.socket.remoteAddress ?? 'unknown'
    if (this.#limit.isExceeded(address)) {
      refuse(response, 429, new PacsimileError('token-invalid', 'Too many enrolments failed from this address; wait a minute'))
      return
    }
    try {
      const reply = request.url === RESTORER_ENROLL_PATH ? await this.#enrollRestorer(request) : await this.#enroll(request)
      if ('agent' in reply) this.#log.info('agent enrolled', { agent: reply.agent, address })
      else this.#log.info('restorer enrolled', { restorer: reply.restorer, allowed: reply.allowed, expires: reply.expires, address })
      send(response, 200, reply)
    } catch (error) {
      const refusal = asPacsimileError(error, 'Enrolment')
      this.#limit.count(address)
      this.#log.warn('enrolment refused', { code: refusal.code, reason: refusal.message, address })
      refuse(response, STATUS[refusal.code] ?? 500, refusal)
    }
  }

  async #enroll(request: IncomingMessage): Promise<EnrollmentReply> {
    const { token, name, publicKey } = await this.#asked(request)
    const { agent, certificate } = await this.#identity.enroll(token, name, publicKey)
    const lastEpoch = await this.#lastEpoch(agent)
    return { certificate, ca: this.#identity.authority, repository: this.#identity.repositoryId, agent, lastEpoch }
  }

  async #enrollRestorer(request: IncomingMessage): Promise<RestorerReply> {
    const { token, name, publicKey } = await this.#asked(request)
    const { restorer, allowed, expires, certificate } = await this.#identity.enrollRestorer(token, name, publicKey)
    const { authority: ca, repositoryId: repository } = this.#identity
    return { certificate, ca, repository, restorer, allowed: [...allowed], expires: expires.toISOString() }
  }

  /** What a stranger asks for, and the key that it holds. */
  async #asked(request: IncomingMessage): Promise<{ token: string; name: string; publicKey: Buffer }> {
    const peer = request.socket instanceof TLSSocket ? this.#identity.peerOf(request.socket) : undefined
    if (peer === undefined) throw new PacsimileError('not-trusted', 'An enrolment needs a client certificate')
    if (peer.kind !== 'stranger') throw new PacsimileError('already-exists', `This is the enrolled ${peer.kind} ${peer.name}`)
    if (request.method !== 'POST') throw new PacsimileError('protocol', 'An enrolment is a POST request')
    return { ...parseRequest(await readBody(request)), publicKey: peer.publicKey }
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > ENROLLMENT_BYTES_MAX) throw new PacsimileError('protocol', `An enrolment has at most ${ENROLLMENT_BYTES_MAX} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function parseRequest(text: string): { token: string; name: string } {
  try {
    return ENROLLMENT_REQUEST.parse(JSON.parse(text))
  } catch (error) {
    throw new PacsimileError('protocol', `Malformed enrolment: ${reasonOf(error).slice(0, 300)}`, { cause: error })
  }
}

function refuse(response: ServerResponse, status: number, { code, message }: PacsimileError): void {
  // Whatever of the request was not read is not worth reading.
  response.setHeader('connection', 'close')
  send(response, status, { error: { code, message } })
}

function send(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}
