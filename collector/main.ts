/**
 * The collector's process edge: configuration and key in, exit status out.
 */
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { openLog } from '../shared/log.ts'
import { notifySupervisor, stopSignal, watchdogMs } from '../shared/supervisor.ts'
import { collect } from './collector.ts'
import { readCollectorConfig } from './config.ts'
import { openKeys, type RepositorySecret } from './repository/keys.ts'
import { readDescription } from './repository/repository.ts'

export interface RunCollectorOptions {
  readonly dataDir: string
  /** Undefined: the key file that the configuration names. */
  readonly secret: RepositorySecret | undefined
}

/** Runs until it is told to stop. @returns the exit status @throws config-invalid, key-missing, key-wrong before it has begun */
export async function runCollector(options: RunCollectorOptions): Promise<number> {
  const config = readCollectorConfig(options.dataDir)
  const secret = options.secret ?? (config.keyFile === undefined ? undefined : ({ kind: 'key-file', file: config.keyFile } as const))
  if (secret === undefined)
    throw new PacsimileError('key-missing', `The repository of ${options.dataDir} was made with a passphrase, and none was given`)
  const dataKey = openKeys(config.repository, readDescription(config.repository).id, secret)
  const log = openLog('collector', config.logLevel)
  const signal = stopSignal(log)
  const watchdog = watchdogMs()
  const alive = watchdog === undefined ? undefined : setInterval(() => notifySupervisor('WATCHDOG=1', log), watchdog)
  try {
    await collect({ dataDir: options.dataDir, config, dataKey, log }, signal, () => notifySupervisor('READY=1', log))
    log.info('stopped')
    return 0
  } catch (error) {
    const failure = asPacsimileError(error, 'The collector failed')
    log.error(failure.message, {
      code: failure.code,
      advice: failure.advice,
      stack: failure.code === 'internal' ? failure.stack : undefined,
    })
    return failure.exit
  } finally {
    clearInterval(alive)
    await log.close()
  }
}
