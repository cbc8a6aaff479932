/**
 * The process edge of `pacsimile agent run`: the supervisor where there is no systemd, the agent itself otherwise.
 *
 * Invariant: the supervisor's process never loads the agent. It prevents the smaller of the two, which has to survive the other,
 * from needing as much memory.
 */
import { openLog } from '../shared/log.ts'
import { readAgentConfig } from './config.ts'
import { AgentSupervisor } from './supervise.ts'
import type { WatchChoice } from './watch/watch-choice.ts'

export interface AgentRun {
  readonly stateDir: string
  /** In place of what the configuration says. */
  readonly watch: WatchChoice | undefined
  /** What this process was started with, to start the agent with again. */
  readonly args: readonly string[]
}

/** Runs until it is told to stop. @returns the exit status @throws config-invalid, not-found before it has begun */
export async function runAgent(run: AgentRun): Promise<number> {
  const config = readAgentConfig(run.stateDir)
  const log = openLog('agent', config.logLevel)
  try {
    // systemd keeps descriptors and starts again by itself; without it a process of ours does.
    if (process.env['NOTIFY_SOCKET'] === undefined) return await new AgentSupervisor(log, run.args).run()
    const { live } = await import('./live.ts')
    return await live(run, config, log)
  } finally {
    await log.close()
  }
}
