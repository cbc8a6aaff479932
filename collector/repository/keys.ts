/**
 * The keys of a repository: one random data key that everything in it is sealed under, wrapped once per secret in
 * `keys/ID.json`.
 *
 * Invariant: the data key is never written in the clear, and a repository is made with two ways in: its passphrase or key
 * file, and a recovery key that is shown once and kept elsewhere. It prevents a forgotten passphrase, or a key file
 * that burnt with its host, from making every copy of the archive unreadable.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { asPacsimileError, PacsimileError, reasonOf } from '../../shared/errors.ts'
import { createFileDurably, makeDirectory, readIfPresent } from '../../shared/files.ts'
import { formatSlot, KEY_BYTES, type KeySlot, openSlot, parseSlot, type SlotSecret, sealSlot } from './key-slot.ts'
import { formatRecoveryKey, parseRecoveryKey } from './recovery-key.ts'

/** What a person or a service holds. */
export type RepositorySecret =
  | { readonly kind: 'passphrase'; readonly passphrase: string }
  | { readonly kind: 'key-file'; readonly file: string }
  | { readonly kind: 'recovery'; readonly recoveryKey: string }

export interface NewKeys {
  readonly dataKey: Buffer
  /** To be shown once and stored nowhere. */
  readonly recoveryKey: string
}

/** @throws already-exists when the repository has keys */
export function createKeys(repositoryDir: string, repositoryId: string, secret: Exclude<RepositorySecret, { kind: 'recovery' }>): NewKeys {
  const directory = join(repositoryDir, 'keys')
  makeDirectory(directory)
  if (slotNames(directory).length > 0) throw new PacsimileError('already-exists', `${directory} holds keys already`)
  const dataKey = randomBytes(KEY_BYTES)
  const recovery = randomBytes(KEY_BYTES)
  for (const wrapping of [slotSecret(secret), { kind: 'recovery', bytes: recovery } as const]) {
    const slot = sealSlot(repositoryId, dataKey, wrapping)
    createFileDurably(join(directory, `${slot.id}.json`), formatSlot(slot))
  }
  return { dataKey, recoveryKey: formatRecoveryKey(recovery) }
}

/** The data key. @throws key-wrong naming slots that are damaged, usage for a mistyped recovery key, key-missing */
export function openKeys(repositoryDir: string, repositoryId: string, secret: RepositorySecret): Buffer {
  const directory = join(repositoryDir, 'keys')
  const held = slotSecret(secret)
  const damaged: string[] = []
  for (const name of slotNames(directory)) {
    const slot = readSlot(join(directory, name), repositoryId)
    if (slot instanceof PacsimileError) damaged.push(`${name} (${reasonOf(slot)})`)
    else if (`${slot.id}.json` !== name) damaged.push(`${name} (it says that it is ${slot.id})`)
    else {
      const dataKey = openSlot(repositoryId, slot, held)
      if (dataKey !== undefined) return dataKey
    }
  }
  const unusable = damaged.length === 0 ? '' : `; unusable slots: ${damaged.join(', ')}`
  throw new PacsimileError('key-wrong', `This ${secret.kind} opens no key slot in ${directory}${unusable}`, { details: { damaged } })
}

/** A damaged slot is a value: another one may still open. */
function readSlot(file: string, repositoryId: string): KeySlot | PacsimileError {
  try {
    return parseSlot(readIfPresent(file)?.toString('utf8') ?? '', repositoryId)
  } catch (error) {
    return asPacsimileError(error, `Reading ${file}`)
  }
}

function slotNames(directory: string): string[] {
  try {
    return readdirSync(directory)
      .filter((name) => /^[0-9a-f]{8}\.json$/.test(name))
      .toSorted()
  } catch (error) {
    throw asPacsimileError(error, `Reading the key slots in ${directory}`)
  }
}

function slotSecret(secret: RepositorySecret): SlotSecret {
  switch (secret.kind) {
    case 'passphrase':
      // One keyboard writes é as one character, another as two.
      return { kind: 'passphrase', bytes: Buffer.from(secret.passphrase.normalize('NFC'), 'utf8') }
    case 'key-file':
      return { kind: 'key-file', bytes: readKeyFile(secret.file) }
    case 'recovery':
      return { kind: 'recovery', bytes: parseRecoveryKey(secret.recoveryKey) }
  }
}

/** @throws key-missing, format-invalid */
export function readKeyFile(file: string): Buffer {
  const bytes = readIfPresent(file)
  if (bytes === undefined) throw new PacsimileError('key-missing', `The key file ${file} does not exist`)
  const [, hex] = /^pacsimile-key-1:([0-9a-f]{64})\s*$/.exec(bytes.toString('latin1')) ?? []
  if (hex === undefined) throw new PacsimileError('format-invalid', `${file} is not a Pacsimile key file`)
  return Buffer.from(hex, 'hex')
}

/** Writes a new random key. @throws already-exists */
export function createKeyFile(file: string): void {
  createFileDurably(file, `pacsimile-key-1:${randomBytes(KEY_BYTES).toString('hex')}\n`)
}
