/**
 * The process edge of `pacsimile agent run`: configuration, log, signals, systemd, exit status.
 *
 * The first SIGTERM or SIGINT drains (what was noticed is captured, journalled and, for a few seconds, delivered), the second
 * ends at once. Invariant: both are as safe as kill -9, which is safe. It prevents a stop from being the one moment at which
 * something can be lost.
 */
import { constants } from 'node:os'
import { asPacsimileError } from '../shared/errors.ts'
import { type Log, openLog } from '../shared/log.ts'
import { notifySupervisor, stopSignal, watchdogMs } from '../shared/supervisor.ts'
import { Agent } from './agent.ts'
import { type AgentConfig, readAgentConfig } from './config.ts'
import { dieWithParent } from './descriptor-calls.ts'
import { DescriptorStore } from './descriptor-store.ts'
import { AgentSupervisor, SUPERVISED } from './supervise.ts'
import type { WatchChoice } from './watch/watch-choice.ts'

export interface AgentRun {
  readonly stateDir: string
  /** In place of what the configuration says. */
  readonly watch: WatchChoice | undefined
  /** What this process was started with, to start the agent with again. */
  readonly args: readonly string[]
}

import { choosePriority } from './priority.ts'

/** Runs until it is told to stop. @returns the exit status @throws config-invalid, not-found before it has begun */
export async function runAgent(run: AgentRun): Promise<number> {
  const config = readAgentConfig(run.stateDir)
  const log = openLog('agent', config.logLevel)
  try {
    // systemd keeps descriptors and starts again by itself; without it a process of ours does.
    return process.env['NOTIFY_SOCKET'] === undefined ? await new AgentSupervisor(log, run.args).run() : await live(run, config, log)
  } finally {
    await log.close()
  }
}

async function live({ stateDir, watch }: AgentRun, config: AgentConfig, log: Log): Promise<number> {
  if (process.env[SUPERVISED] !== undefined) dieWithParent(constants.signals.SIGKILL)
  choosePriority(config.priority)
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
