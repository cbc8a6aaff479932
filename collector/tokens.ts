/**
 * Enrolment tokens: DATA/tokens/ID.json, one small file for each, with or without a running collector.
 *
 * Only the hash of the secret is kept. Invariant: a token is redeemed by removing its file, so of all who try at once, in
 * whatever process, one succeeds, and after a crash nobody can a second time; and it makes what it was made for and nothing else. It
 * prevents two hosts from becoming the same agent by one token, and a copy of the data directory from containing ways in.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { formatToken, type Token } from '../shared/enrollment.ts'
import { PacsimileError } from '../shared/errors.ts'
import { createFileDurably, makeDirectory, readIfPresent, removeFileDurably } from '../shared/files.ts'

const FILE = z.strictObject({
  version: z.literal(1),
  /** SHA-256 of the secret's text, in hex. */
  secret: z.string().regex(/^[0-9a-f]{64}$/),
  expires: z.iso.datetime(),
  /** The only name that it enrols, be it taken or not. */
  agent: z.string().optional(),
  /** It makes a restorer of that name, and no agent. */
  restorer: z.strictObject({ name: z.string(), allowed: z.array(z.string()).min(1), validMs: z.number().positive() }).optional(),
})

/** What a token makes of a restorer: which volumes it may read, and for how long its certificate is valid. */
export interface RestorerTerms {
  readonly name: string
  /** As allowance.ts writes it. */
  readonly allowed: readonly string[]
  readonly validMs: number
}

export interface TokenTerms {
  readonly ttlMs: number
  readonly agent?: string
  readonly restorer?: RestorerTerms
}

function tokensDir(dataDir: string): string {
  return join(dataDir, 'tokens')
}

export function writeToken(dataDir: string, authority: string, terms: TokenTerms, clock: WallClock = systemClock): string {
  const directory = tokensDir(dataDir)
  makeDirectory(directory)
  removeExpired(directory, clock.now())
  const token: Token = { id: randomBytes(8).toString('hex'), secret: randomBytes(32).toString('base64url'), authority }
  const expires = new Date(clock.now() + terms.ttlMs).toISOString()
  const agent = terms.agent === undefined ? {} : { agent: terms.agent }
  const restorer = terms.restorer === undefined ? {} : { restorer: { ...terms.restorer, allowed: [...terms.restorer.allowed] } }
  const file: z.input<typeof FILE> = { version: 1, secret: hash('sha256', token.secret), expires, ...agent, ...restorer }
  createFileDurably(join(directory, `${token.id}.json`), `${JSON.stringify(file)}\n`)
  return formatToken(token)
}

interface Redeemable {
  /** Uses it up. @throws token-invalid when somebody else was faster */
  readonly redeem: () => void
}

export interface RedeemableToken extends Redeemable {
  readonly isBound: boolean
}

/** Checks everything but uses nothing up, so that a refusal for another reason leaves the token good. @throws token-invalid */
export function findToken(dataDir: string, token: Token, agent: string, clock: WallClock = systemClock): RedeemableToken {
  const { found, redeem } = knownToken(dataDir, token, clock)
  if (found.restorer !== undefined)
    throw new PacsimileError('token-invalid', 'The token is for a restorer, not for an agent: `pacsimile restorer enroll` takes it')
  if (found.agent !== undefined && found.agent !== agent) {
    throw new PacsimileError('token-invalid', `The token is for the agent ${found.agent}, not for ${agent}`)
  }
  return { isBound: found.agent !== undefined, redeem }
}

/** The same of one that makes a restorer. @throws token-invalid */
export function findRestorerToken(
  dataDir: string,
  token: Token,
  name: string,
  clock: WallClock = systemClock,
): Redeemable & { readonly terms: RestorerTerms } {
  const { found, redeem } = knownToken(dataDir, token, clock)
  if (found.restorer === undefined)
    throw new PacsimileError('token-invalid', 'The token is for an agent, not for a restorer: `pacsimile agent enroll` takes it')
  if (found.restorer.name !== name)
    throw new PacsimileError('token-invalid', `The token is for the restorer ${found.restorer.name}, not for ${name}`)
  return { terms: found.restorer, redeem }
}

function knownToken(dataDir: string, token: Token, clock: WallClock): Redeemable & { readonly found: z.output<typeof FILE> } {
  const file = join(tokensDir(dataDir), `${token.id}.json`)
  const found = readToken(file)
  if (found === undefined || !timingSafeEqual(Buffer.from(found.secret, 'hex'), hash('sha256', token.secret, 'buffer'))) {
    throw new PacsimileError('token-invalid', 'The token is not known here: it was used before, has expired, or is of another collector')
  }
  if (Date.parse(found.expires) <= clock.now()) {
    removeFileDurably(file)
    throw new PacsimileError('token-invalid', `The token expired at ${found.expires}`)
  }
  return {
    found,
    redeem() {
      if (!removeFileDurably(file)) throw new PacsimileError('token-invalid', 'The token was used by somebody else at the same moment')
    },
  }
}

function removeExpired(directory: string, now: number): void {
  for (const name of readdirSync(directory)) {
    if (!name.endsWith('.json')) continue
    const found = readToken(join(directory, name))
    if (found !== undefined && Date.parse(found.expires) <= now) removeFileDurably(join(directory, name))
  }
}

/** Undefined for none, and for a damaged one: it opens nothing. */
function readToken(file: string): z.output<typeof FILE> | undefined {
  const bytes = readIfPresent(file)
  if (bytes === undefined) return undefined
  try {
    return FILE.parse(JSON.parse(bytes.toString('utf8')))
  } catch {
    return undefined
  }
}
