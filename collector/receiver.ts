/**
 * The collector's end of the wire: one TLS port for enrolment, for agents' sessions, and for restorers. The only door to `ws` here.
 *
 * Invariant: a connection without a client certificate is cut before HTTP, or, where some restorer has a password, reaches WebDAV and
 * nothing else; a WebSocket is only opened for an enrolled agent; of each agent the newest session counts. It prevents strangers from
 * reaching the protocol, and two sessions of one agent from interleaving.
 */
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { TLSSocket } from 'node:tls'
import { WebSocketServer } from 'ws'
import type { HybridClock } from '../shared/clock.ts'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { MESSAGE_BYTES_MAX, REQUEST_MS_MAX, SESSIONS_MAX } from '../shared/limits.ts'
import { Link } from '../shared/link.ts'
import type { Log } from '../shared/log.ts'
import type { Label } from '../shared/path.ts'
import type { ChunkRef } from '../shared/version.ts'
import { type AskedSpot, ENROLL_PATH, JOURNAL_PATH, RESTORER_ENROLL_PATH, SUBPROTOCOL } from '../shared/wire.ts'
import type { Enrollment } from './enrollment.ts'
import type { Identity } from './identity.ts'
import type { Ingest } from './ingest.ts'
import type { RepositoryDescription } from './repository/repository.ts'
import type { RestorerPort } from './restorer-port.ts'
import { Session } from './session.ts'

/** How long a request may take to arrive, in ms, as `https.createServer` takes it. */
export interface Patience {
  readonly headersTimeout: number
  readonly requestTimeout: number
  /** How often those that do not arrive are looked for. */
  readonly connectionsCheckingInterval: number
  /** For the next one on the same connection. */
  readonly keepAliveTimeout: number
}

/** A peer that is silent for so long is asked by the kernel whether it is there. */
const SILENT = { keepAlive: true, keepAliveInitialDelay: 30_000 }

const PATIENCE: Patience = {
  headersTimeout: 10_000,
  requestTimeout: REQUEST_MS_MAX,
  connectionsCheckingInterval: 5000,
  keepAliveTimeout: 30_000,
}

export interface ReceiverParts {
  readonly identity: Identity
  readonly enrollment: Enrollment
  readonly ingest: Ingest
  readonly repository: RepositoryDescription
  readonly clock: HybridClock
  /** What restorers are served. */
  readonly restorers: RestorerPort
  readonly log: Log
}

export class Receiver {
  readonly #parts: ReceiverParts
  readonly #server: Server
  readonly #sockets: WebSocketServer
  readonly #sessions = new Map<Label, Session>()
  readonly #running = new Set<Promise<void>>()

  private constructor(parts: ReceiverParts, patience: Patience) {
    this.#parts = parts
    this.#server = createServer({ ...parts.identity.serverTlsOptions(), ...patience, ...SILENT }, (request, response) => {
      const isEnrolment = request.url === ENROLL_PATH || request.url === RESTORER_ENROLL_PATH
      if (request.method === 'POST' && isEnrolment) void parts.enrollment.answer(request, response)
      else if (!parts.restorers.answer(request, response)) response.writeHead(404).end()
    })
    parts.identity.guard(this.#server)
    this.#sockets = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    })
    this.#server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => socket.destroy())
      const peer = socket instanceof TLSSocket ? parts.identity.peerOf(socket) : undefined
      if (
        request.url !== JOURNAL_PATH ||
        peer?.kind !== 'agent' ||
        this.#running.size >= SESSIONS_MAX ||
        request.headers['sec-websocket-protocol']?.includes(SUBPROTOCOL) !== true
      ) {
        parts.log.warn('connection refused', {
          address: request.socket.remoteAddress,
          reason: peer?.kind === 'stranger' ? peer.reason : 'not an agent session',
        })
        socket.end(`HTTP/1.1 ${peer?.kind === 'agent' ? '400 Bad Request' : '403 Forbidden'}\r\nConnection: close\r\n\r\n`)
        return
      }
      this.#sockets.handleUpgrade(request, socket, head, (opened) => this.#begin(peer.name, new Link(opened)))
    })
    this.#server.on('tlsClientError', (error, socket) => {
      parts.log.debug('TLS handshake failed', { reason: error.message })
      socket.destroy()
    })
  }

  /** @throws io when the address cannot be listened on */
  static async listen(
    parts: ReceiverParts,
    address: { readonly host: string; readonly port: number },
    patience: Patience = PATIENCE,
  ): Promise<Receiver> {
    const receiver = new Receiver(parts, patience)
    try {
      receiver.#server.listen(address.port, address.host)
      await once(receiver.#server, 'listening')
    } catch (error) {
      throw asPacsimileError(error, `Listening on ${address.host}:${address.port}`)
    }
    return receiver
  }

  get address(): AddressInfo {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('a TCP server has a TCP address')
    return address
  }

  session(agent: Label): Session | undefined {
    return this.#sessions.get(agent)
  }

  /** Content that files of an agent may still hold; undefined where none does. @throws agent-unreachable, unsupported, timeout, protocol */
  ask(agent: Label, chunk: ChunkRef, spots: readonly AskedSpot[]): Promise<Buffer | undefined> {
    const session = this.#sessions.get(agent)
    if (session?.isReady === true) return session.ask(chunk, spots)
    return Promise.reject(new PacsimileError('agent-unreachable', `Agent ${agent} is not connected`))
  }

  #begin(agent: Label, link: Link): void {
    const { ingest, clock, repository, log } = this.#parts
    const session = new Session({ agent, link, ingest, clock, repository, log })
    this.#sessions.get(agent)?.supersede()
    this.#sessions.set(agent, session)
    const running = session.run().finally(() => {
      this.#running.delete(running)
      if (this.#sessions.get(agent) === session) this.#sessions.delete(agent)
    })
    this.#running.add(running)
  }

  /** Ends every session; what they sent is still committed by ingest. */
  async close(): Promise<void> {
    this.#server.close()
    for (const session of this.#sessions.values()) session.close()
    this.#server.closeAllConnections()
    await Promise.all(this.#running)
    await this.#parts.restorers[Symbol.asyncDispose]()
    this.#sockets.close()
  }
}
