/**
 * Whether a restore in place is a mass change to a replica, which would pause it: said before anything is changed.
 *
 * What is there now and would be put aside counts, as it does for the breaker; what is replaced by another file that can be read does not. It is known
 * of a volume whose source is this very directory. Invariant: what is not known here (another host's configuration, whether all of it is one study) is
 * not claimed, and no restore fails for it. It prevents a replica that is paused on the day it is needed, by the one who is repairing.
 */
import { realpathSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { errnoOf, PacsimileError } from '../../shared/errors.ts'
import { ROOT, showPath } from '../../shared/path.ts'
import type { BreakerRule } from '../breaker.ts'
import { breakerRule, type CollectorConfig, checkedConfig, keepsReplica, readCollectorConfig } from '../config.ts'
import type { HistorySource, Window } from '../history-source.ts'
import type { RestoreReport } from '../restore.ts'
import type { CollectorStatus, ReplicaStatus } from '../status.ts'
import { askCollector } from './admin-call.ts'
import { showCount } from './amounts.ts'
import type { HistoryOptions } from './source.ts'

export interface MassChangeHint {
  /** AGENT:VOLUME whose source the directory is, or is in. */
  readonly target: string
  /** As bytes. */
  readonly root: string
  /** Paths that would be gone from it. */
  readonly gone: number
  /** Percent of the files, and how many of them, from which on the breaker acts. */
  readonly share: number
  readonly files: number
  /** Whether these are the collector's own; otherwise its defaults. */
  readonly isConfigured: boolean
  /** What announces it. */
  readonly command: string
}

type Place = Pick<HistoryOptions, 'data' | 'repository' | 'collector'>

/** Of what is about to be done; undefined where it is no mass change to a replica, as far as can be known here. */
export async function massChangeHint(
  source: HistorySource,
  { to, inPlace }: RestoreReport,
  place: Place,
): Promise<MassChangeHint | undefined> {
  const gone = inPlace?.removedPaths ?? 0
  const config = configOf(place)
  const rule = breakerRule(config ?? checkedConfig({}))
  if (rule === undefined || gone < rule.files) return undefined
  try {
    const window = await sourceOf(source, to)
    if (window === undefined) return undefined
    const target = `${window.agent}:${window.volume}`
    if (config !== undefined && !(keepsReplica(config, target) && (await isPausable(place, window)))) return undefined
    if (!(await isMore(source, window, gone, rule))) return undefined
    const command = `pacsimile replica expect ${target} --for 1h --reason 'restore in place'`
    const share = Number((rule.share * 100).toFixed(2))
    return { target, root: window.root, gone, share, files: rule.files, isConfigured: config !== undefined, command }
  } catch (error) {
    // It is advice: whatever the history or the system cannot tell ends the restore itself, where that needs it.
    if (error instanceof PacsimileError || errnoOf(error) !== undefined) return undefined
    throw error
  }
}

export function massChangeLine({ target, root, gone, share, isConfigured, command }: MassChangeHint): string {
  const where = isConfigured ? `[breaker]: ${share} %` : `as the collector's [breaker] is unless it was changed: ${share} %`
  const at = isConfigured ? '' : ', at the collector'
  return `${showPath(root)} is the source of ${target}: putting ${showCount(gone, 'path')} aside pauses its replica as a mass change (${where}) unless they are one study. Announce it first${at}: ${command}`
}

/** Of the collector whose history is read; undefined where it is another host's, or cannot be read. */
function configOf({ data, repository, collector }: Place): CollectorConfig | undefined {
  if (repository !== undefined || collector !== undefined) return undefined
  try {
    return readCollectorConfig(resolve(data))
  } catch (error) {
    if (error instanceof PacsimileError) return undefined
    throw error
  }
}

/** The volume in whose source the directory lies, where that is a directory of this host: the same inode, not modified since it was captured. */
async function sourceOf(source: HistorySource, to: string): Promise<Window | undefined> {
  const real = realPath(to)
  for (const { agent, volume } of await source.volumes()) {
    const window = await source.window(agent, volume)
    const named = Buffer.from(window.root, 'latin1')
    const found = statSync(named, { bigint: true, throwIfNoEntry: false })
    if (found === undefined) continue
    const root = realPath(named)
    if (real !== root && !real.startsWith(`${root}/`)) continue
    for await (const { path, version } of source.tree(agent, volume, ROOT, window.head, 'directory')) {
      if (path === ROOT && found.ino === version.inode && found.mtimeNs === version.mtimeNs) return window
      break
    }
  }
  return undefined
}

/** As bytes, without a slash at its end. */
function realPath(path: string | Buffer): string {
  return realpathSync.native(path, { encoding: 'buffer' }).toString('latin1').replace(/\/+$/, '')
}

/** Not where it is paused already, or somebody has announced a mass change. Where no collector runs, the next one judges. */
async function isPausable({ data }: Place, { agent, volume }: Window): Promise<boolean> {
  let status: CollectorStatus
  try {
    status = (await askCollector(resolve(data), 'status', {})) as CollectorStatus
  } catch (error) {
    if (error instanceof PacsimileError) return true
    throw error
  }
  const replica: ReplicaStatus | undefined = status.agents
    .find(({ name }) => name === agent)
    ?.volumes.find(({ name }) => name === volume)?.replica
  return replica === undefined || (replica.expectedUntilMs === undefined && ['following', 'catching-up'].includes(replica.state))
}

/** Whether that is more than the share of the files that there are. Of those no more are counted than it takes to know. */
async function isMore(source: HistorySource, { agent, volume, head }: Window, gone: number, rule: BreakerRule): Promise<boolean> {
  let files = 0
  for await (const { version } of source.tree(agent, volume, ROOT, head)) {
    if (version.kind === 'file') files += 1
    if (gone <= files * rule.share) return false
  }
  return true
}
