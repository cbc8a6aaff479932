/**
 * The agent's process: signals, systemd or our supervisor, memory, exit status.
 *
 * The first SIGTERM or SIGINT drains (what was noticed is captured, journalled and, for a few seconds, delivered), the second
 * ends at once. Invariant: both are as safe as kill -9, which is safe. It prevents a stop from being the one moment at which
 * something can be lost.
 */
import { constants } from 'node:os'
import { asPacsimileError } from '../shared/errors.ts'
import { keepHeapSmall } from '../shared/heap.ts'
import type { Log } from '../shared/log.ts'
import { notifySupervisor, stopSignal, watchdogMs } from '../shared/supervisor.ts'
import { Agent } from './agent.ts'
import type { AgentConfig } from './config.ts'
import { dieWithParent } from './descriptor-calls.ts'
import { DescriptorStore } from './descriptor-store.ts'
import type { AgentRun } from './main.ts'
import { choosePriority } from './priority.ts'
import { SUPERVISED } from './supervise.ts'

/**
 * The memory of this host is the PACS's. Collecting as early as that costs a few percent of capture's time, and a sixth of the main
 * thread's while a hundred thousand paths wait.
 */
const HEAP_GROWING_PERCENT = 25

/** From the first signal handler to the last log line. @returns the exit status */
export async function live({ stateDir, watch }: AgentRun, config: AgentConfig, log: Log): Promise<number> {
  if (process.env[SUPERVISED] !== undefined) dieWithParent(constants.signals.SIGKILL)
  choosePriority(config.priority)
  keepHeapSmall(HEAP_GROWING_PERCENT)
  const stop = stopSignal(log)
  const watchdog = watchdogMs()
  const descriptors = DescriptorStore.fromEnvironment(log)
  const agent = new Agent({ stateDir, config: { ...config, watch: watch ?? config.watch }, log, descriptors })
  const feed = (): void => {
    if (agent.isAlive) notifySupervisor('WATCHDOG=1', log)
  }
  const alive = watchdog === undefined ? undefined : setInterval(feed, watchdog)
  try {
    log.info('starting', { agent: config.name, collector: config.collector, stateDir, volumes: config.volume.length })
    await agent.run(stop, () => notifySupervisor('READY=1', log))
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
  }
}
