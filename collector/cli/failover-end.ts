/**
 * The end of a failover: what was written into the replica is kept in a branch, the replica follows again, and the branch goes where it
 * was decided.
 *
 * Order: the list durable, the files moved into the branch and durable, the replica made what it was, the decision. Killed anywhere, the
 * same command goes on from there. Invariant: nothing that was written is overwritten before it is in the branch. It prevents a night's
 * studies from being lost because the command was given with the wrong word.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { asPacsimileError, PacsimileError } from '../../shared/errors.ts'
import { makeDirectory } from '../../shared/files.ts'
import { type RelativePath, showPath } from '../../shared/path.ts'
import { type Branch, type BranchEntry, branchesDirectory, branchName, readBranch, requireBranch, writeBranch } from '../branch.ts'
import { type BroughtBack, bringBack } from '../branch-apply.ts'
import { keepEntries } from '../branch-keep.ts'
import { type FrozenReplica, writtenInto } from '../failover-tree.ts'
import { usersOf } from '../open-files.ts'
import type { Standing } from '../replica-standing.ts'
import { askCollector } from './admin-call.ts'
import { showCount } from './amounts.ts'

export type Decision = { readonly kind: 'bring-back' | 'bundle'; readonly to: string } | { readonly kind: 'discard' }

/** Processes that are named. */
const USERS_TOLD = 5

export interface FailoverEnd {
  /** Where the branch is. */
  readonly directory: string
  readonly branch: Branch
  readonly broughtBack: BroughtBack | undefined
}

export interface EndRequest {
  readonly data: string
  readonly frozen: FrozenReplica
  readonly decision: Decision
  /** Whether processes that have files of the replica open do not matter. */
  readonly isDespiteUsers: boolean
}

/** @throws locked, incomplete, already-exists, io, space, replica-stopped */
export async function endFailover({ data, frozen, decision, isDespiteUsers }: EndRequest): Promise<FailoverEnd> {
  if (decision.kind === 'bundle' && existsSync(decision.to)) throw new PacsimileError('already-exists', `${decision.to} exists already`)
  if (!isDespiteUsers) requireUnused(frozen.directory)
  const name = branchName(frozen.sinceMs)
  const directory = join(branchesDirectory(data, frozen.agent, frozen.volume), name)
  await keepInBranch(frozen, directory)
  const { agent, volume } = frozen
  // It answers when the replica is what it was.
  ;(await askCollector(data, 'failoverEnd', { agent, volume, branch: name })) as Standing
  const branch = { ...requireBranch(directory), endedMs: Date.now() }
  writeBranch(directory, branch)
  return decide(branch, directory, decision)
}

/** What the branch holds goes where it was decided. @throws io, space */
export async function decide(branch: Branch, directory: string, decision: Decision): Promise<FailoverEnd> {
  let broughtBack: BroughtBack | undefined
  switch (decision.kind) {
    case 'bring-back':
      broughtBack = await bringBack(branch, directory, decision.to)
      break
    case 'bundle':
      makeDirectory(dirname(decision.to))
      execFileSync('cp', ['-a', '--reflink=auto', '--', directory, decision.to])
      break
    case 'discard':
      break
  }
  const dispositions = { 'bring-back': 'brought-back', 'bundle': 'bundled', 'discard': 'discarded' } as const
  const decided: Branch = { ...branch, disposition: dispositions[decision.kind] }
  writeBranch(directory, decided)
  return { directory, branch: decided, broughtBack }
}

/** @throws locked */
function requireUnused(directory: string): void {
  const users = usersOf(directory, new Set([process.pid, process.ppid]))
  if (users.length === 0) return
  const some = users.slice(0, USERS_TOLD).map(({ pid, command, path }) => `${pid} (${command}: ${path})`)
  throw new PacsimileError(
    'locked',
    `${showCount(users.length, 'process', 'processes')} still use the replica, among them ${some.join(', ')}: end what runs on it first`,
  )
}

/** Everything that was written into the replica. @throws incomplete where something could not be looked at */
export async function differencesOf(frozen: FrozenReplica): Promise<BranchEntry[]> {
  const unreadable: RelativePath[] = []
  const entries: BranchEntry[] = []
  for await (const entry of writtenInto(frozen, ({ path }) => unreadable.push(path))) entries.push(entry)
  const [first] = unreadable
  if (first !== undefined)
    throw new PacsimileError(
      'incomplete',
      `${showCount(unreadable.length, 'path')} of the replica cannot be looked at, among them ${showPath(first)}`,
    )
  return entries
}

async function keepInBranch(frozen: FrozenReplica, directory: string): Promise<void> {
  const known = readBranch(directory)
  const branch: Branch = known ?? {
    agent: frozen.agent,
    volume: frozen.volume,
    at: frozen.at,
    sinceMs: frozen.sinceMs,
    endedMs: null,
    disposition: 'undecided',
    entries: await differencesOf(frozen),
  }
  try {
    makeDirectory(directory)
    if (known === undefined) writeBranch(directory, branch)
    keepEntries(branch.entries, frozen.directory, directory)
  } catch (error) {
    throw asPacsimileError(error, `Keeping what was written in ${directory}`)
  }
}
