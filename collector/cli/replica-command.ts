/**
 * `pacsimile replica`: decides about a volume whose replica was paused, and announces what would pause it.
 *
 * Invariant: none of it touches the history, which goes on whatever is decided. It prevents a wrong decision at three in the morning from
 * costing more than a replica that can be rewound again.
 */
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { DriftFound } from '../drift-rounds.ts'
import { parsePoint } from '../point.ts'
import type { Standing } from '../replica-standing.ts'
import { askCollector } from './admin-call.ts'
import { showCount } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { isoTime, sayJson } from './json.ts'
import { dataOption, jsonOption, MOMENT, withExamples } from './options.ts'
import { say } from './output.ts'
import { parseVolume } from './target.ts'

const VOLUME = { type: 'string', demandOption: true, describe: 'AGENT:VOLUME' } as const

export function replicaCommand(yargs: Argv): Argv {
  return yargs.command('replica', 'What becomes of a replica that was paused, and which mass change is expected', (group) =>
    checkCommand(expectCommand(rewindCommand(resumeCommand(group)))).demandCommand(1, 'Name what to do: resume, rewind, expect or check'),
  )
}

function resumeCommand(yargs: Argv): Argv {
  return yargs.command(
    'resume <target>',
    'Apply what was held back, and follow again',
    (options) => withExamples(jsonOption(dataOption(options)).positional('target', VOLUME), 'replica resume pacs1:images'),
    async ({ data, json, target }) => {
      const { agent, volume } = parseVolume(target, 'A replica')
      const standing = (await askCollector(data, 'replicaResume', { agent, volume })) as Standing
      if (json) sayJson(standingFields(target, standing))
      else say(`The replica of ${target} follows again, from where it was.`)
    },
  )
}

function rewindCommand(yargs: Argv): Argv {
  return yargs.command(
    'rewind <target>',
    'Make the replica what the volume was at the last clean point, or another one; it stays paused',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .option('to', { ...MOMENT, describe: 'Another moment than the last clean point: a time, seq:N, mark:NAME' }),
        'replica rewind pacs1:images',
        "replica rewind pacs1:images --to '2026-11-24 03:10:00'",
      ),
    async ({ data, json, target, to }) => {
      const { agent, volume } = parseVolume(target, 'A replica')
      const at = to === undefined ? undefined : parsePoint(to)
      const standing = (await askCollector(data, 'replicaRewind', { agent, volume, at })) as Standing
      if (json) sayJson(standingFields(target, standing))
      else say(`The replica of ${target} is what it was at ${seqOf(standing)}. It stays so until \`pacsimile replica resume ${target}\`.`)
    },
  )
}

function expectCommand(yargs: Argv): Argv {
  return yargs.command(
    'expect <target>',
    'Let no mass change pause the replica for a while: before a migration',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .option('for', { type: 'string', describe: 'How long, from now', demandOption: true, requiresArg: true })
          .option('reason', { type: 'string', describe: 'Shown by status, and logged', demandOption: true, requiresArg: true }),
        "replica expect pacs1:images --for 2h --reason 'move to the new directory layout'",
      ),
    async ({ data, json, target, for: span, reason }) => {
      const { agent, volume } = parseVolume(target, 'A replica')
      const forMs = parseDuration(span, '--for')
      const standing = (await askCollector(data, 'replicaExpect', { agent, volume, forMs, reason })) as Standing
      if (json) sayJson(standingFields(target, standing))
      else say(`Until ${isoTime(standing.expected?.untilMs ?? 0)} no mass change pauses the replica of ${target}.`)
    },
  )
}

function checkCommand(yargs: Argv): Argv {
  return yargs.command(
    'check <target>',
    'Look for what others wrote into the replica, put it aside and repair; exit 8 where there was any',
    (options) => withExamples(jsonOption(dataOption(options)).positional('target', VOLUME), 'replica check pacs1:images'),
    async ({ data, json, target }) => {
      const { agent, volume } = parseVolume(target, 'A replica')
      const { paths, directory } = (await askCollector(data, 'replicaCheck', { agent, volume })) as DriftFound
      if (json) sayJson({ target, paths, directory: directory ?? null })
      else if (paths === 0) say(`The replica of ${target} is as it should be.`)
      if (paths > 0)
        throw new PacsimileError(
          'incomplete',
          `Others wrote to ${showCount(paths, 'path')} of the replica of ${target}: put aside in ${directory}, and repaired`,
        )
    },
  )
}

function standingFields(target: string, { stop, expected }: Standing): object {
  return {
    target,
    state: stop?.phase ?? 'following',
    at: stop?.at ?? null,
    clean: stop?.clean ?? null,
    expectedUntil: expected === undefined ? null : isoTime(expected.untilMs),
  }
}

function seqOf({ stop }: Standing): string {
  return stop === undefined ? 'the head' : `seq:${stop.at.epoch}:${stop.at.seq}`
}
