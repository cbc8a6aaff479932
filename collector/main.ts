/**
 * The collector's process edge: configuration and key in, exit status out.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { asPacsimileError, type ErrorCode, PacsimileError } from '../shared/errors.ts'
import { openLog } from '../shared/log.ts'
import { notifySupervisor, stopSignal, watchdogMs } from '../shared/supervisor.ts'
import { collect } from './collector.ts'
import { readCollectorConfig } from './config.ts'
import { openKeys, type RepositorySecret } from './repository/keys.ts'
import { readDescription } from './repository/repository.ts'

/** Failures after which the collector opens everything anew. */
const DISK_FAILURES = new Set<ErrorCode>(['io', 'space'])
const AGAIN_MS = 5000

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
  let isStarted = false
  try {
    for (;;) {
      try {
        await collect({ dataDir: options.dataDir, config, dataKey, log }, signal, () => {
          isStarted = true
          notifySupervisor('READY=1', log)
        })
        log.info('stopped')
        return 0
      } catch (error) {
        const failure = asPacsimileError(error, 'The collector failed')
        log.error(failure.message, {
          code: failure.code,
          advice: failure.advice,
          stack: failure.code === 'internal' ? failure.stack : undefined,
        })
        // A disk that failed or filled under a running collector may come back; what cannot start at all is said at once.
        if (!isStarted || signal.aborted || !DISK_FAILURES.has(failure.code)) return failure.exit
        await pause(AGAIN_MS, signal)
      }
    }
  } finally {
    clearInterval(alive)
    await log.close()
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  // Cut short where the collector is told to stop meanwhile.
  await delay(ms, undefined, { signal }).catch(() => {})
}
