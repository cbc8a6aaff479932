/**
 * Opens the history that a command reads: the running collector's, or a bare repository's.
 *
 * Invariant: which of the two was read is said whenever it was not asked for by name. It prevents an answer from a
 * repository at rest from being taken for the word of a collector that is up.
 */
import { join, resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
import type { HistorySource } from '../history-source.ts'
import { note, warn } from './output.ts'
import { Progress } from './progress.ts'
import { secretAtHand, secretFor } from './secret.ts'

export interface SourceOptions {
  readonly data: string
  readonly repository: string | undefined
  readonly keyFile: string | undefined
}

export interface HistoryOptions extends SourceOptions {
  /** Whether a bare repository is read from its last checkpoint on. */
  readonly checkpoint: boolean
}

export interface RepositoryAccess {
  readonly directory: string
  readonly dataKey: Buffer
}

/** With --repository that one; else the collector of --data, and where none runs, its repository read directly. */
export async function openSource(options: HistoryOptions): Promise<HistorySource> {
  const source = options.repository === undefined ? await openData(options) : await readWhole(await openRepository(options), options)
  for (const { file, offset, reason } of source.damage) warn(`the repository is damaged: ${file} at byte ${offset}: ${reason}`)
  return source
}

async function openData(options: HistoryOptions): Promise<HistorySource> {
  const { RemoteHistory } = await import('../remote-history.ts')
  try {
    return await RemoteHistory.open(join(options.data, 'admin.sock'), () => openedUnasked(options))
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'collector-unreachable') throw error
    const access = await openRepository(options).catch((failure: unknown) => {
      // Where there is no data directory either, the first failure is the one to tell.
      throw failure instanceof PacsimileError && failure.code === 'not-found' ? error : failure
    })
    note(`No collector runs on ${options.data}; reading its repository directly.`)
    return readWhole(access, options)
  }
}

/** Beside the collector that writes it. Undefined where the key is nowhere to be read: then the collector reads for us. */
async function openedUnasked(options: HistoryOptions): Promise<RepositoryAccess | undefined> {
  try {
    const { directory, id } = await repositoryPlace(options)
    const secret = secretAtHand(directory, options.keyFile)
    if (secret === undefined) return undefined
    const { openKeys } = await import('../repository/keys.ts')
    return { directory, dataKey: openKeys(directory, id, secret) }
  } catch (error) {
    if (error instanceof PacsimileError) return undefined
    throw error
  }
}

async function readWhole({ directory, dataKey }: RepositoryAccess, { checkpoint }: HistoryOptions): Promise<HistorySource> {
  const { OfflineHistory } = await import('../offline-history.ts')
  using progress = new Progress('Reading the repository')
  const onProgress = (records: number): void => progress.count(records, 'records')
  return await OfflineHistory.open(directory, dataKey, { onProgress, isFromCheckpoint: checkpoint })
}

/** The repository's place and its key. @throws not-found, key-missing, key-wrong */
export async function openRepository(options: SourceOptions): Promise<RepositoryAccess> {
  const { directory, id } = await repositoryPlace(options)
  const { openKeys } = await import('../repository/keys.ts')
  return { directory, dataKey: openKeys(directory, id, await secretFor(directory, options.keyFile)) }
}

export interface RepositoryPlace {
  readonly directory: string
  readonly id: string
}

/** @throws not-found, format-invalid, format-unknown */
export async function repositoryPlace(options: Pick<SourceOptions, 'data' | 'repository'>): Promise<RepositoryPlace> {
  const { readDescription } = await import('../repository/repository.ts')
  const directory = options.repository === undefined ? await repositoryOf(options.data) : resolve(options.repository)
  return { directory, id: readDescription(directory).id }
}

async function repositoryOf(data: string): Promise<string> {
  const { readCollectorConfig } = await import('../config.ts')
  try {
    return readCollectorConfig(data).repository
  } catch (error) {
    if (error instanceof PacsimileError && error.code === 'io' && error.details['errno'] !== 'EACCES')
      throw new PacsimileError('not-found', `${data} is no collector's data directory`, { cause: error })
    throw error
  }
}
