/**
 * Who this collector is, and who knocks: its authority (CA), its own certificate, and the judgement of a TLS peer.
 *
 * DATA/keys holds `ca.key`, `ca.crt`, `server.key`, `server.crt`. Invariant: an agent, or a restorer, is only who holds the key of the
 * one certificate that this authority issued for that role and name and that is enrolled now; everybody else is a stranger, who can do
 * nothing but enrol; and who shows no certificate at all is cut off before a byte of HTTP is read, unless some restorer was given a
 * password (receiver.ts says what such a guest may do). It prevents the parsers behind the port from being anybody's to attack, and a
 * revoked or replaced agent from going on.
 */
import { constants, type X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import type { Server, TLSSocket, TlsOptions } from 'node:tls'
import {
  type Credentials,
  fingerprintOf,
  issueAgent,
  issueCollector,
  issueRestorer,
  makeAuthority,
  parseCertificate,
  type Role,
  roleOf,
} from '../shared/certificate.ts'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { parseToken } from '../shared/enrollment.ts'
import { PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import { GUESTS_MAX } from '../shared/limits.ts'
import { type Label, label } from '../shared/path.ts'
import { Allowance, checkAllowance } from './allowance.ts'
import { EnrolledAgents } from './enrolled-agents.ts'
import type { PasswordHash } from './password.ts'
import { type Restorer, Restorers } from './restorers.ts'
import { findRestorerToken, findToken, type TokenTerms, writeToken } from './tokens.ts'

export type Peer =
  | { readonly kind: 'agent'; readonly name: Label }
  | { readonly kind: 'restorer'; readonly name: Label; readonly allowance: Allowance }
  /** `publicKey` is SubjectPublicKeyInfo, DER, of which the peer has proven possession. `reason` says why it is nobody else. */
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
export function openIdentity(dataDir: string, clock: WallClock = systemClock): Identity {
  const files = keyFiles(dataDir)
  const read = (from: Credentials): Credentials => ({ key: readText(from.key), certificate: readText(from.certificate) })
  return new Identity(dataDir, { authority: read(files.authority), server: read(files.server) }, clock)
}

/** Works with and without a running collector. @throws not-found when `dataDir` is not initialised */
export function createToken(dataDir: string, terms: TokenTerms): string {
  if (terms.agent !== undefined) label(terms.agent, 'The agent name')
  if (terms.restorer !== undefined) {
    label(terms.restorer.name, 'The name of the restorer')
    checkAllowance(terms.restorer.allowed)
  }
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

/** How whoever may sign makes a new certificate. */
const RENEWAL = {
  agent: (name: string): string =>
    `\`pacsimile token create --agent ${name}\` at the collector, then \`pacsimile agent enroll\`, makes a new one`,
  restorer: (name: string): string =>
    `\`pacsimile restorer token ${name}\` at the collector, then \`pacsimile restorer enroll\`, makes a new one`,
}

/** Why TLS does not take a certificate, in words. */
function reasonOfTls(certificate: X509Certificate, error: string): string {
  const role = roleOf(certificate)
  if (error !== 'CERT_HAS_EXPIRED' || role === undefined || role.kind === 'collector') return `Its certificate does not hold (${error})`
  const ended = `The certificate of the ${role.kind} ${role.name} ended at ${new Date(certificate.validTo).toISOString()}`
  return `${ended}; ${RENEWAL[role.kind](role.name)}`
}

export class Identity {
  readonly repositoryId: string
  readonly agents: EnrolledAgents
  readonly restorers: Restorers
  readonly #dataDir: string
  readonly #files: IdentityFiles
  readonly #clock: WallClock
  /** The open connections of each `agent:NAME` and `restorer:NAME`, so that revoking ends them too. */
  readonly #connected = new Map<string, Set<TLSSocket>>()
  /** Open connections without a certificate. */
  #guests = 0

  constructor(dataDir: string, files: IdentityFiles, clock: WallClock = systemClock) {
    const role = roleOf(parseCertificate(files.server.certificate))
    if (role?.kind !== 'collector') throw new PacsimileError('format-invalid', `The certificate in ${dataDir}/keys is not a collector's`)
    this.repositoryId = role.repository
    this.agents = new EnrolledAgents(dataDir)
    this.restorers = new Restorers(dataDir)
    this.#dataDir = dataDir
    this.#files = files
    this.#clock = clock
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

  /** Cuts off who shows no certificate and may not come without, before HTTP sees the connection, and follows those of agents and restorers. */
  guard(server: Server): void {
    server.prependListener('secureConnection', (socket) => {
      const peer = this.peerOf(socket)
      if (peer === undefined) this.#admitGuest(socket)
      else if (peer.kind !== 'stranger') this.#follow(`${peer.kind}:${peer.name}`, socket)
    })
  }

  #admitGuest(socket: TLSSocket): void {
    const isGuest = socket.getPeerX509Certificate() === undefined
    if (!isGuest || this.#guests >= GUESTS_MAX || !this.restorers.hasPasswords()) {
      socket.destroy()
      return
    }
    this.#guests += 1
    socket.once('close', () => {
      this.#guests -= 1
    })
  }

  /** The connection of a guest who has shown the password of a restorer ends with that restorer. */
  followRestorer(name: Label, socket: TLSSocket): void {
    this.#follow(`restorer:${name}`, socket)
  }

  #follow(whose: string, socket: TLSSocket): void {
    const sockets = this.#connected.get(whose) ?? new Set()
    this.#connected.set(whose, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#connected.get(whose) === sockets) this.#connected.delete(whose)
    })
  }

  /** Undefined where no client certificate was shown, or none with a key that could ever be enrolled. Never throws. */
  peerOf(socket: TLSSocket): Peer | undefined {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) return undefined
    const judged = socket.authorized
      ? this.#judge(certificate, roleOf(certificate))
      : reasonOfTls(certificate, String(socket.authorizationError))
    if (typeof judged !== 'string') return judged
    try {
      const publicKey = certificate.publicKey.export({ type: 'spki', format: 'der' })
      return { kind: 'stranger', publicKey, reason: judged }
    } catch {
      return undefined
    }
  }

  /** What a certificate that this authority signed makes of its owner now, or why nothing. */
  #judge(certificate: X509Certificate, role: Role | undefined): Exclude<Peer, { kind: 'stranger' }> | string {
    try {
      switch (role?.kind) {
        case 'agent':
          return this.#reasonAgainst(certificate, role.name) ?? { kind: 'agent', name: label(role.name, 'The agent name') }
        case 'restorer':
          return this.#restorer(certificate, role.name)
        default:
          return 'Its certificate names no agent'
      }
    } catch (error) {
      return reasonOf(error)
    }
  }

  #reasonAgainst(certificate: X509Certificate, name: string): string | undefined {
    const agent = this.agents.find(name)
    if (agent === undefined) return `No agent ${name} is enrolled`
    if (agent.certificate !== fingerprintOf(certificate)) return `The agent ${name} was enrolled again with another certificate`
    return agent.revoked === undefined ? undefined : `The agent ${name} was revoked at ${agent.revoked}`
  }

  #restorer(certificate: X509Certificate, name: string): Exclude<Peer, { kind: 'stranger' | 'agent' }> | string {
    const restorer = this.restorers.find(name)
    if (restorer === undefined) return `There is no restorer ${name}`
    if (restorer.certificate !== fingerprintOf(certificate)) return `The restorer ${name} was given another certificate since`
    return this.#ended(restorer) ?? { kind: 'restorer', name: restorer.name, allowance: restorer.allowance }
  }

  #ended({ name, revoked, expires }: Restorer): string | undefined {
    if (revoked !== undefined) return `The restorer ${name} was revoked at ${revoked}`
    // TLS looked when the connection was made, which may be long ago.
    return Date.parse(expires) <= this.#clock.now()
      ? `The certificate of the restorer ${name} ended at ${expires}; ${RENEWAL.restorer(name)}`
      : undefined
  }

  /** A restorer of that name who may come with a password now; undefined for anybody else. Never throws. */
  restorerWithPassword(name: string): (Restorer & { readonly password: PasswordHash }) | undefined {
    try {
      const restorer = this.restorers.find(name)
      if (restorer?.password === undefined || this.#ended(restorer) !== undefined) return undefined
      return { ...restorer, password: restorer.password }
    } catch {
      return undefined
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
    this.#disconnect(`agent:${name}`)
    return { agent, certificate }
  }

  /**
   * The same of a restorer: the token says which one, and takes the place of what was issued for that name before.
   * @throws token-invalid, not-trusted, usage
   */
  async enrollRestorer(
    tokenText: string,
    name: string,
    publicKey: Uint8Array,
  ): Promise<{ restorer: Label; allowed: readonly string[]; expires: Date; certificate: string }> {
    const restorer = label(name, 'The name of the restorer')
    const { terms, redeem } = findRestorerToken(this.#dataDir, parseToken(tokenText), name, this.#clock)
    const allowance = new Allowance(terms.allowed)
    redeem()
    const certificate = await issueRestorer(this.#files.authority, publicKey, name, terms.validMs)
    const parsed = parseCertificate(certificate)
    const expires = new Date(parsed.validTo)
    this.restorers.put(name, { certificate: fingerprintOf(parsed), allowance, expires })
    this.#disconnect(`restorer:${name}`)
    return { restorer, allowed: allowance.words, expires, certificate }
  }

  /** From now on, and for the connections that are open. @throws not-found */
  revoke(name: string): void {
    this.agents.revoke(name)
    this.#disconnect(`agent:${name}`)
  }

  /** The same of a restorer. @throws not-found */
  revokeRestorer(name: string): void {
    this.restorers.revoke(name)
    this.#disconnect(`restorer:${name}`)
  }

  #disconnect(whose: string): void {
    for (const socket of this.#connected.get(whose) ?? []) socket.destroy()
  }
}
