/**
 * The directory that a restore fills: empty, new, or one in which the same restore was interrupted.
 *
 * A note in it says of what it is while it is not whole. Invariant: a directory with content that no interrupted restore has put there is
 * never written to, and one that is not whole says so. It prevents a half restored archive from being taken for the whole one.
 */
import { readdirSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { asPacsimileError, PacsimileError } from '../shared/errors.ts'
import { createFileDurably, makeDirectories, readIfPresent, syncDirectory, TEMPORARY_PREFIX } from '../shared/files.ts'
import { showPath } from '../shared/path.ts'
import { showLocalTime } from './point.ts'
import type { RestoreRequest } from './restore-plan.ts'

export const RESTORE_NOTE = `${TEMPORARY_PREFIX}restore.json`
const SCHEMA = z.object({
  agent: z.string(),
  volume: z.string(),
  path: z.string(),
  epoch: z.number(),
  seq: z.number(),
  include: z.string().nullable(),
  exclude: z.string().nullable(),
  startedMs: z.number(),
})
type Note = z.output<typeof SCHEMA>

/** @returns whether an earlier run of this restore has begun there. @throws target-not-empty, io */
export function prepareTarget(request: RestoreRequest): boolean {
  const { to } = request
  try {
    makeDirectories(to, 0o700)
    const wanted = noteOf(request)
    const found = readNote(to)
    if (found === undefined) {
      // What is left of a note that was being written when its writer was killed.
      const [half, others] = [`${TEMPORARY_PREFIX}${RESTORE_NOTE}`, readdirSync(to)]
      if (others.some((name) => !name.startsWith(half))) throw notEmpty(to)
      for (const name of others) unlinkSync(join(to, name))
      createFileDurably(join(to, RESTORE_NOTE), `${JSON.stringify(wanted)}\n`)
      return false
    }
    if (JSON.stringify({ ...found, startedMs: 0 }) === JSON.stringify({ ...wanted, startedMs: 0 })) return true
    throw new PacsimileError(
      'target-not-empty',
      `${to} holds a restore of ${found.agent}:${found.volume}${found.path === '' ? '' : `/${showPath(found.path)}`} at seq ${found.epoch}:${found.seq} that was interrupted (begun ${showLocalTime(found.startedMs)}); the same command with --at seq:${found.epoch}:${found.seq} goes on with it`,
    )
  } catch (error) {
    throw asPacsimileError(error, `Preparing ${to}`)
  }
}

/**
 * Everything in it is durable. `finish` gives the directory back the time that the leaving of the note has changed: at once, for one that lacks
 * only its time says no more that a restore of it was interrupted. @throws io
 */
export function completeTarget(to: string, finish: () => void): void {
  try {
    rmSync(join(to, RESTORE_NOTE), { force: true })
    finish()
    syncDirectory(to)
  } catch (error) {
    throw asPacsimileError(error, `Completing ${to}`)
  }
}

/** Also where this restore was killed behind its last step: then that is how to see that it is whole. */
function notEmpty(to: string): PacsimileError {
  return new PacsimileError(
    'target-not-empty',
    `${to} is not empty; --in-place makes of a directory with content what it was at that moment, and changes only what differs`,
  )
}

function noteOf({ agent, volume, path, point, include, exclude }: RestoreRequest): Note {
  const { epoch, seq } = point.position
  return { agent, volume, path, epoch, seq, include: include ?? null, exclude: exclude ?? null, startedMs: Date.now() }
}

function readNote(to: string): Note | undefined {
  const bytes = readIfPresent(join(to, RESTORE_NOTE))
  if (bytes === undefined) return undefined
  try {
    return SCHEMA.parse(JSON.parse(bytes.toString('utf8')))
  } catch (error) {
    throw new PacsimileError('format-invalid', `${join(to, RESTORE_NOTE)} is not what a restore left there`, { cause: error })
  }
}
