/**
 * Who the collector is to its agents, sealed under the repository's data key: `identity.sealed` in the repository's directory.
 *
 * The authority, the collector's certificate, the agents that are enrolled, and the restorers. It goes into every copy, so that a new
 * collector that is made from one is known to them, and they go on. Invariant: it says what DATA/keys, DATA/agents and DATA/restorers
 * say, a second later at most. It prevents a copy that brings the archive back, but nobody who writes into it or may read it.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { z } from 'zod'
import { asPacsimileError, errnoOf, PacsimileError, reasonOf } from '../shared/errors.ts'
import { makeDirectory, readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Log } from '../shared/log.ts'

export const SEALED_NAME = 'identity.sealed'
const MAGIC = Buffer.from('PcI1', 'latin1')
const NONCE_BYTES = 12
const TAG_BYTES = 16
const CIPHER = 'aes-256-gcm'
const LOOK_MS = 1000
const KEY_FILES = ['ca.key', 'ca.crt', 'server.key', 'server.crt']

const NAMED = z.record(z.string().regex(/^[a-z0-9][a-z0-9._-]*\.json$/), z.string())
const CONTENT = z.object({
  version: z.literal(1),
  keys: z.record(z.enum(KEY_FILES), z.string()),
  /** NAME.json, as docs/format.md has it. */
  agents: NAMED,
  /** The same; absent where there never was one. */
  restorers: NAMED.optional(),
})
type Content = z.output<typeof CONTENT>

export interface SealedIdentityParts {
  readonly dataDir: string
  readonly repository: { readonly id: string; readonly directory: string }
  readonly dataKey: Buffer
  readonly log: Log
}

/** Keeps it up to date, until the signal is given. Never throws. */
export async function keepSealedIdentity(parts: SealedIdentityParts, signal: AbortSignal): Promise<void> {
  let seen = ''
  while (!signal.aborted) {
    try {
      const now = looksOf(parts.dataDir)
      if (now !== seen) {
        sealIdentity(parts)
        seen = now
      }
    } catch (error) {
      const { code, message } = asPacsimileError(error, `Writing ${SEALED_NAME}`)
      parts.log.error('the identity in the repository is not up to date', { code, reason: message })
    }
    await setTimeout(LOOK_MS, undefined, { signal }).catch(() => {})
  }
}

/** Changes whenever a file in these directories is another one. */
function looksOf(dataDir: string): string {
  return ['keys', 'agents', 'restorers']
    .map((name) => statSync(join(dataDir, name), { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n)
    .join()
}

/** Writes it where it says something else, or is not there. */
function sealIdentity({ dataDir, repository, dataKey }: SealedIdentityParts): void {
  const file = join(repository.directory, SEALED_NAME)
  const restorers = texts(dataDir, 'restorers', namedFiles(dataDir, 'restorers'))
  const content: Content = {
    version: 1,
    keys: texts(dataDir, 'keys', KEY_FILES),
    agents: texts(dataDir, 'agents', namedFiles(dataDir, 'agents')),
    ...(Object.keys(restorers).length === 0 ? {} : { restorers }),
  }
  const plain = Buffer.from(JSON.stringify(content))
  const present = readIfPresent(file)
  if (present !== undefined && openedOf(present, repository.id, dataKey)?.equals(plain) === true) return
  writeFileDurably(file, sealed(plain, repository.id, dataKey))
}

function texts(dataDir: string, directory: string, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const bytes = readIfPresent(join(dataDir, directory, name))
      return bytes === undefined ? [] : [[name, bytes.toString('utf8')]]
    }),
  )
}

function namedFiles(dataDir: string, directory: string): string[] {
  try {
    return readdirSync(join(dataDir, directory))
      .filter((name) => /^[a-z0-9][a-z0-9._-]*\.json$/.test(name))
      .toSorted()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw asPacsimileError(error, `Looking into ${dataDir}/${directory}`)
  }
}

function keyOf(dataKey: Buffer): Buffer {
  return createHmac('sha256', dataKey).update('pacsimile identity v1').update('\x01').digest()
}

function sealed(plain: Buffer, repository: string, dataKey: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, keyOf(dataKey), nonce).setAAD(Buffer.concat([MAGIC, Buffer.from(repository, 'hex')]))
  return Buffer.concat([MAGIC, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

/** Undefined where it does not open. */
function openedOf(bytes: Buffer, repository: string, dataKey: Buffer): Buffer | undefined {
  if (bytes.length < MAGIC.length + NONCE_BYTES + TAG_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  const nonce = bytes.subarray(MAGIC.length, MAGIC.length + NONCE_BYTES)
  const decipher = createDecipheriv(CIPHER, keyOf(dataKey), nonce)
    .setAAD(Buffer.concat([MAGIC, Buffer.from(repository, 'hex')]))
    .setAuthTag(bytes.subarray(-TAG_BYTES))
  try {
    return Buffer.concat([decipher.update(bytes.subarray(MAGIC.length + NONCE_BYTES, -TAG_BYTES)), decipher.final()])
  } catch {
    // Damaged, or of another repository: the caller says what follows from that.
    return undefined
  }
}

/** By their names, what a repository has of DATA/keys, as text; undefined where it has no identity. @throws damage, format-invalid */
export function sealedKeys({ id, directory, dataKey }: { id: string; directory: string; dataKey: Buffer }): Content['keys'] | undefined {
  const bytes = readIfPresent(join(directory, SEALED_NAME))
  if (bytes === undefined) return undefined
  const plain = openedOf(bytes, id, dataKey)
  if (plain === undefined) throw new PacsimileError('damage', `${SEALED_NAME} does not open with the key of this repository`)
  return contentOf(plain).keys
}

/** Puts what a repository has into a data directory that is being made. @returns false where there is none @throws damage, format-invalid */
export function restoreIdentity({ dataDir, repository, dataKey }: Omit<SealedIdentityParts, 'log'>): boolean {
  const bytes = readIfPresent(join(repository.directory, SEALED_NAME))
  if (bytes === undefined) return false
  const plain = openedOf(bytes, repository.id, dataKey)
  if (plain === undefined) throw new PacsimileError('damage', `${SEALED_NAME} does not open with the key of this repository`)
  const content = contentOf(plain)
  for (const [directory, files] of Object.entries({ keys: content.keys, agents: content.agents, restorers: content.restorers ?? {} })) {
    makeDirectory(join(dataDir, directory))
    for (const [name, text] of Object.entries(files)) writeFileDurably(join(dataDir, directory, name), text)
  }
  return true
}

function contentOf(plain: Buffer): Content {
  try {
    return CONTENT.parse(JSON.parse(plain.toString('utf8')))
  } catch (error) {
    throw new PacsimileError('format-invalid', `${SEALED_NAME} holds no identity: ${reasonOf(error)}`, { cause: error })
  }
}
