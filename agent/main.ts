/**
 * The process edge of `pacsimile agent run`: configuration, log, signals, systemd, exit status.
 *
 * The first SIGTERM or SIGINT drains (what was noticed is captured, journalled and, for a few seconds, delivered), the second
 * ends at once. Invariant: both are as safe as kill -9, which is safe. It prevents a stop from being the one moment at which
 * something can be lost.
 */
import { asPacsimileError } from '../shared/errors.ts'
import { openLog } from '../shared/log.ts'
import { notifySupervisor, stopSignal, watchdogMs } from '../shared/supervisor.ts'
import { Agent } from './agent.ts'
import { readAgentConfig } from './config.ts'
import { choosePriority } from './priority.ts'

/** Runs until it is told to stop. @returns the exit status @throws config-invalid, not-found before it has begun */
export async function runAgent({ stateDir }: { readonly stateDir: string }): Promise<number> {
  const config = readAgentConfig(stateDir)
  const log = openLog('agent', config.logLevel)
  choosePriority(config.priority)
  const stop = stopSignal(log)
  const watchdog = watchdogMs()
  const alive = watchdog === undefined ? undefined : setInterval(() => notifySupervisor('WATCHDOG=1', log), watchdog)
  try {
    log.info('starting', { agent: config.name, collector: config.collector, stateDir, volumes: config.volume.length })
    await new Agent({ stateDir, config, log }).run(stop, () => notifySupervisor('READY=1', log))
    log.info('stopped')
    return 0
  } catch (error) {
    const failure = asPacsimileError(error, 'The agent failed')
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
