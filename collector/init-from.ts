/**
 * Makes a collector's data directory from a copy of a repository: the one that kept it is lost, or is to be replaced.
 *
 * Order: the key is proven to open it; the copy is taken over, and closed against the old writer; every file is fetched, each under another
 * name until it was verified; identity, definition and configuration come last, as in `init`. What was fetched stays when it is
 * killed, and the same command goes on there, until the mark that says so is removed, which is last of all. Invariant: `collector.toml` is
 * there only with all the rest. It prevents a collector that starts with half a history and calls it the whole.
 */
import { existsSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { createFileDurably, makeDirectory, readIfPresent, removeFileDurably, syncDirectory, writeFileDurably } from '../shared/files.ts'
import type { Damage } from './catalog.ts'
import { checkedConfig, configFile, createCollectorConfig } from './config.ts'
import { addDefinition, type CopyDefinition, instanceOf, type NamedDefinition, openCopy } from './copy-definition.ts'
import { type FetchProgress, fetchFiles } from './copy-fetch.ts'
import { closeOff } from './copy-takeover.ts'
import { authorityFingerprint, createIdentity } from './identity.ts'
import { entriesOf, notEmpty, OWN_KEY_FILE } from './init.ts'
import { type Copy, DESCRIPTION_NAME, KEYS_PREFIX } from './repository/copy.ts'
import { Lease } from './repository/copy-lease.ts'
import { addKey, ensureKeyFile, openKeys, type RepositorySecret } from './repository/keys.ts'
import { readDescription } from './repository/repository.ts'
import { restoreIdentity, SEALED_NAME } from './sealed-identity.ts'

export interface InitFromRequest {
  readonly dataDir: string
  readonly listen: string
  readonly from: NamedDefinition
  /** Also where the old writer may be at work still. */
  readonly takesOver: boolean
  /** Asked for when the key slots are there: their directory is given. */
  readonly secret: (repositoryDirectory: string) => Promise<RepositorySecret>
  readonly onProgress?: (progress: FetchProgress) => void
}

export interface InitFromResult {
  readonly repositoryId: string
  readonly caFingerprint: string
  /** Opens the repository at start; absent where a passphrase does. */
  readonly keyFile?: string
  /** Agents go on as they are; else each must enrol again. */
  readonly hasIdentity: boolean
  readonly files: number
  readonly bytes: number
  /** What was damaged in the copy, and could not be repaired. */
  readonly damage: readonly Damage[]
}

/** Stands in a directory that is being made, and says from what. */
const MARK = 'from.json'
const MARK_SHAPE = z.object({ url: z.string(), isClosed: z.boolean() })

/** @throws already-exists, not-found, fenced, key-wrong, key-missing, config-invalid, io, space */
export async function initFrom(request: InitFromRequest): Promise<InitFromResult> {
  checkedConfig({ listen: request.listen })
  const dataDir = resolve(request.dataDir)
  const { directory, isClosed } = begin(dataDir, request.from.definition)
  try {
    const result = await build(directory, dataDir, isClosed, request)
    if (directory !== dataDir) {
      renameSync(directory, dataDir)
      syncDirectory(dirname(dataDir))
    }
    removeFileDurably(join(dataDir, MARK))
    return result
  } catch (error) {
    throw asPacsimileError(error, `Making ${dataDir} from ${request.from.definition.url}`)
  }
}

/** Where it is built: beside what will be DATA, or in it where it exists; what an earlier call has left there is gone on with. */
function begin(dataDir: string, { url }: CopyDefinition): { readonly directory: string; readonly isClosed: boolean } {
  const found = entriesOf(dataDir)
  const directory = found === undefined ? join(dirname(dataDir), `${basename(dataDir)}.partial`) : dataDir
  // A collector that has run there is none that is being made.
  if (found?.includes('catalog') === true) throw notEmpty(dataDir, found)
  const mark = markIn(directory)
  if (mark !== undefined) {
    if (mark.url !== url)
      throw new PacsimileError('already-exists', `${directory} was begun from ${mark.url}; empty it by hand to begin anew`)
    // It was killed between its last steps. The configuration is the one that is asked for now.
    removeFileDurably(configFile(directory))
    return { directory, isClosed: mark.isClosed }
  }
  if (found !== undefined && found.length > 0) throw notEmpty(dataDir, found)
  // What an earlier init left when it died: it was never a data directory.
  if (found === undefined) rmSync(directory, { recursive: true, force: true })
  makeDirectory(directory)
  createFileDurably(join(directory, MARK), JSON.stringify({ url, isClosed: false }))
  return { directory, isClosed: false }
}

function markIn(directory: string): z.output<typeof MARK_SHAPE> | undefined {
  const bytes = readIfPresent(join(directory, MARK))
  return bytes === undefined ? undefined : MARK_SHAPE.parse(JSON.parse(bytes.toString('utf8')))
}

async function build(directory: string, dataDir: string, isClosed: boolean, request: InitFromRequest): Promise<InitFromResult> {
  const { definition } = request.from
  await using copy = await openCopy(definition, new AbortController().signal)
  const repositoryDirectory = join(directory, 'repository')
  await fetchSmall(copy, repositoryDirectory)
  const { id } = readDescription(repositoryDirectory)
  const secret = await request.secret(repositoryDirectory)
  const dataKey = openKeys(repositoryDirectory, id, secret)

  await copy.prove?.()
  const writer = { repository: id, instance: instanceOf(directory) }
  // Another one may have taken it over since.
  const isOurs = isClosed && (await Lease.isHeld(copy, writer))
  await Lease.takeOver(copy, writer, request.takesOver)
  if (!isOurs) await closeOff(copy, id, dataKey)
  writeFileDurably(join(directory, MARK), JSON.stringify({ url: definition.url, isClosed: true }))
  // The old one may have enrolled an agent, or changed a slot, until then.
  await fetchSmall(copy, repositoryDirectory)

  const fetched = await fetchFiles(copy, { id, directory: repositoryDirectory }, dataKey, request.onProgress)
  const hasIdentity = restoreIdentity({ dataDir: directory, repository: { id, directory: repositoryDirectory }, dataKey })
  if (!hasIdentity) await createIdentity(directory, id)
  const keyFile = keyFileFor(directory, repositoryDirectory, id, secret)
  if (!existsSync(join(directory, 'copies', `${request.from.name}.json`))) addDefinition(directory, request.from)
  createCollectorConfig(directory, { listen: request.listen, ...(keyFile === undefined ? {} : { keyFile }) })
  const shown = keyFile === undefined ? {} : { keyFile: resolve(dataDir, keyFile) }
  return { repositoryId: id, caFingerprint: authorityFingerprint(directory), hasIdentity, ...fetched, ...shown }
}

/** What makes it a repository, its key slots, and the identity. */
async function fetchSmall(copy: Copy, directory: string): Promise<void> {
  const description = await copy.find(DESCRIPTION_NAME)
  if (description === undefined)
    throw new PacsimileError('not-found', `There is no copy of a repository in ${copy.url}: it has no ${DESCRIPTION_NAME}`)
  for (const below of ['', 'keys', 'packs', 'segments']) makeDirectory(join(directory, below))
  writeFileDurably(join(directory, DESCRIPTION_NAME), description.bytes, 0o644)
  for await (const { name } of copy.list(KEYS_PREFIX)) {
    const slot = await copy.find(name)
    if (/^keys\/[0-9a-f]{8}\.json$/.test(name) && slot !== undefined) writeFileDurably(join(directory, name), slot.bytes)
  }
  const identity = await copy.find(SEALED_NAME)
  if (identity !== undefined) writeFileDurably(join(directory, SEALED_NAME), identity.bytes)
}

/** As the configuration names it. A recovery key opens no collector at its start: a key file is made, and added to the slots. */
function keyFileFor(directory: string, repositoryDirectory: string, id: string, secret: RepositorySecret): string | undefined {
  if (secret.kind === 'passphrase') return undefined
  const file = join(directory, OWN_KEY_FILE)
  if (secret.kind === 'key-file') return secret.file === file ? OWN_KEY_FILE : secret.file
  ensureKeyFile(file)
  try {
    addKey(repositoryDirectory, id, secret, { kind: 'key-file', file })
  } catch (error) {
    // By the call before this one.
    if (!(error instanceof PacsimileError) || error.code !== 'already-exists') throw error
  }
  return OWN_KEY_FILE
}
