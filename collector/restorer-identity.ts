/**
 * Who this host is to a collector whose history it reads: a restorer's key and certificate, and the authority that it trusts.
 *
 * In a directory of its own: `restorer.key`, `restorer.crt`, `ca.crt`, and `restorer.toml`, which comes last. Invariant: the key was made
 * here and is readable by its owner alone, and a connection made with it is to a collector of that installation, or it fails. It
 * prevents a restore of what somebody in between would like to have restored.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { checkCollectorRole, parseCertificate } from '../shared/certificate.ts'
import { type CollectorAddress, parseCollectorAddress } from '../shared/collector-address.ts'
import { formatConfig, readConfig } from '../shared/config.ts'
import { RESTORER_REPLY } from '../shared/enrollment.ts'
import { PacsimileError } from '../shared/errors.ts'
import { isPresent, makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import { label } from '../shared/path.ts'
import { exchangeToken } from '../shared/token-exchange.ts'
import { RESTORER_ENROLL_PATH } from '../shared/wire.ts'
import type { CertificateTerm } from './certificate-term.ts'

const CONFIG = z.strictObject({ name: z.string().min(1), collector: z.string().min(1) })

export interface RestorerIdentity {
  readonly name: string
  /** Of the certificate. */
  readonly term: CertificateTerm
  /** Where it enrolled. */
  readonly collector: CollectorAddress
  readonly tls: {
    readonly ca: string
    readonly cert: string
    readonly key: string
    readonly minVersion: 'TLSv1.3'
    readonly checkServerIdentity: typeof checkCollectorRole
  }
}

export interface EnrolledRestorer {
  readonly restorer: string
  readonly collector: string
  readonly repository: string
  /** `all`, `AGENT` or `AGENT:VOLUME`. */
  readonly allowed: readonly string[]
  /** RFC 3339. */
  readonly expires: string
}

const files = (directory: string): Record<'key' | 'certificate' | 'authority' | 'config', string> => ({
  key: join(directory, 'restorer.key'),
  certificate: join(directory, 'restorer.crt'),
  authority: join(directory, 'ca.crt'),
  config: join(directory, 'restorer.toml'),
})

/**
 * Exchanges a token for a certificate. What was there of an earlier one is replaced: its certificate is not good any more.
 * @throws token-invalid, not-trusted, collector-unreachable, usage, io, space
 */
export async function enrollRestorer(
  directory: string,
  request: { readonly collector: string; readonly token: string; readonly name: string },
): Promise<EnrolledRestorer> {
  const name = label(request.name, 'The name of the restorer')
  const address = parseCollectorAddress(request.collector)
  // What cannot be written is noticed before the token is used up.
  makeDirectory(directory)
  const exchange = { address, path: RESTORER_ENROLL_PATH, token: request.token, role: 'restorer', name, reply: RESTORER_REPLY } as const
  const { key, reply } = await exchangeToken(exchange)
  const at = files(directory)
  writeFileDurably(at.key, key)
  writeFileDurably(at.authority, reply.ca)
  writeFileDurably(at.certificate, reply.certificate)
  writeFileDurably(at.config, formatConfig({ name, collector: address.url }))
  return { restorer: name, collector: address.url, repository: reply.repository, allowed: reply.allowed, expires: reply.expires }
}

export function isRestorer(directory: string): boolean {
  return isPresent(files(directory).config)
}

/** @param collector in the place of where it enrolled. @throws not-found where this host is no restorer; config-invalid, io */
export function readRestorer(directory: string, collector?: string): RestorerIdentity {
  const at = files(directory)
  if (!isRestorer(directory))
    throw new PacsimileError(
      'not-found',
      `No restorer was enrolled in ${directory}. Make a token at the collector, \`pacsimile restorer token\`, then \`pacsimile restorer enroll\` here.`,
    )
  const config = readConfig(at.config, CONFIG)
  const read = (file: string): string => {
    const bytes = readIfPresent(file)
    if (bytes === undefined)
      throw new PacsimileError('not-found', `${file} is missing; \`pacsimile restorer enroll\` with a new token makes it`)
    return bytes.toString('utf8')
  }
  const certificate = read(at.certificate)
  const { validFrom, validTo } = parseCertificate(certificate)
  return {
    name: config.name,
    term: { fromMs: Date.parse(validFrom), untilMs: Date.parse(validTo) },
    collector: parseCollectorAddress(collector ?? config.collector),
    tls: {
      ca: read(at.authority),
      cert: certificate,
      key: read(at.key),
      minVersion: 'TLSv1.3',
      checkServerIdentity: checkCollectorRole,
    },
  }
}
