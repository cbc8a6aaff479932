/**
 * `pacsimile failover`: the replica as stand-in for a source that is away.
 *
 * Invariant: a failover ends by a choice that somebody made: brought back, bundled or discarded, never by default. It prevents what was
 * stored in the night from being given up by whoever only wanted the replica to follow again.
 */
import { join, resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { removeTree } from '../../shared/files.ts'
import { showPath } from '../../shared/path.ts'
import type { Branch, BranchEntry } from '../branch.ts'
import type { FrozenReplica } from '../failover-tree.ts'
import { showLocalTime } from '../point.ts'
import type { Standing } from '../replica-standing.ts'
import { askCollector } from './admin-call.ts'
import { showBytes, showCount } from './amounts.ts'
import { parseDuration } from './duration.ts'
import type { Decision, FailoverEnd } from './failover-end.ts'
import { bytesFields, isoTime, sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { note, paint, say } from './output.ts'
import { openSource } from './source.ts'
import { parseVolume, type Target } from './target.ts'

const VOLUME = { type: 'string', demandOption: true, describe: 'AGENT:VOLUME' } as const

export function failoverCommand(yargs: Argv): Argv {
  return yargs.command('failover', 'Use a replica while its source is away, and bring back what was written', (group) =>
    [beginCommand, statusCommand, diffCommand, endCommand, applyCommand, pruneCommand]
      .reduce((commands, add) => add(commands), group)
      .demandCommand(1, 'Name what to do: begin, status, diff, end, apply or prune'),
  )
}

function beginCommand(yargs: Argv): Argv {
  return yargs.command(
    'begin <target>',
    'Stop applying, and make the replica what the volume was at one moment: others may write into it then',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .option('reason', { type: 'string', describe: 'Shown by status', default: 'failover', requiresArg: true }),
        "failover begin pacs1:images --reason 'pacs1 has no power'",
      ),
    async ({ data, json, target, reason }) => {
      const place = parseVolume(target, 'A failover')
      await askCollector(data, 'failoverBegin', { agent: place.agent, volume: place.volume, reason })
      const frozen = await frozenReplica(resolve(data), place)
      if (json) sayJson(frozenFields(frozen, []))
      else {
        say(`${target} may be used in ${paint('bold', frozen.directory)}: it is as of seq:${frozen.at.epoch}:${frozen.at.seq}.`)
        say(`The history goes on. When the source is back: pacsimile failover end ${target} --bring-back DIR | --bundle DIR | --discard`)
      }
    },
  )
}

function statusCommand(yargs: Argv): Argv {
  return yargs.command(
    'status <target>',
    'Whether the replica is in use, and the branches that are kept',
    (options) => withExamples(jsonOption(dataOption(options)).positional('target', VOLUME), 'failover status pacs1:images'),
    async ({ data, json, target }) => {
      const place = parseVolume(target, 'A failover')
      const { stop } = await standingOf(data, place)
      const branches = await branchesOf(resolve(data), place)
      const state = stop?.phase ?? 'following'
      if (json) {
        sayJson({ target, state, since: stop === undefined ? null : isoTime(stop.sinceMs), branches: branches.map(branchFields) })
        return
      }
      say(`The replica of ${target} is ${state}${stop === undefined ? '' : ` since ${showLocalTime(stop.sinceMs)}`}.`)
      for (const { directory, branch } of branches) {
        const shown = branch.entries.filter(({ isTimeOnly }) => !isTimeOnly).length
        say(`  ${directory}: ${showCount(shown, 'path')}, ${branch.disposition}`)
      }
    },
  )
}

function diffCommand(yargs: Argv): Argv {
  return yargs.command(
    'diff <target>',
    'What was written into the replica since it is in use: every file is read',
    (options) => withExamples(jsonOption(dataOption(options)).positional('target', VOLUME), 'failover diff pacs1:images'),
    async ({ data, json, target }) => {
      const frozen = await frozenReplica(resolve(data), parseVolume(target, 'A failover'))
      const { differencesOf } = await import('./failover-end.ts')
      const entries = (await differencesOf(frozen)).filter(({ isTimeOnly }) => !isTimeOnly)
      if (json) sayJson(frozenFields(frozen, entries))
      else if (entries.length === 0) note('Nothing was written into it.')
      else for (const entry of entries) say(entryLine(entry))
    },
  )
}

function endCommand(yargs: Argv): Argv {
  return yargs.command(
    'end <target>',
    'Keep what was written in a branch, make the replica follow again, and do with the branch what you choose',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .option('bring-back', {
            type: 'string',
            describe: "Into this directory: the source's, where this host reaches it",
            requiresArg: true,
          })
          .option('bundle', {
            type: 'string',
            describe: 'Into this new directory, for `failover apply` on another host',
            requiresArg: true,
          })
          .option('discard', { type: 'boolean', describe: 'Keep it aside until `failover prune`', default: false })
          .option('despite-users', { type: 'boolean', describe: 'Although processes have files of the replica open', default: false }),
        'failover end pacs1:images --bring-back /mnt/pacs1/images',
        'failover end pacs1:images --bundle /mnt/usb/night',
        'failover end pacs1:images --discard',
      ),
    async ({ data, json, target, bringBack, bundle, discard, despiteUsers }) => {
      const decision = decisionOf(bringBack, bundle, discard)
      const frozen = await frozenReplica(resolve(data), parseVolume(target, 'A failover'))
      const { endFailover } = await import('./failover-end.ts')
      sayEnd(await endFailover({ data: resolve(data), frozen, decision, isDespiteUsers: despiteUsers }), json)
    },
  )
}

function applyCommand(yargs: Argv): Argv {
  return yargs.command(
    'apply <branch>',
    'Bring a branch, or a bundle of one, into a directory; needs no collector, and may be repeated',
    (options) =>
      withExamples(
        jsonOption(options)
          .positional('branch', { type: 'string', demandOption: true, describe: 'Directory of the branch or bundle' })
          .option('to', { type: 'string', describe: 'Directory to change', demandOption: true, requiresArg: true }),
        'failover apply /mnt/usb/night --to /srv/pacs/images',
      ),
    async ({ json, branch, to }) => {
      const directory = resolve(branch)
      const { requireBranch } = await import('../branch.ts')
      const { decide } = await import('./failover-end.ts')
      sayEnd(await decide(requireBranch(directory), directory, { kind: 'bring-back', to: resolve(to) }), json)
    },
  )
}

function pruneCommand(yargs: Argv): Argv {
  return yargs.command(
    'prune <target>',
    'Remove branches that were decided about and are older than that',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('target', VOLUME)
          .option('older-than', { type: 'string', describe: 'Since they ended', demandOption: true, requiresArg: true }),
        'failover prune pacs1:images --older-than 90d',
      ),
    async ({ data, json, target, olderThan }) => {
      const place = parseVolume(target, 'A failover')
      const before = Date.now() - parseDuration(olderThan, '--older-than')
      const old = (await branchesOf(resolve(data), place)).filter(
        ({ branch }) => branch.disposition !== 'undecided' && branch.endedMs !== null && branch.endedMs < before,
      )
      for (const { directory } of old) removeTree(directory)
      if (json) sayJson({ target, removed: old.map(({ directory }) => directory) })
      else say(`${showCount(old.length, 'branch', 'branches')} removed.`)
    },
  )
}

/** @throws usage */
function decisionOf(bringBack: string | undefined, bundle: string | undefined, isDiscarded: boolean): Decision {
  const chosen: Decision[] = [
    ...(bringBack === undefined ? [] : [{ kind: 'bring-back', to: resolve(bringBack) } as const]),
    ...(bundle === undefined ? [] : [{ kind: 'bundle', to: resolve(bundle) } as const]),
    ...(isDiscarded ? [{ kind: 'discard' } as const] : []),
  ]
  const [decision] = chosen
  if (decision !== undefined && chosen.length === 1) return decision
  throw new PacsimileError('usage', 'Choose one: --bring-back DIR, --bundle DIR or --discard')
}

function sayEnd({ directory, branch, broughtBack }: FailoverEnd, json: boolean): void {
  const entries = branch.entries.filter(({ isTimeOnly }) => !isTimeOnly)
  const conflicts = broughtBack?.conflicts ?? []
  if (json) {
    sayJson({
      branch: directory,
      disposition: branch.disposition,
      entries: entries.map(entryFields),
      applied: broughtBack?.applied ?? null,
      same: broughtBack?.same ?? null,
      conflicts: conflicts.map(({ path, reason }) => ({ ...bytesFields('path', path), reason })),
    })
  } else {
    say(`${showCount(entries.length, 'path')} of the failover are kept in ${directory} (${branch.disposition}).`)
    if (broughtBack !== undefined) say(`${broughtBack.applied} brought back, ${broughtBack.same} were there already`)
    for (const { path, reason } of conflicts) say(paint('yellow', `conflict: ${showPath(path)}: ${reason}`))
  }
  if (conflicts.length > 0)
    throw new PacsimileError('incomplete', `${showCount(conflicts.length, 'path')} were left as they are; the branch has what was written`)
}

/** @throws not-found, replica-stopped where it is not in use */
async function frozenReplica(data: string, { agent, volume }: Target): Promise<FrozenReplica> {
  const { stop } = await standingOf(data, { agent, volume })
  if (stop?.phase !== 'failover' && stop?.phase !== 'closing')
    throw new PacsimileError('replica-stopped', `The replica of ${agent}:${volume} is ${stop?.phase ?? 'following'}, not in use`)
  const { readCollectorConfig } = await import('../config.ts')
  const source = await openSource({ data, repository: undefined, keyFile: undefined, checkpoint: true, collector: undefined, identity: '' })
  const directory = await source.replicaDirectory(agent, volume)
  if (directory === undefined) throw new PacsimileError('not-found', `${agent}:${volume} has no replica here`)
  return { source, agent, volume, at: stop.at, sinceMs: stop.sinceMs, directory, special: readCollectorConfig(data).replicaSpecial }
}

async function standingOf(data: string, { agent, volume }: Pick<Target, 'agent' | 'volume'>): Promise<Standing> {
  return (await askCollector(data, 'failoverStanding', { agent, volume })) as Standing
}

interface KeptBranch {
  readonly directory: string
  readonly branch: Branch
}

/** Oldest first. */
async function branchesOf(data: string, { agent, volume }: Target): Promise<KeptBranch[]> {
  const { branchesDirectory, branchNames, readBranch } = await import('../branch.ts')
  const above = branchesDirectory(data, agent, volume)
  return branchNames(above).flatMap((name) => {
    const branch = readBranch(join(above, name))
    return branch === undefined ? [] : [{ directory: join(above, name), branch }]
  })
}

function branchFields({ directory, branch }: KeptBranch): object {
  return {
    directory,
    since: isoTime(branch.sinceMs),
    ended: branch.endedMs === null ? null : isoTime(branch.endedMs),
    disposition: branch.disposition,
    paths: branch.entries.filter(({ isTimeOnly }) => !isTimeOnly).length,
  }
}

function frozenFields({ agent, volume, at, sinceMs, directory }: FrozenReplica, entries: readonly BranchEntry[]): object {
  return {
    target: `${agent}:${volume}`,
    directory,
    epoch: at.epoch,
    seq: at.seq,
    since: isoTime(sinceMs),
    entries: entries.map(entryFields),
  }
}

function entryFields({ path, before, after }: BranchEntry): object {
  const kind = (after ?? before)?.kind
  return { ...bytesFields('path', path), change: changeOf(before, after), kind, size: after?.size ?? null }
}

function changeOf(before: BranchEntry['before'], after: BranchEntry['after']): 'added' | 'removed' | 'changed' {
  if (before === null) return 'added'
  return after === null ? 'removed' : 'changed'
}

function entryLine({ path, before, after }: BranchEntry): string {
  const sign = { added: paint('green', '+'), removed: paint('red', '-'), changed: paint('yellow', 'M') }[changeOf(before, after)]
  return `${sign} ${path === '' ? '.' : showPath(path)}${after?.size === undefined ? '' : `  ${showBytes(after.size)}`}`
}
