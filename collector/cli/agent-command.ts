/**
 * `pacsimile agent enroll`, `agent run`, `agent status`, `agent scan`, `agent mark`: the protected host's side.
 *
 * `status` shows what the agent itself knows, also while no collector can be reached. It prevents an engineer at the
 * storage host from having to ask another machine whether this one is protected.
 */
import { join, resolve } from 'node:path'
import type { Argv } from 'yargs'
import type { JournalLagSummary } from '../../agent/journal-lag.ts'
import type { AgentMark, AgentScanReport, AgentStatus, AgentVolumeStatus } from '../../agent/status.ts'
import { WATCH_CHOICES } from '../../agent/watch/watch-choice.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import { showMoment } from '../point.ts'
import { showAge, showBytes, showCount, showDuration } from './amounts.ts'
import { asUsage } from './command-error.ts'
import { isoTime, sayJson } from './json.ts'
import { jsonOption, stateOption, withExamples } from './options.ts'
import { paint, say } from './output.ts'
import { type Column, sayTable } from './table.ts'

const VOLUME_COLUMNS: readonly Column[] = [
  { title: 'VOLUME' },
  { title: 'STATE' },
  { title: 'MODE' },
  { title: 'LAST SCAN' },
  { title: 'GAPS', align: 'right' },
  { title: 'UNREADABLE', align: 'right' },
  { title: 'PATH' },
]
const SCAN_COLUMNS: readonly Column[] = [
  { title: 'VOLUME' },
  { title: 'METHOD' },
  { title: 'ENTRIES', align: 'right' },
  { title: 'TOOK', align: 'right' },
  { title: 'DIFFERENCES', align: 'right' },
  { title: 'UNANNOUNCED', align: 'right' },
]
const UNREADABLE_LISTED_MAX = 10

export function agentCommand(yargs: Argv): Argv {
  return yargs.command('agent', 'Set up and run the agent on a storage host', (group) =>
    markCommand(scanCommand(statusCommand(runCommand(enrollCommand(group))))).demandCommand(
      1,
      'Name what to do: enroll, run, status, scan or mark',
    ),
  )
}

function enrollCommand(yargs: Argv): Argv {
  return yargs.command(
    'enroll',
    'Introduce this host to a collector, with a token made there',
    (options) =>
      withExamples(
        jsonOption(stateOption(options))
          .option('collector', { type: 'string', describe: 'URL of the collector, wss://HOST:PORT', demandOption: true, requiresArg: true })
          .option('token', { type: 'string', describe: 'Made there by `pacsimile token create`', demandOption: true, requiresArg: true })
          .option('name', { type: 'string', describe: "Name of this agent; the host's name where it is left out", requiresArg: true })
          .option('volume', {
            type: 'array',
            string: true,
            describe: 'A directory to protect, NAME=PATH; may be given several times',
            demandOption: true,
          }),
        'agent enroll --collector wss://backup:7443 --token TOKEN --volume images=/srv/pacs',
        'agent enroll --collector wss://backup:7443 --token TOKEN --name pacs1 --volume images=/srv/pacs --volume db=/var/lib/orthanc',
      ),
    async ({ collector, token, name, state, volume, json }) => {
      const { enroll } = await import('../../agent/enroll.ts')
      const stateDir = resolve(state)
      const asked = { collectorUrl: collector, token, stateDir, volumes: volume.map(parseVolume), ...(name === undefined ? {} : { name }) }
      const done = await enroll(asked).catch((error: unknown) => {
        throw asUsage(error)
      })
      if (json) {
        sayJson({ ...done, stateDir })
        return
      }
      say(`Enrolled as ${paint('bold', done.agent)} at ${done.collector}.`)
      say(`Next: pacsimile agent run --state ${stateDir}`)
    },
  )
}

function parseVolume(text: string): { name: string; path: string } {
  const at = text.indexOf('=')
  if (at <= 0 || at === text.length - 1) throw new PacsimileError('usage', `--volume ${JSON.stringify(text)} is not NAME=PATH`)
  return { name: text.slice(0, at), path: resolve(text.slice(at + 1)) }
}

function runCommand(yargs: Argv): Argv {
  return yargs.command(
    'run',
    'Run the agent: watch, capture, journal, send',
    (options) =>
      jsonOption(stateOption(options)).option('watch', {
        choices: WATCH_CHOICES,
        describe: 'In place of what agent.toml says: fanotify fails where it cannot be had, auto falls back to chokidar',
        requiresArg: true,
      }),
    async ({ state, watch }) => {
      const { runAgent } = await import('../../agent/main.ts')
      process.exitCode = await runAgent({ stateDir: resolve(state), watch, args: process.argv.slice(1) })
    },
  )
}

function statusCommand(yargs: Argv): Argv {
  return yargs.command(
    'status',
    'How the agent on this host stands',
    (options) => jsonOption(stateOption(options)),
    async ({ state, json }) => {
      // The agent is of this very release: its answer is of this type.
      const status = (await askAgent(state, 'status', {})) as AgentStatus
      if (json) sayJson(status)
      else saySummary(status)
    },
  )
}

async function askAgent(state: string, name: string, body: unknown): Promise<unknown> {
  const { callLocal } = await import('../../shared/local-api.ts')
  return callLocal(join(resolve(state), 'agent.sock'), name, body, { unreachable: 'agent-unreachable' })
}

function scanCommand(yargs: Argv): Argv {
  return yargs.command(
    'scan',
    'Compare the disk with what was captured, now, and wait until what differs is captured',
    (options) =>
      withExamples(
        jsonOption(stateOption(options)).option('deep', {
          type: 'boolean',
          default: false,
          describe: 'Read the content of every file, also where nothing says that it changed',
        }),
        'agent scan',
        'agent scan --deep --json',
      ),
    async ({ state, deep, json }) => {
      const scanned = (await askAgent(state, 'scan', { deep })) as { readonly volumes: readonly AgentScanReport[] }
      if (json) {
        sayJson(scanned)
        return
      }
      sayTable(SCAN_COLUMNS, scanned.volumes.map(scanRow))
      for (const { name, reason } of scanned.volumes) if (reason !== '') say(paint('dim', `${name}: ${reason}`))
    },
  )
}

function markCommand(yargs: Argv): Argv {
  return yargs.command(
    'mark <name>',
    'Give this moment a name: behind every change made before the call, also while the collector is away',
    (options) =>
      withExamples(
        jsonOption(stateOption(options))
          .positional('name', { type: 'string', demandOption: true, describe: 'A name of your choice; the newest of a name counts' })
          .option('only', { type: 'string', describe: 'Only this volume', requiresArg: true }),
        'agent mark before-upgrade    # later: pacsimile restore … --at mark:before-upgrade',
      ),
    async ({ state, name, only, json }) => {
      const marked = (await askAgent(state, 'mark', { name: label(name, 'The name'), volume: only })) as {
        readonly volumes: readonly AgentMark[]
      }
      if (json) sayJson({ name, volumes: marked.volumes.map(({ timeMs, ...mark }) => ({ ...mark, time: isoTime(timeMs) })) })
      else
        for (const { volume, epoch, seq, timeMs } of marked.volumes)
          say(`Marked ${volume} as ${paint('bold', name)}: ${showMoment(timeMs)}, seq ${epoch}:${seq}`)
    },
  )
}

function scanRow({ name, method, entries, seconds, differences, unannounced }: AgentScanReport): string[] {
  return [name, method, String(entries), showDuration(seconds * 1000), String(differences), String(unannounced)]
}

function saySummary(status: AgentStatus): void {
  const since = showDuration(Date.now() - status.link.sinceMs)
  const link = status.link.state === 'up' ? paint('green', `connected for ${since}`) : paint('yellow', `${status.link.state} for ${since}`)
  say(`Agent ${status.agent}, up ${showDuration(Date.now() - status.startedMs)}; ${status.collector}: ${link}`)
  if (status.link.state !== 'up' && status.link.lastError !== undefined) say(paint('yellow', status.link.lastError))
  for (const alarm of status.alarms) say(paint('red', alarm))
  const headAge = status.headMs === undefined ? '' : ` (${showAge(status.headMs)})`
  say(
    `epoch ${status.epoch}, head ${status.headSeq}${headAge}, acknowledged ${status.ackedSeq}, ${showCount(status.dirty, 'path')} waiting`,
  )
  if (status.journalLag !== undefined) say(lagLine(status.journalLag))
  say(`held in memory ${showBytes(status.heldBytes)}, spool ${showBytes(status.spoolBytes)} of ${showBytes(status.spoolQuotaBytes)}`)
  say()
  sayTable(VOLUME_COLUMNS, status.volumes.map(volumeRow))
  for (const volume of status.volumes) sayRemarks(volume)
}

function lagLine({ changes, p50Ms, p99Ms, maxMs }: JournalLagSummary): string {
  const [half, most, longest] = [p50Ms, p99Ms, maxMs].map(showDuration)
  return `changes are in the journal after ${half} (half of the last ${changes}), ${most} (99 %), ${longest} (the slowest)`
}

function volumeRow({ name, state, mode, lastScan, gaps, unreadable, path }: AgentVolumeStatus): string[] {
  const scanned = lastScan === undefined ? '-' : `${showAge(lastScan.endedMs)}, took ${showDuration(lastScan.durationMs)}`
  return [name, state, mode, scanned, String(gaps), String(unreadable.length), path]
}

function sayRemarks({ name, reason, unreadable, rotten, foreign }: AgentVolumeStatus): void {
  if (reason !== '') say(paint('dim', `${name}: ${reason}`))
  for (const { path, reason } of unreadable.slice(0, UNREADABLE_LISTED_MAX)) say(paint('yellow', `${name}: ${path}: ${reason}`))
  if (unreadable.length > UNREADABLE_LISTED_MAX) say(`${name}: and ${unreadable.length - UNREADABLE_LISTED_MAX} more (--json lists them)`)
  for (const { path, foundMs } of rotten.slice(0, UNREADABLE_LISTED_MAX))
    say(paint('red', `${name}: ${path}: decayed, found ${showAge(foundMs)}; the version that was captured is in the history`))
  if (rotten.length > UNREADABLE_LISTED_MAX) say(`${name}: and ${rotten.length - UNREADABLE_LISTED_MAX} more (--json lists them)`)
  for (const mount of foreign) say(paint('yellow', `${name}: ${mount} is another filesystem and not protected`))
}
