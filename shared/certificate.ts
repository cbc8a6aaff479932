/**
 * The certificates of an installation: how its authority (CA) is made, what it signs, and how a certificate is read.
 *
 * Invariant: a certificate says a role, in one URI name (`pacsimile:collector:ID`, `pacsimile:agent:NAME`, `pacsimile:restorer:NAME`),
 * and its extended key usage allows the TLS side of that role and no other. Identity is that role under the installation's own
 * authority, never a host name. It prevents a stolen agent key from posing as a collector to other agents, or from reading the
 * history, and a collector that moved to another address from needing new certificates everywhere.
 *
 * The only door to @peculiar/x509, which is loaded when something is signed: reading is Node's own.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject, X509Certificate } from 'node:crypto'
import type { PeerCertificate } from 'node:tls'
import type * as X509 from '@peculiar/x509'
import { PacsimileError, reasonOf } from './errors.ts'

/** A certificate and its private key (PKCS #8), both as PEM. */
export interface Credentials {
  readonly certificate: string
  readonly key: string
}

export type Role =
  | { readonly kind: 'collector'; readonly repository: string }
  /** Appends to its own journal. */
  | { readonly kind: 'agent'; readonly name: string }
  /** Reads history. */
  | { readonly kind: 'restorer'; readonly name: string }

type CryptoKey = ReturnType<KeyObject['toCryptoKey']>

const CURVE = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const HOUR_MS = 3_600_000
const YEAR_MS = 365.25 * 24 * HOUR_MS
const AUTHORITY_MS = 20 * YEAR_MS
const AGENT_MS = 2 * YEAR_MS
/** Clocks of hospital hosts differ: what is signed now must be valid where it is still a little earlier. */
const BACKDATED_MS = HOUR_MS

async function library(): Promise<typeof X509> {
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: CURVE.namedCurve }).privateKey
}

function keyText(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function validFor(ms: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now()
  return { notBefore: new Date(now - BACKDATED_MS), notAfter: new Date(now + ms) }
}

export async function makeAuthority(id: string): Promise<Credentials> {
  const x509 = await library()
  const privateKey = newKey()
  const keys = cryptoKeys(privateKey)
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [`Pacsimile CA ${id}`] }],
    ...validFor(AUTHORITY_MS),
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: pem(certificate), key: keyText(privateKey) }
}

/** Valid as long as the authority: both lie on the same disk, and a leaked one is a new installation. */
export async function issueCollector(authority: Credentials, repository: string): Promise<Credentials> {
  const key = newKey()
  const role: Role = { kind: 'collector', repository }
  return { certificate: await issue(authority, createPublicKey(key), role, AUTHORITY_MS), key: keyText(key) }
}

/** @param publicKey SubjectPublicKeyInfo, DER @throws not-trusted for a key that is not ECDSA P-256 */
export async function issueAgent(authority: Credentials, publicKey: Uint8Array, name: string): Promise<string> {
  return issue(authority, p256Key(publicKey), { kind: 'agent', name }, AGENT_MS)
}

/** @param publicKey SubjectPublicKeyInfo, DER @throws not-trusted for a key that is not ECDSA P-256 */
export async function issueRestorer(authority: Credentials, publicKey: Uint8Array, name: string, validMs: number): Promise<string> {
  return issue(authority, p256Key(publicKey), { kind: 'restorer', name }, validMs)
}

/** What an agent or a restorer shows until it is enrolled: proves that it holds the key, and nothing else. */
export async function makeSelfSigned(commonName: string): Promise<Credentials> {
  const x509 = await library()
  const privateKey = newKey()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [commonName] }],
    ...validFor(AGENT_MS),
    keys: cryptoKeys(privateKey),
    extensions: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])],
  })
  return { certificate: pem(certificate), key: keyText(privateKey) }
}

async function issue(authority: Credentials, publicKey: KeyObject, role: Role, validMs: number): Promise<string> {
  const x509 = await library()
  const issuer = new x509.X509Certificate(authority.certificate)
  const subjectKey = publicKey.toCryptoKey(CURVE, true, ['verify'])
  const { notBefore, notAfter } = validFor(validMs)
  const isServer = role.kind === 'collector'
  const uri = { type: 'url', value: `pacsimile:${role.kind}:${isServer ? role.repository : role.name}` } as const
  const dns = { type: 'dns', value: 'pacsimile-collector' } as const
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [isServer ? `Pacsimile collector ${role.repository}` : role.name] }],
    issuer: issuer.subjectName,
    notBefore,
    // Nothing outlives the authority that vouches for it.
    notAfter: notAfter < issuer.notAfter ? notAfter : issuer.notAfter,
    publicKey: subjectKey,
    signingKey: createPrivateKey(authority.key).toCryptoKey(CURVE, false, ['sign']),
    signingAlgorithm: CURVE,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([isServer ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth], true),
      new x509.SubjectAlternativeNameExtension(isServer ? [uri, dns] : [uri]),
      await x509.SubjectKeyIdentifierExtension.create(subjectKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
  return pem(certificate)
}

function p256Key(der: Uint8Array): KeyObject {
  let key: KeyObject
  try {
    key = createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
  } catch (error) {
    throw new PacsimileError('not-trusted', `The public key cannot be read: ${reasonOf(error)}`, { cause: error })
  }
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new PacsimileError('not-trusted', 'The public key is not ECDSA P-256')
  return key
}

function cryptoKeys(privateKey: KeyObject): { privateKey: CryptoKey; publicKey: CryptoKey } {
  return {
    privateKey: privateKey.toCryptoKey(CURVE, false, ['sign']),
    publicKey: createPublicKey(privateKey).toCryptoKey(CURVE, true, ['verify']),
  }
}

function pem(certificate: { toString(format: 'pem'): string }): string {
  return `${certificate.toString('pem').trimEnd()}\n`
}

/** @throws format-invalid */
export function parseCertificate(bytes: string | Uint8Array): X509Certificate {
  try {
    return new X509Certificate(typeof bytes === 'string' ? bytes : Buffer.from(bytes))
  } catch (error) {
    throw new PacsimileError('format-invalid', `Not a certificate: ${reasonOf(error)}`, { cause: error })
  }
}

/** SHA-256 of the DER bytes, in hex. */
export function fingerprintOf(certificate: X509Certificate): string {
  return hash('sha256', certificate.raw)
}

/** What the certificate claims to be; who signed it is for TLS to check. */
export function roleOf(certificate: X509Certificate): Role | undefined {
  // Node quotes a name that holds a separator, so that splitting cannot be led to see a role inside another name.
  const roles = (certificate.subjectAltName ?? '').split(', ').filter((name) => name.startsWith('URI:pacsimile:'))
  const [, kind, value] = /^URI:pacsimile:(agent|restorer|collector):([a-z0-9][a-z0-9._-]*)$/.exec(roles[0] ?? '') ?? []
  if (roles.length !== 1 || value === undefined) return undefined
  return kind === 'agent' || kind === 'restorer' ? { kind, name: value } : { kind: 'collector', repository: value }
}

/**
 * For `checkServerIdentity`, in place of Node's own check, which compares host names: a collector may move. The chain and the key usage
 * were checked by TLS before. It prevents the key of an enrolled agent, which has a certificate of the same authority, from passing for one.
 */
export function checkCollectorRole(host: string, certificate: PeerCertificate): Error | undefined {
  if (roleOf(parseCertificate(certificate.raw))?.kind === 'collector') return undefined
  return new PacsimileError('not-trusted', `The server at ${host} is not a collector: its certificate does not say so`)
}
