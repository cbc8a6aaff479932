/**
 * A branch: what others wrote into a replica while it stood in for its source, kept beside it.
 *
 * A directory with `branch.json`, which lists every path that differs from the moment at which the replica was frozen, before and after,
 * and `files/`, which holds what is there after, under its path. Invariant: the list is durable before anything is moved into `files/`.
 * It prevents a command that is killed half way from taking what it has moved for what was removed.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { digestFromHex, digestHex } from '../shared/digest.ts'
import { asPacsimileError, errnoOf, PacsimileError } from '../shared/errors.ts'
import { readIfPresent, writeFileDurably } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import { relativePath } from '../shared/path.ts'
import { FILE_KINDS } from '../shared/version.ts'
import type { Side } from './tree-diff.ts'

const count = z.number().int().nonnegative()

const STATE = z.object({
  kind: z.enum(FILE_KINDS),
  mode: count,
  uid: count,
  gid: count,
  mtimeNs: z
    .string()
    .regex(/^-?\d+$/)
    .transform(BigInt),
  xattrs: z.array(z.object({ name: z.string(), value: z.string() })),
  size: count.optional(),
  digest: z.string().transform(digestFromHex).optional(),
  target: z.string().optional(),
})
/** What one path was, or is. */
export type PathState = z.output<typeof STATE>

const ENTRY = z.object({
  path: z.string().transform(relativePath),
  before: STATE.nullable(),
  after: STATE.nullable(),
  /** A directory whose time alone is another one: something in it came or went. */
  isTimeOnly: z.boolean(),
})
export type BranchEntry = z.output<typeof ENTRY>

const BRANCH = z.object({
  agent: z.string(),
  volume: z.string(),
  /** The moment at which the replica was frozen. */
  at: z.object({ epoch: count, seq: count }),
  sinceMs: z.number(),
  /** When the replica was made what it was again; null before. */
  endedMs: z.number().nullable(),
  /** What was decided. */
  disposition: z.enum(['undecided', 'brought-back', 'bundled', 'discarded']),
  entries: z.array(ENTRY),
})
export type Branch = z.output<typeof BRANCH>

export function branchesDirectory(dataDir: string, agent: Label, volume: Label): string {
  return join(dataDir, 'replica-branches', agent, volume)
}

/** The same of what somebody wrote into a replica that was not in use. */
export function driftsDirectory(dataDir: string, agent: Label, volume: Label): string {
  return join(dataDir, 'replica-drift', agent, volume)
}

/** Names of the branches in a directory of them, oldest first. */
export function branchNames(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw asPacsimileError(error, `Listing ${directory}`)
    return []
  }
}

/** A name that none of the branches there has, by the time. */
export function freshName(directory: string): string {
  const taken = new Set(branchNames(directory))
  for (let ms = Date.now(); ; ms++) if (!taken.has(branchName(ms))) return branchName(ms)
}

/** By when the replica was taken into use: one failover has one branch. */
export function branchName(sinceMs: number): string {
  return new Date(sinceMs).toISOString().replaceAll(/[-:.]/g, '')
}

/** Undefined where there is none. @throws format-invalid, io */
export function readBranch(directory: string): Branch | undefined {
  const file = join(directory, 'branch.json')
  const bytes = readIfPresent(file)
  if (bytes === undefined) return undefined
  try {
    return BRANCH.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    throw new PacsimileError('format-invalid', `${file} is not the list of a branch`, { cause: error })
  }
}

/** @throws not-found, format-invalid, io */
export function requireBranch(directory: string): Branch {
  const branch = readBranch(directory)
  if (branch !== undefined) return branch
  throw new PacsimileError('not-found', `There is no branch in ${directory}`)
}

/** @throws io, space */
export function writeBranch(directory: string, branch: Branch): void {
  const plain = (state: PathState | null): object | null =>
    state === null
      ? null
      : { ...state, mtimeNs: state.mtimeNs.toString(), digest: state.digest === undefined ? undefined : digestHex(state.digest) }
  const entries = branch.entries.map((entry) => ({ ...entry, before: plain(entry.before), after: plain(entry.after) }))
  writeFileDurably(join(directory, 'branch.json'), `${JSON.stringify({ ...branch, entries })}\n`)
}

export function stateOf(side: Side): PathState {
  const { kind, mode, uid, gid, mtimeNs, xattrs, size, target } = side
  return { kind, mode, uid, gid, mtimeNs, xattrs: [...xattrs], size, digest: kind === 'file' ? side.digest() : undefined, target }
}
