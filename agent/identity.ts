/**
 * Who this agent is: its key, its certificate and the authority (CA) that it trusts, in STATE/identity.
 *
 * Invariant: a connection made with `tlsOptions` is to a collector of this agent's own installation, or it fails. The chain and
 * the key usage are checked by TLS, the role by us; the host name is not, since a collector may move. It prevents an enrolled
 * agent's key, which has a certificate of the same authority, from collecting what other agents send.
 */
import { join } from 'node:path'
import type { PeerCertificate } from 'node:tls'
import { checkCollectorRole } from '../shared/certificate.ts'
import { PacsimileError } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'

/** All three as PEM. */
export interface AgentIdentity {
  readonly key: string
  readonly certificate: string
  readonly authority: string
}

export interface AgentTlsOptions {
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly minVersion: 'TLSv1.3'
  readonly checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined
}

function identityFiles(stateDir: string): {
  readonly directory: string
  readonly key: string
  readonly certificate: string
  readonly authority: string
} {
  const directory = join(stateDir, 'identity')
  return { directory, key: join(directory, 'agent.key'), certificate: join(directory, 'agent.crt'), authority: join(directory, 'ca.crt') }
}

export function writeIdentity(stateDir: string, identity: AgentIdentity): void {
  const files = identityFiles(stateDir)
  makeDirectory(files.directory)
  writeFileDurably(files.key, identity.key)
  writeFileDurably(files.authority, identity.authority)
  writeFileDurably(files.certificate, identity.certificate)
}

/** @throws not-found when the agent is not enrolled */
export function readIdentity(stateDir: string): AgentIdentity {
  const files = identityFiles(stateDir)
  const read = (file: string): string => {
    const bytes = readIfPresent(file)
    if (bytes === undefined)
      throw new PacsimileError('not-found', `This agent is not enrolled: ${file} is missing. Run \`pacsimile agent enroll\`.`)
    return bytes.toString('utf8')
  }
  return { key: read(files.key), certificate: read(files.certificate), authority: read(files.authority) }
}

/** What an enrolled agent gives to `tls.connect` or `ws`. @throws not-found when the agent is not enrolled */
export function tlsOptions(stateDir: string): AgentTlsOptions {
  const { key, certificate, authority } = readIdentity(stateDir)
  return { ca: authority, cert: certificate, key, minVersion: 'TLSv1.3', checkServerIdentity: checkCollectorRole }
}
