/**
 * `pacsimile status`: every agent and volume, and how far each is acknowledged and in the replica.
 *
 * What is not known is shown as `?`, never as zero. It prevents an agent that is away from looking as if it had nothing to send.
 */
import type { Argv } from 'yargs'
import { ERRORS } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import { showLocalTime } from '../point.ts'
import type { ScrubStatus } from '../scrub-rounds.ts'
import type { AgentReport, CollectorStatus, VolumeStatus } from '../status.ts'
import { askCollector } from './admin-call.ts'
import { showAge, showBytes, showCount, showDuration, showWhen } from './amounts.ts'
import { sayCopies } from './copy-row.ts'
import { bytesFields, sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { paint, say } from './output.ts'
import { type Column, sayTable } from './table.ts'

const AGENT_COLUMNS: readonly Column[] = [
  { title: 'AGENT' },
  { title: 'LINK' },
  { title: 'HEAD', align: 'right' },
  { title: 'ACKED', align: 'right' },
  { title: 'APPLIED', align: 'right' },
  { title: 'LAG', align: 'right' },
  { title: 'SPOOL', align: 'right' },
  { title: 'CLOCK' },
]
const VOLUME_COLUMNS: readonly Column[] = [
  { title: 'VOLUME' },
  { title: 'STATE' },
  { title: 'MODE' },
  { title: 'GAPS' },
  { title: 'REPLICA' },
  { title: 'SOURCE' },
]
/** Clocks closer than this are as good as equal. */
const CLOCK_OK_MS = 1000

export function statusCommand(yargs: Argv): Argv {
  return yargs.command(
    'status',
    'Agents, volumes, and how far each is acknowledged and replicated',
    (options) => withExamples(jsonOption(dataOption(options)), 'status', 'status --json | jq .agents[].lagMs'),
    async ({ data, json }) => {
      // The collector is of this very release: its answer is of this type.
      const status = (await askCollector(data, 'status', {})) as CollectorStatus
      if (json) sayJson(statusFields(status))
      else saySummary(status)
      if (volumesOf(status).some(({ volume }) => isLost(volume))) process.exitCode = ERRORS['replica-stopped'].exit
    },
  )
}

export function statusFields(status: CollectorStatus): object {
  const volumeFields = (volume: VolumeStatus): object => ({ ...volume, ...bytesFields('root', volume.root) })
  return { ...status, agents: status.agents.map((agent) => ({ ...agent, volumes: agent.volumes.map(volumeFields) })) }
}

function saySummary(status: CollectorStatus): void {
  const up = showDuration(Date.now() - status.startedMs)
  say(`Collector on ${status.listen}, up ${up}, repository ${status.repository.slice(0, 8)} in ${status.dataDir}`)
  if (status.failure !== undefined) say(paint('red', `Nothing can be taken in: ${status.failure}`))
  if (status.rebuilding !== undefined)
    say(
      paint(
        'yellow',
        `The catalog is being made anew from the repository, ${status.rebuilding.percent} % by now: agents are taken in, and the replica, history and restores wait for it`,
      ),
    )
  if (status.damage > 0) say(paint('red', `The repository is damaged in ${showCount(status.damage, 'place')}: run \`pacsimile check\``))
  if (status.scrub !== undefined) say(paint('dim', scrubLine(status.scrub)))
  if (status.copies.length > 0) {
    say()
    sayCopies(status.copies)
  }
  sayRestorers(status.restorers)
  if (status.agents.length === 0) {
    say('No agent is enrolled yet. Make a token with `pacsimile token create`, then `pacsimile agent enroll` on the host.')
    return
  }
  say()
  sayTable(AGENT_COLUMNS, status.agents.map(agentRow))
  const volumes = volumesOf(status)
  if (volumes.length === 0) return
  say()
  sayTable(VOLUME_COLUMNS, volumes.map(volumeRow))
  for (const { agent, volume } of volumes) {
    const name = `${agent}:${volume.name}`
    sayReplica(name, volume)
    if (volume.reason !== '') say(paint('dim', `${name}: ${volume.reason}`))
    if (volume.replicaProblems > 0)
      say(paint('yellow', `${name}: ${showCount(volume.replicaProblems, 'path')} could not be brought into the replica`))
  }
}

/** Those for whom something is to be done. */
function sayRestorers(restorers: CollectorStatus['restorers']): void {
  for (const restorer of restorers) {
    const { name } = restorer
    const renewal = `\`pacsimile restorer token ${name}\` is the way to a new one`
    if (restorer.state === 'damaged') say(paint('red', `restorer ${name}: its file is damaged and it is refused; ${renewal}`))
    else if (restorer.state === 'expired')
      say(
        paint(
          'yellow',
          `restorer ${name}: its certificate ended ${showWhen(restorer.expiresMs)}; ${renewal}, \`restorer revoke ${name}\` gives it up`,
        ),
      )
    else if (restorer.state === 'ending')
      say(paint('yellow', `restorer ${name}: its certificate ends ${showWhen(restorer.expiresMs)}; ${renewal}`))
  }
}

function volumesOf(status: CollectorStatus): { readonly agent: string; readonly volume: VolumeStatus }[] {
  return status.agents.flatMap((agent) => agent.volumes.map((volume) => ({ agent: agent.name, volume })))
}

/** Whether a mass change holds its replica, and somebody has to decide. */
function isLost({ replica }: VolumeStatus): boolean {
  return replica.state === 'paused' && replica.clean !== undefined
}

function sayReplica(name: string, volume: VolumeStatus): void {
  const { state, reason, sinceMs, at, clean, expectedUntilMs, expectedReason, drifts, driftPath } = volume.replica
  if (expectedUntilMs !== undefined)
    say(paint('yellow', `${name}: a mass change is expected until ${showLocalTime(expectedUntilMs)} (${expectedReason})`))
  if (drifts > 0)
    say(paint('yellow', `${name}: others wrote into the replica, ${showCount(drifts, 'time')}: what they wrote is in ${driftPath}`))
  if (state === 'following' || state === 'off') return
  const since = sinceMs === undefined ? '' : ` since ${showAge(sinceMs)}`
  const stands = at === undefined ? '' : `, at seq:${at.epoch}:${at.seq}`
  say(paint(isLost(volume) ? 'red' : 'yellow', `${name}: the replica is ${state}${since}${stands}${reason === '' ? '' : `: ${reason}`}`))
  if (!isLost(volume) || clean === undefined) return
  const point = `seq:${clean.epoch}:${clean.seq}`
  say(`  the last clean point is ${point} (for \`restore --at\` too); the history goes on`)
  say(`  \`pacsimile replica rewind ${name}\` goes back to it, \`pacsimile replica resume ${name}\` applies what came since`)
}

function scrubLine({ startedMs, verifiedBytes, totalBytes, allVerifiedSinceMs, repaired }: ScrubStatus): string {
  const share = totalBytes === 0 ? 100 : Math.floor((verifiedBytes / totalBytes) * 100)
  const round = startedMs > Date.now() ? 'whole' : `${share} % of this round, which began ${showAge(startedMs)}`
  const all = allVerifiedSinceMs === undefined ? 'no round is whole yet' : `the round before began ${showAge(allVerifiedSinceMs)}`
  return `Scrubbed: ${round}; ${all}; ${showCount(repaired, 'file')} repaired`
}

function agentRow(agent: AgentReport): string[] {
  const { name, connected, sinceMs } = agent
  // Connected and without a replica there is no lag; away, nobody knows it.
  const unknown = connected ? '-' : '?'
  return [
    name,
    connected ? `up ${sinceMs === undefined ? '' : showDuration(Date.now() - sinceMs)}` : 'down',
    connected ? String(agent.head) : '?',
    String(agent.acked),
    String(agent.applied),
    agent.lagMs === undefined ? unknown : showDuration(agent.lagMs),
    connected ? showBytes(agent.spoolBytes) : '?',
    showSkew(agent.clockSkewMs),
  ]
}

function showSkew(ms: number | undefined): string {
  if (ms === undefined) return '?'
  if (Math.abs(ms) < CLOCK_OK_MS) return 'ok'
  return `${showDuration(Math.abs(ms))} ${ms > 0 ? 'ahead' : 'behind'}`
}

function volumeRow({ agent, volume }: { readonly agent: string; readonly volume: VolumeStatus }): string[] {
  const gaps =
    volume.gaps === 0 || volume.lastGapMs === undefined ? String(volume.gaps) : `${volume.gaps}, last ${showAge(volume.lastGapMs)}`
  return [`${agent}:${volume.name}`, volume.state, volume.mode, gaps, replicaText(volume), showPath(volume.root)]
}

function replicaText({ replicaPath, replica }: VolumeStatus): string {
  if (replicaPath === undefined) return 'off'
  return replica.state === 'following' ? replicaPath : `${replicaPath} (${replica.state})`
}
