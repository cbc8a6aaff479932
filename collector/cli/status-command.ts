/** `pacsimile status`, `wait`, `window`: how things stand. */
import { join } from 'node:path'
import type { Argv } from 'yargs'
import { millisecondsOf } from '../../shared/clock.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import { showLocalTime, showMoment } from '../point.ts'
import type { AgentReport, CollectorStatus, VolumeStatus } from '../status.ts'
import { dataOption, jsonOption, sourceOptions } from './options.ts'
import { paint, say, sayJson, sayTable, showBytes, showCount, showDuration, warn } from './output.ts'
import { openSource } from './source.ts'
import { parseAgentOrVolume, parseDuration, parseTarget } from './target.ts'

async function ask(data: string, name: string, body: object): Promise<unknown> {
  const { callLocal } = await import('../../shared/local-api.ts')
  return callLocal(join(data, 'admin.sock'), name, body, { unreachable: 'collector-unreachable' })
}

export function statusCommand(yargs: Argv): Argv {
  return yargs.command(
    'status',
    'Agents, volumes, and how far each is acknowledged and replicated',
    (options) => jsonOption(dataOption(options)),
    async ({ data, json }) => {
      // The collector is of this very release: its answer is of this type.
      const status = (await ask(data, 'status', {})) as CollectorStatus
      if (json) sayJson(status)
      else saySummary(status)
    },
  )
}

function saySummary(status: CollectorStatus): void {
  say(
    `Collector on ${status.listen}, up ${showDuration(Date.now() - status.startedMs)}, repository ${status.repository.slice(0, 8)} in ${status.dataDir}`,
  )
  if (status.failure !== undefined) say(paint('red', `Nothing can be taken in: ${status.failure}`))
  if (status.damage > 0) say(paint('red', `The repository is damaged in ${showCount(status.damage, 'place')}: run \`pacsimile check\``))
  if (status.agents.length === 0) {
    say('No agent is enrolled yet. Make a token with `pacsimile token create`, then `pacsimile agent enroll` on the host.')
    return
  }
  say()
  sayTable(
    [
      { title: 'AGENT' },
      { title: 'LINK' },
      { title: 'HEAD', align: 'right' },
      { title: 'ACKED', align: 'right' },
      { title: 'APPLIED', align: 'right' },
      { title: 'LAG', align: 'right' },
      { title: 'SPOOL', align: 'right' },
      { title: 'CLOCK' },
    ],
    status.agents.map(agentRow),
  )
  say()
  const volumes = status.agents.flatMap((agent) => agent.volumes.map((volume) => ({ agent, volume })))
  sayTable(
    [
      { title: 'VOLUME' },
      { title: 'STATE' },
      { title: 'MODE' },
      { title: 'GAPS', align: 'right' },
      { title: 'REPLICA' },
      { title: 'SOURCE' },
    ],
    volumes.map(volumeRow),
  )
  for (const { agent, volume } of volumes) {
    if (volume.reason !== '') say(`${agent.name}:${volume.name}: ${volume.reason}`)
    if (volume.replicaProblems > 0)
      say(
        paint('yellow', `${agent.name}:${volume.name}: ${showCount(volume.replicaProblems, 'path')} could not be brought into the replica`),
      )
  }
}

function agentRow(agent: AgentReport): string[] {
  const link = agent.connected && agent.sinceMs !== undefined ? `up ${showDuration(Date.now() - agent.sinceMs)}` : 'down'
  const skew =
    agent.clockSkewMs === undefined
      ? '?'
      : Math.abs(agent.clockSkewMs) < 1000
        ? 'ok'
        : `${agent.clockSkewMs > 0 ? '+' : '-'}${showDuration(Math.abs(agent.clockSkewMs))}`
  const head = agent.connected ? String(agent.head) : '?'
  return [
    agent.name,
    link,
    head,
    String(agent.acked),
    String(agent.applied),
    agent.lagMs === undefined ? '?' : showDuration(agent.lagMs),
    showBytes(agent.spoolBytes),
    skew,
  ]
}

function volumeRow({ agent, volume }: { agent: AgentReport; volume: VolumeStatus }): string[] {
  const gaps =
    volume.gaps === 0 || volume.lastGapMs === undefined ? '0' : `${volume.gaps} (last ${showDuration(Date.now() - volume.lastGapMs)} ago)`
  return [`${agent.name}:${volume.name}`, volume.state, volume.mode, gaps, volume.replicaPath ?? 'off', showPath(volume.root)]
}

export function waitCommand(yargs: Argv): Argv {
  return yargs.command(
    'wait [agent]',
    'Return when every change made before the call is durable and in the replica',
    (options) =>
      jsonOption(dataOption(options))
        .positional('agent', { type: 'string', describe: 'AGENT or AGENT:VOLUME; all agents where it is left out' })
        .option('timeout', { type: 'string', describe: 'How long to wait', default: '60s', requiresArg: true }),
    async ({ data, json, agent, timeout }) => {
      const target = agent === undefined ? { agent: undefined, volume: undefined } : parseAgentOrVolume(agent)
      const started = performance.now()
      const answer = (await ask(data, 'wait', { ...target, timeoutMs: parseDuration(timeout, '--timeout') })) as {
        agents: { agent: string; epoch: number; seq: number }[]
      }
      const ms = performance.now() - started
      if (json) sayJson({ ...answer, seconds: ms / 1000 })
      else
        for (const reached of answer.agents)
          say(`${reached.agent}: durable and in the replica up to seq ${reached.seq} (${showDuration(ms)})`)
    },
  )
}

export function windowCommand(yargs: Argv): Argv {
  return yargs.command(
    'window <target>',
    'What can be restored of a volume: from when, to when, with which gaps',
    (options) => jsonOption(sourceOptions(options)).positional('target', { type: 'string', demandOption: true, describe: 'AGENT:VOLUME' }),
    async ({ data, repository, keyFile, json, target }) => {
      const { agent, volume, path } = parseTarget(target)
      if (path !== '') throw new PacsimileError('usage', 'A window is of a whole volume: AGENT:VOLUME')
      await using source = await openSource({ data, repository, keyFile })
      const window = await source.window(agent, volume)
      const ms = millisecondsOf
      if (json) {
        const span = (part: { from: typeof window.until; until: typeof window.until }): object => ({
          from: new Date(ms(part.from)).toISOString(),
          until: new Date(ms(part.until)).toISOString(),
        })
        sayJson({
          agent,
          volume,
          root: showPath(window.root),
          mode: window.mode,
          from: window.from === undefined ? null : new Date(ms(window.from)).toISOString(),
          to: new Date(ms(window.until)).toISOString(),
          head: window.head,
          gaps: window.gaps.map((gap) => ({ ...span(gap), cause: gap.cause })),
          coverage: window.coverage.map((part) => ({ ...span(part), mode: part.mode })),
        })
        return
      }
      say(`${agent}:${volume}, ${showPath(window.root)} on the agent's host, watched ${window.mode}`)
      if (window.from === undefined) warn('the first full scan is not done yet: restored states may lack files')
      else say(`from  ${showMoment(ms(window.from))}`)
      say(`to    ${showMoment(ms(window.until))}, seq ${window.head.epoch}:${window.head.seq}`)
      if (window.mode === 'best-effort')
        say('Between scans a version that came and went may be missing; the state at each scan is verified.')
      say(window.gaps.length === 0 ? 'no gaps' : showCount(window.gaps.length, 'gap'))
      if (window.gaps.length > 0)
        sayTable(
          [{ title: 'FROM' }, { title: 'TO' }, { title: 'CAUSE' }],
          window.gaps.map((gap) => [showLocalTime(ms(gap.from)), showLocalTime(ms(gap.until)), gap.cause]),
        )
    },
  )
}
