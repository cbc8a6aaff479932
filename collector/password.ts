/**
 * The password of a restorer, for clients that know nothing of certificates: made here, shown once, kept as a hash.
 *
 * Nobody chooses it: 160 random bits cannot be guessed. Invariant: what is stored opens nothing. It prevents a copy of the data directory
 * from being a way in, and a password that somebody also uses elsewhere.
 */
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'

/** scrypt (RFC 7914) with N = 2^15, r = 8, p = 1: 32 MiB and some 60 ms. */
const COST = { N: 1 << 15, r: 8, p: 1, maxmem: 64 << 20 } as const
const HASH_BYTES = 32
const SALT_BYTES = 16
const SECRET_BYTES = 20
/** Without letters and digits that are taken for each other (Crockford). */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'
const GROUP = 8

export const PASSWORD_HASH = z.strictObject({
  kind: z.literal('scrypt'),
  /** Hex. */
  salt: z.string().regex(/^[0-9a-f]{32}$/),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
})
export type PasswordHash = z.output<typeof PASSWORD_HASH>

/** Four groups of eight letters and digits. */
export function newPassword(): string {
  const bits = [...randomBytes(SECRET_BYTES)].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  const letters = (bits.match(/.{5}/g) ?? []).map((five) => ALPHABET[Number.parseInt(five, 2)]).join('')
  return (letters.match(new RegExp(`.{${GROUP}}`, 'g')) ?? []).join('-')
}

export async function hashPassword(password: string): Promise<PasswordHash> {
  const salt = randomBytes(SALT_BYTES)
  return { kind: 'scrypt', salt: salt.toString('hex'), hash: (await hashOf(password, salt)).toString('hex') }
}

export async function isPassword(password: string, { salt, hash }: PasswordHash): Promise<boolean> {
  return timingSafeEqual(await hashOf(password, Buffer.from(salt, 'hex')), Buffer.from(hash, 'hex'))
}

function hashOf(password: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, salt, HASH_BYTES, COST, (error, key) => (error === null ? resolve(key) : reject(error)))
  })
}
