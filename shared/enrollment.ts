/**
 * What an agent and a collector say to each other before they know each other: the token and the one request.
 *
 * A token is `pacsimile1.<id>.<secret>.<authority>`: the id names it at the collector, the secret (base64url) proves that it was
 * given, the authority is the SHA-256 of the collector's CA certificate (base64url). Invariant: the token authenticates both
 * ways, so the agent knows its collector before it says anything. It prevents a false collector in between from taking a
 * token, and the archive after it, on the day of the installation, when nothing else is there to recognise it by.
 */
import { z } from 'zod'
import { PacsimileError } from './errors.ts'
import { LABEL_MAX } from './limits.ts'

export interface Token {
  /** 16 hex digits. */
  readonly id: string
  /** 32 bytes, base64url. */
  readonly secret: string
  /** SHA-256 of the CA certificate's DER, in hex. */
  readonly authority: string
}

const TOKEN = /^pacsimile1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})$/

export function formatToken(token: Token): string {
  return `pacsimile1.${token.id}.${token.secret}.${Buffer.from(token.authority, 'hex').toString('base64url')}`
}

/** @throws token-invalid */
export function parseToken(text: string): Token {
  const [, id, secret, authority] = TOKEN.exec(text.trim()) ?? []
  if (id === undefined || secret === undefined || authority === undefined) {
    throw new PacsimileError('token-invalid', 'This is not a token of `pacsimile token create`; was all of it copied?')
  }
  return { id, secret, authority: Buffer.from(authority, 'base64url').toString('hex') }
}

/** The body of POST ENROLL_PATH and RESTORER_ENROLL_PATH. The key to be certified is the one of the TLS client certificate. */
export const ENROLLMENT_REQUEST = z.strictObject({ token: z.string().max(256), name: z.string().max(LABEL_MAX) })

const certificate = z.string().startsWith('-----BEGIN CERTIFICATE-----')

/** Its answer; unknown keys are dropped, since a newer collector may add some. */
export const ENROLLMENT_REPLY = z.object({
  /** Of this agent, PEM. */
  certificate,
  /** The authority, PEM. */
  ca: certificate,
  repository: z.string(),
  agent: z.string(),
  /** The highest epoch that the collector knows of this agent; 0 for none. */
  lastEpoch: z.int().nonnegative(),
})
export type EnrollmentReply = z.output<typeof ENROLLMENT_REPLY>

/** The answer of RESTORER_ENROLL_PATH. */
export const RESTORER_REPLY = z.object({
  /** Of this restorer, PEM. */
  certificate,
  /** The authority, PEM. */
  ca: certificate,
  repository: z.string(),
  restorer: z.string(),
  /** `all`, `AGENT` or `AGENT:VOLUME`. */
  allowed: z.array(z.string()),
  expires: z.iso.datetime(),
})
export type RestorerReply = z.output<typeof RESTORER_REPLY>

/** Its answer when it is refused. */
export const ENROLLMENT_REFUSAL = z.object({ error: z.object({ code: z.string(), message: z.string() }) })
