/**
 * The connection to the collector: made, kept, and made again for ever. The agent's only door to `ws`.
 *
 * Invariant: a connection is over TLS 1.3 with certificates of this installation on both sides, or there is none; and no
 * failure but the end of the epoch, or of the journal, ends the attempts. It prevents a night without network from
 * needing a person in the morning.
 */
import { WebSocket } from 'ws'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { MESSAGE_BYTES_MAX } from '../shared/limits.ts'
import { Link } from '../shared/link.ts'
import type { Log } from '../shared/log.ts'
import { JOURNAL_PATH, SUBPROTOCOL } from '../shared/wire.ts'
import { EpochOver, type WelcomeMessage } from './handshake.ts'
import type { AgentTlsOptions } from './identity.ts'
import { Session, type SessionParts } from './session.ts'
import { sleep, Waiters } from './waiting.ts'

export interface LinkStatus {
  readonly state: 'connecting' | 'up' | 'down'
  /** ms since 1970. */
  readonly sinceMs: number
  readonly lastError: string | undefined
}

export interface UplinkParts {
  readonly url: string
  /** Read again for each attempt: a certificate may have been renewed. */
  readonly tls: () => AgentTlsOptions
  readonly session: SessionParts
  readonly onLink: (isUp: boolean) => void
  readonly log: Log
}

const BACKOFF_FIRST_MS = 100
const BACKOFF_MAX_MS = 10_000
const HANDSHAKE_MS_MAX = 10_000

export class Uplink {
  readonly #parts: UplinkParts
  readonly #attempted = new Waiters()
  #status: LinkStatus = { state: 'connecting', sinceMs: Date.now(), lastError: undefined }
  #hasAttempted = false
  #failures = 0

  constructor(parts: UplinkParts) {
    this.#parts = parts
  }

  get status(): LinkStatus {
    return this.#status
  }

  /** Resolves when the first attempt has ended, well or not, or after `ms`. */
  async firstAttempt(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#hasAttempted) await Promise.race([this.#attempted.wait(signal), sleep(ms, signal)])
  }

  /** Until the signal is given. @throws EpochOver, damage */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const link = await this.#connect(signal)
        await this.#session(link).run(signal)
      } catch (error) {
        if (error instanceof EpochOver || (error instanceof PacsimileError && error.code === 'damage')) throw error
        if (!signal.aborted) this.#noteFailure(asPacsimileError(error, `Connecting to ${this.#parts.url}`))
      } finally {
        this.#parts.onLink(false)
        this.#noteAttempt()
      }
      // Full jitter, so that a hundred agents do not return to a restarted collector at the same moment.
      await sleep(Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.#failures), signal)
    }
    this.#status = { ...this.#status, state: 'down', sinceMs: Date.now() }
  }

  #session(link: Link): Session {
    const { session, log, url, onLink } = this.#parts
    return new Session(link, {
      ...session,
      onWelcome: (welcome: WelcomeMessage, leadMs: number) => {
        this.#failures = 0
        this.#status = { state: 'up', sinceMs: Date.now(), lastError: undefined }
        log.info('connected to the collector', { collector: url, acked: welcome.acked.seq, head: session.journal.head.seq })
        session.onWelcome(welcome, leadMs)
        onLink(true)
        this.#noteAttempt()
      },
    })
  }

  #noteAttempt(): void {
    this.#hasAttempted = true
    this.#attempted.wake()
  }

  #noteFailure(error: PacsimileError): void {
    const { log, url } = this.#parts
    const isNews = this.#status.state === 'up' || this.#status.lastError !== error.message
    if (isNews) log.warn('no connection to the collector; attempts go on', { collector: url, code: error.code, reason: error.message })
    const sinceMs = this.#status.state === 'down' ? this.#status.sinceMs : Date.now()
    this.#status = { state: 'down', sinceMs, lastError: error.message }
    this.#failures = Math.min(this.#failures + 1, 16)
  }

  #connect(signal: AbortSignal): Promise<Link> {
    const { url, tls } = this.#parts
    // @types/ws describes `checkServerIdentity` as it has never been; it goes to tls.connect as it is.
    const options = tls() as object
    const socket = new WebSocket(`${url}${JOURNAL_PATH}`, SUBPROTOCOL, {
      ...options,
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      handshakeTimeout: HANDSHAKE_MS_MAX,
      // Masking protects plaintext proxies; inside TLS it only costs a pass over every byte.
      generateMask: (mask) => mask.fill(0),
    })
    return new Promise((resolve, reject) => {
      const stop = (): void => socket.terminate()
      signal.addEventListener('abort', stop, { once: true })
      socket.once('open', () => {
        signal.removeEventListener('abort', stop)
        socket.removeAllListeners()
        resolve(new Link(socket))
      })
      socket.on('error', (error) => {
        signal.removeEventListener('abort', stop)
        reject(connectError(error, url))
      })
      socket.on('unexpected-response', (request, response) => {
        signal.removeEventListener('abort', stop)
        request.destroy()
        reject(refusedError(response.statusCode ?? 0, url))
      })
    })
  }
}

function refusedError(status: number, url: string): PacsimileError {
  if (status === 401 || status === 403)
    return new PacsimileError(
      'not-trusted',
      `${url} does not accept this agent's certificate (unknown, revoked or expired): enrol the agent again`,
    )
  return new PacsimileError('collector-unreachable', `${url} answered with HTTP status ${status}`)
}

function connectError(error: Error, url: string): PacsimileError {
  if (error instanceof PacsimileError) return error
  const code = 'code' in error ? String(error.code) : ''
  if (/CERT|SSL|TLS/.test(code))
    return new PacsimileError('not-trusted', `The connection to ${url} is not trusted: ${error.message}`, { cause: error })
  return new PacsimileError('collector-unreachable', `No connection to ${url}: ${error.message}`, { cause: error })
}
