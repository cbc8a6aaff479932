/**
 * Who asks for history on a connection: a restorer by its certificate, or, where that was switched on, by its name and password (HTTP Basic).
 *
 * Invariant: the answer is the collector's own list at the moment of each request. A password is checked once for a connection; that
 * it is still the same one is looked up each time. An address with many wrong ones is turned away unheard. It prevents guessing, and
 * the costly check from being anybody's to make the collector busy with.
 */
import { hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { TLSSocket } from 'node:tls'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { PacsimileError } from '../shared/errors.ts'
import { PASSWORD_CHECKS_MAX, PASSWORD_CHECKS_WAITING_MAX, PASSWORD_FAILURES_MAX } from '../shared/limits.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { Reader } from './access-log.ts'
import type { Allowance } from './allowance.ts'
import { FailureLimit } from './failure-limit.ts'
import type { Identity } from './identity.ts'
import { isPassword, type PasswordHash } from './password.ts'

const FAILURE_WINDOW_MS = 60_000

export interface AllowedReader extends Reader {
  readonly allowance: Allowance
}

/** What was shown on a connection, and held. */
interface Shown {
  /** SHA-256 of the header. */
  readonly header: string
  /** Which hash it was held against. */
  readonly hash: string
}

export class Readers {
  readonly #identity: Identity
  readonly #log: Log
  readonly #onRead: (name: Label) => void
  /** Wrong passwords, and whoever else was refused. */
  readonly #failures: FailureLimit
  readonly #refused: FailureLimit
  readonly #shown = new WeakMap<TLSSocket, Shown>()
  #checks = 0
  readonly #waiting: (() => void)[] = []

  /** @param onRead called with each restorer that is let in */
  constructor(identity: Identity, log: Log, onRead: (name: Label) => void, clock: WallClock = systemClock) {
    this.#identity = identity
    this.#log = log
    this.#onRead = onRead
    this.#failures = new FailureLimit(clock, PASSWORD_FAILURES_MAX, FAILURE_WINDOW_MS)
    this.#refused = new FailureLimit(clock, PASSWORD_FAILURES_MAX, FAILURE_WINDOW_MS)
  }

  /** @throws not-trusted */
  byCertificate(request: IncomingMessage): AllowedReader {
    const peer = request.socket instanceof TLSSocket ? this.#identity.peerOf(request.socket) : undefined
    const address = request.socket.remoteAddress ?? 'unknown'
    if (peer?.kind === 'restorer') {
      this.#onRead(peer.name)
      return { name: peer.name, allowance: peer.allowance, by: 'certificate', address }
    }
    throw this.#refusal(
      this.#refused,
      address,
      peer?.kind === 'stranger' ? peer.reason : 'Only a restorer may read history: `pacsimile restorer token`',
    )
  }

  /** By certificate where one is shown, else by password. @throws not-trusted, busy */
  async byEither(request: IncomingMessage): Promise<AllowedReader> {
    const { socket } = request
    if (!(socket instanceof TLSSocket) || socket.getPeerX509Certificate() !== undefined) return this.byCertificate(request)
    const address = socket.remoteAddress ?? 'unknown'
    if (this.#failures.isExceeded(address)) throw new PacsimileError('busy', 'Too many wrong passwords from this address; wait a minute')
    const given = credentialsOf(request)
    if (given === undefined) throw new PacsimileError('not-trusted', 'Show the certificate of a restorer, or its name and password')
    const restorer = this.#identity.restorerWithPassword(given.name)
    const shown: Shown = { header: hash('sha256', `${given.name}:${given.password}`), hash: restorer?.password.hash ?? '' }
    const before = this.#shown.get(socket)
    const isShown = restorer !== undefined && before?.header === shown.header && before.hash === shown.hash
    const holds = isShown || (await this.#holds(given.password, restorer?.password))
    // It may have ended while the password was checked.
    const now = this.#identity.restorerWithPassword(given.name)
    if (!holds || now === undefined || now.password.hash !== shown.hash)
      throw this.#refusal(this.#failures, address, 'The name or the password is wrong')
    if (!isShown) {
      this.#shown.set(socket, shown)
      this.#identity.followRestorer(now.name, socket)
    }
    this.#onRead(now.name)
    return { name: now.name, allowance: now.allowance, by: 'password', address }
  }

  /** Without a restorer the time is spent all the same, so that it does not tell which names there are. @throws busy */
  async #holds(password: string, against: PasswordHash = NOBODY): Promise<boolean> {
    if (this.#checks < PASSWORD_CHECKS_MAX) this.#checks += 1
    else if (this.#waiting.length < PASSWORD_CHECKS_WAITING_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else throw new PacsimileError('busy', 'Other passwords are being checked; try again')
    try {
      return await isPassword(password, against)
    } finally {
      // Whoever waits takes the place over.
      const next = this.#waiting.shift()
      if (next === undefined) this.#checks -= 1
      else next()
    }
  }

  #refusal(limit: FailureLimit, address: string, reason: string): PacsimileError {
    // Who is refused again and again is not worth a line each time.
    if (!limit.isExceeded(address)) this.#log.warn('reader refused', { address, reason })
    limit.count(address)
    return new PacsimileError('not-trusted', reason)
  }
}

/** No password has this hash. */
const NOBODY: PasswordHash = { kind: 'scrypt', salt: '00'.repeat(16), hash: '00'.repeat(32) }

function credentialsOf(request: IncomingMessage): { name: string; password: string } | undefined {
  const [, encoded] = /^basic ([a-z0-9+/]{1,400}={0,2})$/i.exec(request.headers.authorization ?? '') ?? []
  if (encoded === undefined) return undefined
  const text = Buffer.from(encoded, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : { name: text.slice(0, colon), password: text.slice(colon + 1) }
}
