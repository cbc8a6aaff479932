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
import { basename, dirname, join } from 'node:path'
import { asPacsimileError, PacsimileError, reasonOf } from '../../shared/errors.ts'
import { createFileDurably, isPresent, makeDirectory, readIfPresent, removeFileDurably, removeTemporaries } from '../../shared/files.ts'
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
  return openWith(repositoryDir, repositoryId, secret).dataKey
}

/** A slot as it is found; no secret is needed to look. */
export interface FoundSlot {
  /** As its file is named. */
  readonly id: string
  /** Undefined where it is damaged. */
  readonly slot: KeySlot | undefined
  /** Why it opens with nothing; '' where it is whole. */
  readonly damage: string
}

/** In the order of their ids. @throws io */
export function findSlots(repositoryDir: string, repositoryId: string): FoundSlot[] {
  const directory = join(repositoryDir, 'keys')
  return slotNames(directory).map((name): FoundSlot => {
    const id = name.slice(0, -'.json'.length)
    try {
      const slot = parseSlot(readIfPresent(join(directory, name))?.toString('utf8') ?? '', repositoryId)
      return slot.id === id ? { id, slot, damage: '' } : { id, slot: undefined, damage: `it says that it is ${slot.id}` }
    } catch (error) {
      return { id, slot: undefined, damage: reasonOf(asPacsimileError(error, `Reading ${name}`)) }
    }
  })
}

/**
 * Lets another secret open the repository too; what it holds is not written again.
 * @returns the new slot's id @throws as `openKeys`; already-exists where the secret opens it already
 */
export function addKey(repositoryDir: string, repositoryId: string, opening: RepositorySecret, added: RepositorySecret): string {
  const slot = newSlot(repositoryDir, repositoryId, opening, slotSecret(added))
  keepSlot(repositoryDir, slot)
  return slot.id
}

export interface NewRecoveryKey {
  readonly id: string
  /** To be shown once and stored nowhere. */
  readonly recoveryKey: string
}

/**
 * The same with a new recovery key, which `show` shows, once, before it opens anything: a slot for a key that nobody has seen would
 * count as a way in, and the last key that somebody has could be removed.
 */
export async function addRecoveryKey(
  repositoryDir: string,
  repositoryId: string,
  opening: RepositorySecret,
  show: (added: NewRecoveryKey) => Promise<void>,
): Promise<void> {
  const bytes = randomBytes(KEY_BYTES)
  const slot = newSlot(repositoryDir, repositoryId, opening, { kind: 'recovery', bytes })
  await show({ id: slot.id, recoveryKey: formatRecoveryKey(bytes) })
  try {
    keepSlot(repositoryDir, slot)
  } catch (error) {
    const { code, message } = asPacsimileError(error, 'Adding a recovery key')
    throw new PacsimileError(code, `${message}. The recovery key that was shown opens nothing, unless \`keys list\` has slot ${slot.id}`, {
      cause: error,
    })
  }
}

/** A slot that is nowhere yet. */
function newSlot(repositoryDir: string, repositoryId: string, opening: RepositorySecret, added: SlotSecret): KeySlot {
  const { dataKey } = openWith(repositoryDir, repositoryId, opening)
  removeTemporaries(join(repositoryDir, 'keys'))
  const same = findSlots(repositoryDir, repositoryId).find(({ slot }) => slot !== undefined && openSlot(repositoryId, slot, added))
  if (same !== undefined) throw new PacsimileError('already-exists', `This ${added.kind} opens slot ${same.id} already`)
  return sealSlot(repositoryId, dataKey, added)
}

function keepSlot(repositoryDir: string, slot: KeySlot): void {
  createFileDurably(join(repositoryDir, 'keys', `${slot.id}.json`), formatSlot(slot))
}

/**
 * Ends what a slot's secret opens, in this place of the repository: older copies of the slot still open. The last ways in are
 * kept: one by passphrase or key file, one by recovery key, and the one that was given.
 * @throws as `openKeys`; not-found, usage where it is to be kept
 */
export function removeKey(repositoryDir: string, repositoryId: string, opening: RepositorySecret, id: string): void {
  const { slot: opened } = openWith(repositoryDir, repositoryId, opening)
  // A slot that was being made when its command was killed opens with the same secret, under whatever name.
  removeTemporaries(join(repositoryDir, 'keys'))
  const slots = findSlots(repositoryDir, repositoryId)
  const removed = slots.find((found) => found.id === id)
  if (removed === undefined)
    throw new PacsimileError('not-found', `There is no key slot ${id}; there are ${slots.map((found) => found.id).join(', ')}`)
  if (id === opened.id)
    throw new PacsimileError('usage', `Slot ${id} is the one that this ${opening.kind} opens: remove it with another key`)
  const isRecovery = removed.slot?.kind === 'recovery'
  const isLast =
    removed.slot !== undefined &&
    !slots.some((other) => other.id !== id && other.slot !== undefined && (other.slot.kind === 'recovery') === isRecovery)
  if (isLast)
    throw new PacsimileError(
      'usage',
      `Slot ${id} is the last ${isRecovery ? 'recovery key' : 'passphrase or key file'}: add another one first`,
    )
  removeFileDurably(join(repositoryDir, 'keys', `${id}.json`))
}

function openWith(
  repositoryDir: string,
  repositoryId: string,
  secret: RepositorySecret,
): { readonly dataKey: Buffer; readonly slot: KeySlot } {
  const held = slotSecret(secret)
  const damaged: string[] = []
  for (const { id, slot, damage } of findSlots(repositoryDir, repositoryId)) {
    if (slot === undefined) {
      damaged.push(`${id}.json (${damage})`)
      continue
    }
    const dataKey = openSlot(repositoryId, slot, held)
    if (dataKey !== undefined) return { dataKey, slot }
  }
  const unusable = damaged.length === 0 ? '' : `; unusable slots: ${damaged.join(', ')}`
  throw new PacsimileError('key-wrong', `This ${secret.kind} opens no key slot in ${join(repositoryDir, 'keys')}${unusable}`, {
    details: { damaged },
  })
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

/** Makes a key file where there is none, and leaves nothing of one that was being made. @throws io, space */
export function ensureKeyFile(file: string): void {
  if (isPresent(dirname(file))) removeTemporaries(dirname(file), basename(file))
  if (!isPresent(file)) createKeyFile(file)
}

/** Writes a new random key. @throws already-exists */
export function createKeyFile(file: string): void {
  createFileDurably(file, `pacsimile-key-1:${randomBytes(KEY_BYTES).toString('hex')}\n`)
}
