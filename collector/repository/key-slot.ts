/**
 * One key slot: the repository's data key, wrapped by one secret (docs/format.md, "Keys").
 *
 * Invariant: a slot opens only with its secret, in its repository, under its own name and kind, all of which the seal
 * authenticates. Its checksum, which needs no secret, tells a damaged slot from a wrong secret. It prevents an
 * administrator from trying passphrases for a night against a file with a flipped bit.
 */
import { argon2Sync, createCipheriv, createDecipheriv, hash, hkdfSync, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { PacsimileError } from '../../shared/errors.ts'

export const KEY_BYTES = 32
const LABEL = 'pacsimile key slot v1'
const CIPHER = 'aes-256-gcm'
const SALT_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** About 200 ms and 64 MiB for each guess (RFC 9106, section 4, second recommendation, with one lane). */
const ARGON2 = { memoryKiB: 65_536, passes: 3, parallelism: 1 } as const

/** A secret as bytes; `passphrase` is text, the others are 32 random bytes. */
export interface SlotSecret {
  readonly kind: 'passphrase' | 'key-file' | 'recovery'
  readonly bytes: Uint8Array
}

const base64 = (length: number) => z.base64().refine((text) => Buffer.from(text, 'base64').length === length, `not ${length} bytes`)
const salt = base64(SALT_BYTES)

/** The bounds keep a hostile slot from taking all memory or time before anything in it was authenticated. */
const KDF = z.discriminatedUnion('name', [
  z.strictObject({
    name: z.literal('argon2id'),
    salt,
    memoryKiB: z
      .int()
      .min(8)
      .max(1 << 20),
    passes: z.int().min(1).max(64),
    parallelism: z.int().min(1).max(64),
  }),
  z.strictObject({ name: z.literal('hkdf-sha256'), salt }),
])
type Kdf = z.infer<typeof KDF>

const SLOT = z.strictObject({
  version: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{8}$/),
  kind: z.enum(['passphrase', 'key-file', 'recovery']),
  created: z.iso.datetime(),
  kdf: KDF,
  nonce: base64(NONCE_BYTES),
  wrapped: base64(KEY_BYTES + TAG_BYTES),
  checksum: z.string().regex(/^[0-9a-f]{16}$/),
})
export type KeySlot = z.infer<typeof SLOT>

export function sealSlot(repositoryId: string, dataKey: Uint8Array, secret: SlotSecret): KeySlot {
  const id = randomBytes(4).toString('hex')
  const freshSalt = randomBytes(SALT_BYTES).toString('base64')
  const kdf: Kdf =
    secret.kind === 'passphrase' ? { name: 'argon2id', salt: freshSalt, ...ARGON2 } : { name: 'hkdf-sha256', salt: freshSalt }
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, wrappingKey(kdf, secret), nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(sealedNames(repositoryId, id, secret.kind), 'utf8'))
  const wrapped = Buffer.concat([cipher.update(dataKey), cipher.final(), cipher.getAuthTag()])
  const slot = {
    version: 1 as const,
    id,
    kind: secret.kind,
    created: new Date().toISOString(),
    kdf,
    nonce: nonce.toString('base64'),
    wrapped: wrapped.toString('base64'),
  }
  return { ...slot, checksum: checksumOf(repositoryId, slot) }
}

/** The data key, or undefined for another secret than the slot's. */
export function openSlot(repositoryId: string, slot: KeySlot, secret: SlotSecret): Buffer | undefined {
  if (slot.kind !== secret.kind) return undefined
  const wrapped = Buffer.from(slot.wrapped, 'base64')
  const opening = createDecipheriv(CIPHER, wrappingKey(slot.kdf, secret), Buffer.from(slot.nonce, 'base64'), { authTagLength: TAG_BYTES })
  opening.setAAD(Buffer.from(sealedNames(repositoryId, slot.id, slot.kind), 'utf8'))
  opening.setAuthTag(wrapped.subarray(KEY_BYTES))
  const dataKey = opening.update(wrapped.subarray(0, KEY_BYTES))
  try {
    opening.final()
  } catch {
    // The seal does not hold: that is the answer, not a failure.
    return undefined
  }
  return dataKey
}

export function formatSlot(slot: KeySlot): string {
  return `${JSON.stringify(slot, null, 2)}\n`
}

/** @throws format-invalid, format-unknown, damage */
export function parseSlot(text: string, repositoryId: string): KeySlot {
  const parsed = SLOT.safeParse(parseJson(text))
  if (!parsed.success) {
    const reasons = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'the file'}: ${issue.message}`)
    throw new PacsimileError('format-invalid', `Not a key slot: ${reasons.join('; ')}`)
  }
  if (parsed.data.checksum !== checksumOf(repositoryId, parsed.data)) {
    throw new PacsimileError('damage', 'Its checksum does not match: a damaged slot, or one of another repository')
  }
  return parsed.data
}

function parseJson(text: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The schema refuses it, in one voice with every other thing that is not a slot.
    return undefined
  }
  const version: unknown = typeof value === 'object' && value !== null && 'version' in value ? value.version : undefined
  if (typeof version === 'number' && version > 1) throw new PacsimileError('format-unknown', `A key slot of version ${version}`)
  return value
}

function wrappingKey(kdf: Kdf, secret: SlotSecret): Buffer {
  const nonce = Buffer.from(kdf.salt, 'base64')
  if (kdf.name === 'hkdf-sha256') return Buffer.from(hkdfSync('sha256', secret.bytes, nonce, LABEL, KEY_BYTES))
  const { memoryKiB: memory, passes, parallelism } = kdf
  return argon2Sync('argon2id', { message: secret.bytes, nonce, memory, passes, parallelism, tagLength: KEY_BYTES })
}

function sealedNames(repositoryId: string, id: string, kind: SlotSecret['kind']): string {
  return [LABEL, repositoryId, id, kind].join('\0')
}

function checksumOf(repositoryId: string, slot: Omit<KeySlot, 'checksum'>): string {
  const { kdf } = slot
  const cost = kdf.name === 'argon2id' ? [kdf.memoryKiB, kdf.passes, kdf.parallelism] : []
  const fields = [sealedNames(repositoryId, slot.id, slot.kind), slot.created, kdf.name, kdf.salt, ...cost, slot.nonce, slot.wrapped]
  return hash('sha256', fields.join('\0')).slice(0, 16)
}
