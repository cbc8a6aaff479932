/**
 * Makes a collector's data directory: authority, certificates, repository, keys, configuration.
 *
 * Everything is built in a directory beside it, DATA.partial, and renamed when it is whole and durable; where DATA exists and
 * is empty (made by a package, or a mount point), it is built inside and `collector.toml` comes last. Invariant: `collector.toml`
 * is there only with all the rest. It prevents a collector that starts with half its keys after a crash, and an `init` that
 * overwrites the keys of an archive that exists.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { DEFAULT_CHUNK_SIZES } from '../shared/chunker.ts'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { makeDirectory, syncDirectory } from '../shared/files.ts'
import { checkedConfig, configFile, createCollectorConfig, DEFAULT_LISTEN } from './config.ts'
import { authorityFingerprint, createIdentity } from './identity.ts'
import { createKeyFile, createKeys, readKeyFile } from './repository/keys.ts'
import { Repository } from './repository/repository.ts'

export interface InitRequest {
  readonly dataDir: string
  /** HOST:PORT */
  readonly listen?: string
  /** One of the two, or neither: then a key file is made in DATA/keys, so that the collector starts unattended. */
  readonly passphrase?: string
  readonly keyFile?: string
}

export interface InitResult {
  /** To be shown once; it is stored nowhere. */
  readonly recoveryKey: string
  readonly keyFile?: string
  readonly repositoryId: string
  /** SHA-256 of the CA certificate, in hex. */
  readonly caFingerprint: string
}

/** Name of the key file that `init` makes, relative to DATA. */
export const OWN_KEY_FILE = join('keys', 'repository.key')
/** What `init` puts into DATA, in no order: to be cleared away when it fails there. */
const MADE_HERE = ['keys', 'repository']

/** @throws already-exists, usage, config-invalid, key-missing, format-invalid, io, space */
export async function initCollector(request: InitRequest): Promise<InitResult> {
  const dataDir = resolve(request.dataDir)
  checkRequest(request)
  const found = entriesOf(dataDir)
  if (found !== undefined && found.length > 0) throw notEmpty(dataDir, found)
  const directory = found === undefined ? join(dirname(dataDir), `${basename(dataDir)}.partial`) : dataDir
  const isBeside = directory !== dataDir
  try {
    // What an earlier init left when it died: it was never a data directory.
    if (isBeside) rmSync(directory, { recursive: true, force: true })
    const result = await build(directory, dataDir, request)
    if (isBeside) {
      renameSync(directory, dataDir)
      syncDirectory(dirname(dataDir))
    }
    return result
  } catch (error) {
    for (const made of isBeside ? [directory] : MADE_HERE.map((name) => join(directory, name)))
      rmSync(made, { recursive: true, force: true })
    throw asPacsimileError(error, `Initialising ${dataDir}`)
  }
}

export function notEmpty(dataDir: string, found: readonly string[]): PacsimileError {
  const why = found.includes(basename(configFile(dataDir)))
    ? 'a collector was initialised there'
    : `it holds ${found.slice(0, 3).join(', ')} but no collector.toml: other files, or an init that did not finish. Empty it by hand if nothing of it is needed`
  return new PacsimileError('already-exists', `${dataDir} is not empty: ${why}`)
}

/** Before anything is written. */
function checkRequest({ passphrase, keyFile, listen = DEFAULT_LISTEN }: InitRequest): void {
  if (passphrase !== undefined && keyFile !== undefined) throw new PacsimileError('usage', 'Give a passphrase or a key file, not both')
  if (passphrase === '') throw new PacsimileError('usage', 'The passphrase is empty')
  if (keyFile !== undefined) readKeyFile(keyFile)
  checkedConfig({ listen })
}

/** `directory` is what will be `dataDir`. */
async function build(directory: string, dataDir: string, request: InitRequest): Promise<InitResult> {
  const repositoryId = randomBytes(16).toString('hex')
  const repositoryDir = join(directory, 'repository')
  makeDirectory(join(directory, 'keys'))
  await createIdentity(directory, repositoryId)
  Repository.create(repositoryDir, { id: repositoryId, chunkSizes: DEFAULT_CHUNK_SIZES })
  const keyFile = keyFileOf(request)
  if (keyFile === OWN_KEY_FILE) createKeyFile(join(directory, OWN_KEY_FILE))
  const secret =
    request.passphrase === undefined
      ? ({ kind: 'key-file', file: resolve(directory, keyFile ?? OWN_KEY_FILE) } as const)
      : ({ kind: 'passphrase', passphrase: request.passphrase } as const)
  const { recoveryKey } = createKeys(repositoryDir, repositoryId, secret)
  const named = keyFile === undefined ? {} : { keyFile }
  createCollectorConfig(directory, { listen: request.listen ?? DEFAULT_LISTEN, ...named })
  const shown = keyFile === undefined ? {} : { keyFile: resolve(dataDir, keyFile) }
  return { recoveryKey, repositoryId, caFingerprint: authorityFingerprint(directory), ...shown }
}

/** As the configuration names it: relative to DATA where it lies inside. */
function keyFileOf({ passphrase, keyFile }: InitRequest): string | undefined {
  if (passphrase !== undefined) return undefined
  return keyFile === undefined ? OWN_KEY_FILE : resolve(keyFile)
}

/** Undefined where the directory does not exist. `lost+found` is no content: DATA may be a filesystem of its own. */
export function entriesOf(directory: string): string[] | undefined {
  try {
    return readdirSync(directory).filter((name) => name !== 'lost+found')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw asPacsimileError(error, `Looking into ${directory}`)
  }
}
