/**
 * `pacsimile wait`: returns when every change made before the call is durable and in the replica.
 *
 * Invariant: exit 0 means that it is so; a name that does not exist is an error, not something to wait for. It prevents a
 * script that goes on because it waited for nothing.
 */
import type { Argv } from 'yargs'
import { askCollector, expectVolume } from './admin-call.ts'
import { showDuration } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { say } from './output.ts'
import { parseAgentOrVolume } from './target.ts'

export function waitCommand(yargs: Argv): Argv {
  return yargs.command(
    'wait [agent]',
    'Return when every change made before the call is durable and in the replica',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('agent', { type: 'string', describe: 'AGENT or AGENT:VOLUME; all agents where it is left out' })
          .option('timeout', { type: 'string', describe: 'How long to wait', default: '60s', requiresArg: true }),
        'wait pacs1 && date -u +%FT%TZ    # a moment that is certain to hold everything',
      ),
    async ({ data, json, agent, timeout }) => {
      const timeoutMs = parseDuration(timeout, '--timeout')
      const target = agent === undefined ? { agent: undefined, volume: undefined } : parseAgentOrVolume(agent)
      if (target.volume !== undefined) await expectVolume(data, target.agent, target.volume)
      const started = performance.now()
      const { agents } = (await askCollector(data, 'wait', { ...target, timeoutMs })) as {
        agents: { agent: string; epoch: number; seq: number }[]
      }
      const ms = performance.now() - started
      if (json) sayJson({ agents, seconds: ms / 1000 })
      else
        for (const reached of agents)
          say(`${reached.agent}: durable and in the replica up to seq ${reached.epoch}:${reached.seq} (${showDuration(ms)})`)
    },
  )
}
