/**
 * Who this collector is, and who knocks: its authority (CA), its own certificate, and the judgement of a TLS peer.
 *
 * DATA/keys holds `ca.key`, `ca.crt`, `server.key`, `server.crt`. Invariant: an agent is only who holds the key of the one
 * certificate that this authority issued for that name and that is enrolled now; everybody else is a stranger, who can do
 * nothing but enrol; and who shows no certificate at all is cut off before a byte of HTTP is read. It prevents the parsers
 * behind the port from being anybody's to attack, and a revoked or replaced agent from going on.
 */
import { constants, type X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import type { Server, TLSSocket, TlsOptions } from 'node:tls'
import {
  type Credentials,
  fingerprintOf,
  issueAgent,
  issueCollector,
  makeAuthority,
  parseCertificate,
  type Role,
  roleOf,
} from '../shared/certificate.ts'
import { parseToken } from '../shared/enrollment.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import { type Label, label } from '../shared/path.ts'
import { EnrolledAgents } from './enrolled-agents.ts'
import { findToken, type TokenTerms, writeToken } from './tokens.ts'

export type Peer =
  | { readonly kind: 'agent'; readonly name: Label }
  /** `publicKey` is SubjectPublicKeyInfo, DER, of which the peer has proven possession. `reason` says why it is no agent. */
  | { readonly kind: 'stranger'; readonly publicKey: Buffer; readonly reason: string }

interface IdentityFiles {
  readonly authority: Credentials
  readonly server: Credentials
}

/** The names of the files, where the same shape elsewhere holds their content. */
function keyFiles(dataDir: string): IdentityFiles {
  const file = (name: string): string => join(dataDir, 'keys', name)
  return {
    authority: { key: file('ca.key'), certificate: file('ca.crt') },
    server: { key: file('server.key'), certificate: file('server.crt') },
  }
}

/** Makes the authority and the collector's certificate; `dataDir` is being initialised. */
export async function createIdentity(dataDir: string, repositoryId: string): Promise<void> {
  const files = keyFiles(dataDir)
  const authority = await makeAuthority(repositoryId)
  const server = await issueCollector(authority, repositoryId)
  makeDirectory(join(dataDir, 'keys'))
  writeFileDurably(files.authority.key, authority.key)
  writeFileDurably(files.authority.certificate, authority.certificate)
  writeFileDurably(files.server.key, server.key)
  writeFileDurably(files.server.certificate, server.certificate)
}

/** @throws not-found when `dataDir` is not initialised */
export function openIdentity(dataDir: string): Identity {
  const files = keyFiles(dataDir)
  const read = (from: Credentials): Credentials => ({ key: readText(from.key), certificate: readText(from.certificate) })
  return new Identity(dataDir, { authority: read(files.authority), server: read(files.server) })
}

/** Works with and without a running collector. @throws not-found when `dataDir` is not initialised */
export function createToken(dataDir: string, terms: TokenTerms): string {
  if (terms.agent !== undefined) label(terms.agent, 'The agent name')
  return writeToken(dataDir, authorityFingerprint(dataDir), terms)
}

/** SHA-256 of the CA certificate, in hex. */
export function authorityFingerprint(dataDir: string): string {
  return fingerprintOf(parseCertificate(readText(keyFiles(dataDir).authority.certificate)))
}

function readText(file: string): string {
  const bytes = readIfPresent(file)
  if (bytes === undefined)
    throw new PacsimileError(
      'not-found',
      `No collector was initialised here (\`pacsimile collector init\`, or name its --data directory): ${file} is missing`,
    )
  return bytes.toString('utf8')
}

export class Identity {
  readonly repositoryId: string
  readonly agents: EnrolledAgents
  readonly #dataDir: string
  readonly #files: IdentityFiles
  /** The open connections of each agent, so that revoking ends them too. */
  readonly #connected = new Map<string, Set<TLSSocket>>()

  constructor(dataDir: string, files: IdentityFiles) {
    const role = roleOf(parseCertificate(files.server.certificate))
    if (role?.kind !== 'collector') throw new PacsimileError('format-invalid', `The certificate in ${dataDir}/keys is not a collector's`)
    this.repositoryId = role.repository
    this.agents = new EnrolledAgents(dataDir)
    this.#dataDir = dataDir
    this.#files = files
  }

  /** PEM. */
  get authority(): string {
    return this.#files.authority.certificate
  }

  serverTlsOptions(): TlsOptions {
    const { authority, server } = this.#files
    return {
      key: server.key,
      // The authority goes with it: an agent that enrols knows only its hash.
      cert: server.certificate + authority.certificate,
      ca: authority.certificate,
      minVersion: 'TLSv1.3',
      requestCert: true,
      // An agent that enrols shows a certificate of its own making; `peerOf` decides what it may do.
      rejectUnauthorized: false,
      // A resumed session would carry a judgement of yesterday.
      secureOptions: constants.SSL_OP_NO_TICKET,
    }
  }

  /** Cuts off who shows no certificate, before HTTP sees the connection, and follows the connections of agents. */
  guard(server: Server): void {
    server.prependListener('secureConnection', (socket) => {
      const peer = this.peerOf(socket)
      if (peer === undefined) socket.destroy()
      else if (peer.kind === 'agent') this.#follow(peer.name, socket)
    })
  }

  #follow(name: string, socket: TLSSocket): void {
    const sockets = this.#connected.get(name) ?? new Set()
    this.#connected.set(name, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#connected.get(name) === sockets) this.#connected.delete(name)
    })
  }

  /** Undefined where no client certificate was shown, or none with a key that could ever be enrolled. Never throws. */
  peerOf(socket: TLSSocket): Peer | undefined {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) return undefined
    const role = roleOf(certificate)
    const reason = socket.authorized
      ? this.#reasonAgainst(certificate, role)
      : `Its certificate does not hold (${String(socket.authorizationError)})`
    if (reason === undefined && role?.kind === 'agent') return { kind: 'agent', name: label(role.name, 'The agent name') }
    try {
      const publicKey = certificate.publicKey.export({ type: 'spki', format: 'der' })
      return { kind: 'stranger', publicKey, reason: reason ?? 'Its certificate names no agent' }
    } catch {
      return undefined
    }
  }

  /** Why a certificate that this authority signed does not make an agent now. */
  #reasonAgainst(certificate: X509Certificate, role: Role | undefined): string | undefined {
    if (role?.kind !== 'agent') return 'Its certificate names no agent'
    try {
      const agent = this.agents.find(role.name)
      if (agent === undefined) return `No agent ${role.name} is enrolled`
      if (agent.certificate !== fingerprintOf(certificate)) return `The agent ${role.name} was enrolled again with another certificate`
      return agent.revoked === undefined ? undefined : `The agent ${role.name} was revoked at ${agent.revoked}`
    } catch (error) {
      return reasonOf(error)
    }
  }

  /**
   * Issues the certificate of a new agent for a key that it has proven to hold. The token is used up before anything is
   * issued: a crash between costs a token, never gives two certificates for one. The certificate is PEM.
   * @throws token-invalid, already-exists, not-trusted, usage
   */
  async enroll(tokenText: string, name: string, publicKey: Uint8Array): Promise<{ agent: Label; certificate: string }> {
    const agent = label(name, 'The agent name')
    const token = findToken(this.#dataDir, parseToken(tokenText), name)
    if (!token.isBound && this.agents.find(name) !== undefined) {
      throw new PacsimileError(
        'already-exists',
        `An agent ${name} is enrolled already. If this host takes its place: \`pacsimile token create --agent ${name}\``,
      )
    }
    token.redeem()
    const certificate = await issueAgent(this.#files.authority, publicKey, name)
    this.agents.put(name, fingerprintOf(parseCertificate(certificate)), token.isBound)
    this.#disconnect(name)
    return { agent, certificate }
  }

  /** From now on, and for the connections that are open. @throws not-found */
  revoke(name: string): void {
    this.agents.revoke(name)
    this.#disconnect(name)
  }

  #disconnect(name: string): void {
    for (const socket of this.#connected.get(name) ?? []) socket.destroy()
  }
}
