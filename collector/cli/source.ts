/**
 * Opens the history that a command reads: the running collector's, a bare repository's, or over the network that of another host.
 *
 * Invariant: which of them was read is said whenever it was not asked for by name. It prevents an answer from a
 * repository at rest, or from another host, from being taken for the word of the collector that was meant.
 */
import { join, resolve } from 'node:path'
import { PacsimileError } from '../../shared/errors.ts'
import { termState } from '../certificate-term.ts'
import type { HistorySource } from '../history-source.ts'
import { showWhen } from './amounts.ts'
import { isDefaultData } from './options.ts'
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
  /** https://HOST:PORT */
  readonly collector: string | undefined
  /** Directory of a restorer's certificate. */
  readonly identity: string
}

export interface RepositoryAccess {
  readonly directory: string
  readonly dataKey: Buffer
}

/** With --repository that one, with --collector that one; else the collector of --data, and where none runs, its repository read directly. */
export async function openSource(options: HistoryOptions): Promise<HistorySource> {
  const source = await openChosen(options)
  for (const { file, offset, reason } of source.damage) warn(`the repository is damaged: ${file} at byte ${offset}: ${reason}`)
  return source
}

async function openChosen(options: HistoryOptions): Promise<HistorySource> {
  const { repository, collector } = options
  if (repository !== undefined && collector !== undefined)
    throw new PacsimileError('usage', '--repository and --collector are two places; give one')
  if (collector !== undefined) return openNetwork(options)
  return repository === undefined ? openData(options) : readWhole(await openRepository(options), options)
}

async function openNetwork({ identity, collector }: HistoryOptions): Promise<HistorySource> {
  const [{ TlsHistory }, { readRestorer }] = await Promise.all([import('../tls-history.ts'), import('../restorer-identity.ts')])
  const restorer = readRestorer(resolve(identity), collector)
  const { name, term } = restorer
  const state = termState(term, Date.now())
  const renewal = `a new one: \`pacsimile restorer token ${name}\` at the collector, then here \`pacsimile restorer enroll ${name} --collector ${restorer.collector.url} --token TOKEN\``
  if (state === 'ending') warn(`the certificate of the restorer ${name} ends ${showWhen(term.untilMs)}; ${renewal}`)
  try {
    const history = await TlsHistory.connect(restorer)
    // The collector's clock is the one that counts.
    if (state === 'expired')
      warn(`by the clock of this host the certificate of the restorer ${name} ended ${showWhen(term.untilMs)}; ${renewal}`)
    return history
  } catch (error) {
    if (state !== 'expired' || !(error instanceof PacsimileError) || error.code !== 'not-trusted') throw error
    const ended = `The certificate of the restorer ${name} ended at ${new Date(term.untilMs).toISOString()}, ${showWhen(term.untilMs)}`
    throw new PacsimileError('not-trusted', `${ended}; ${renewal}`, { cause: error })
  }
}

/** On a host that has no collector of its own and is a restorer of another one. */
async function openStoredNetwork(options: HistoryOptions): Promise<HistorySource | undefined> {
  const { isRestorer, readRestorer } = await import('../restorer-identity.ts')
  const directory = resolve(options.identity)
  if (!isDefaultData(options.data) || !isRestorer(directory)) return undefined
  const { name, collector } = readRestorer(directory)
  note(`Reading from ${collector.url} as the restorer ${name}.`)
  return openNetwork(options)
}

async function openData(options: HistoryOptions): Promise<HistorySource> {
  const { RemoteHistory } = await import('../remote-history.ts')
  try {
    return await RemoteHistory.open(join(options.data, 'admin.sock'), () => openedUnasked(options))
  } catch (error) {
    if (!(error instanceof PacsimileError) || error.code !== 'collector-unreachable') throw error
    const access = await openRepository(options).catch((failure: unknown) => {
      if (failure instanceof PacsimileError && failure.code === 'not-found') return undefined
      throw failure
    })
    if (access === undefined) {
      const elsewhere = await openStoredNetwork(options)
      if (elsewhere !== undefined) return elsewhere
      // Where there is no data directory either, the first failure is the one to tell.
      throw error
    }
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
