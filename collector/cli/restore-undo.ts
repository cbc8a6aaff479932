/**
 * `pacsimile restore undo`, `restore list`, `restore forget`: restores in place afterwards. They need neither a collector nor a key.
 *
 * Invariant: what could not be taken back is listed with the reason, and decides the exit status. It prevents an undo that left the change of somebody else alone from
 * looking like one that was whole.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS, PacsimileError } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import type { UndoReport } from '../undo.ts'
import type { UndoNote } from '../undo-place.ts'
import { showAge, showCount } from './amounts.ts'
import { parseDuration } from './duration.ts'
import { bytesFields, isoTime, sayJson } from './json.ts'
import { jsonOption, withExamples } from './options.ts'
import { note, paint, say, warn } from './output.ts'
import { sayTable } from './table.ts'

const LISTED_MAX = 20
const COLUMNS = [{ title: 'ID' }, { title: 'STATE' }, { title: 'BEGAN' }, { title: 'OF' }, { title: 'IN' }]
const ID = { type: 'string', demandOption: true, describe: 'As the restore said, and as `restore list` shows' } as const
const IN = {
  type: 'string',
  describe: 'The directory that was restored into, where this host does not know it',
  requiresArg: true,
} as const

export function undoCommand(yargs: Argv): Argv {
  return yargs.command(
    'undo <id>',
    'Take a restore in place back: what it replaced, removed and added is as it was',
    (options) =>
      withExamples(
        jsonOption(options).positional('id', ID).option('in', IN).option('force', {
          type: 'boolean',
          describe: 'Also where something was changed since; that is kept aside, until `restore forget`',
          default: false,
        }),
        'restore undo 3f0c9a1b2d4e',
      ),
    async ({ id, in: directory, force, json }) => {
      const { undoRestore } = await import('../undo.ts')
      const report = await undoRestore(await targetOf(id, directory), id, force)
      if (!report.placeStays) await forgotten(id)
      if (json) sayJson(undoFields(report))
      else sayUndone(report)
      if (!report.done) process.exitCode = ERRORS.incomplete.exit
    },
  )
}

export function restoresCommand(yargs: Argv): Argv {
  return yargs.command(
    'list',
    'Restores in place that can be taken back, or that did not end',
    (options) => withExamples(jsonOption(options).option('in', IN), 'restore list', 'restore list --in /srv/images'),
    async ({ in: directory, json }) => {
      const found = await known(directory)
      if (json) {
        sayJson({ restores: found.map(({ note: of, target }) => listFields(of, target)) })
        return
      }
      if (found.length === 0) say('None.')
      else
        sayTable(
          COLUMNS,
          found.map(({ note: of, target }) => [
            of.id,
            of.state,
            showAge(of.startedMs),
            `${of.agent}:${of.volume}${of.path === '' ? '' : `/${showPath(of.path)}`}`,
            target,
          ]),
        )
    },
  )
}

export function forgetCommand(yargs: Argv): Argv {
  return yargs.command(
    'forget [id]',
    'Give up that a restore in place can be taken back: what it put aside is removed',
    (options) =>
      withExamples(
        jsonOption(options)
          .positional('id', { type: 'string', describe: 'As `restore list` shows' })
          .option('older-than', { type: 'string', describe: 'All that ended so long ago: 7d, 12h', requiresArg: true })
          .option('in', IN),
        'restore forget 3f0c9a1b2d4e',
        'restore forget --older-than 30d',
      ),
    async ({ id, olderThan, in: directory, json }) => {
      if ((id === undefined) === (olderThan === undefined))
        throw new PacsimileError('usage', 'Name one by its id, or many with --older-than')
      const { forgetRestore } = await import('../undo.ts')
      const places =
        id === undefined
          ? await endedBefore(Date.now() - parseDuration(olderThan ?? '', '--older-than'), directory)
          : [{ id, target: await targetOf(id, directory) }]
      for (const place of places) {
        await forgetRestore(place.target, place.id)
        await forgotten(place.id)
        if (!json) say(`Restore ${place.id} in ${place.target} cannot be taken back any more.`)
      }
      if (json) sayJson({ forgotten: places.map((place) => place.id) })
      else if (places.length === 0) say('None is so old.')
    },
  )
}

/** @throws not-found */
async function targetOf(id: string, directory: string | undefined): Promise<string> {
  if (directory !== undefined) return resolve(directory)
  const { UndoIndex } = await import('../undo-index.ts')
  const target = new UndoIndex().find(id)
  if (target === undefined)
    throw new PacsimileError('not-found', `This host knows of no restore ${id}: name the directory that was restored into with --in`)
  return target
}

async function forgotten(id: string): Promise<void> {
  const { UndoIndex } = await import('../undo-index.ts')
  new UndoIndex().remove(id)
}

async function known(directory: string | undefined): Promise<{ note: UndoNote; target: string }[]> {
  const [{ UndoIndex }, { UndoPlace }] = await Promise.all([import('../undo-index.ts'), import('../undo-place.ts')])
  const targets = directory === undefined ? new UndoIndex().targets() : [resolve(directory)]
  return targets.flatMap((target) => {
    try {
      return UndoPlace.in(target).places.map((place) => ({ note: place.note, target }))
    } catch (error) {
      if (directory !== undefined || !(error instanceof PacsimileError)) throw error
      // Its disk may be away: the others count all the same.
      warn(error.message)
      return []
    }
  })
}

async function endedBefore(ms: number, directory: string | undefined): Promise<{ id: string; target: string }[]> {
  const found = await known(directory)
  return found.flatMap(({ note: of, target }) => (of.endedMs !== null && of.endedMs <= ms ? [{ id: of.id, target }] : []))
}

function sayUndone({ id, to, steps, troubles, done, placeStays, shortcomings }: UndoReport): void {
  if (done) say(`Restore ${id} is taken back: ${to} is as it was before (${showCount(steps, 'step')}).`)
  if (done && placeStays) say(`What had to make way is kept in it; \`restore forget ${id}\` removes that.`)
  for (const { path, what, reason } of shortcomings.slice(0, LISTED_MAX)) warn(`${showPath(path)} without ${what}: ${reason}`)
  if (troubles.length === 0) return
  note(paint('red', `In ${to} left as they are: ${showCount(troubles.length, 'path')}`, process.stderr))
  for (const { path, reason } of troubles.slice(0, LISTED_MAX)) note(`    ${path === '' ? '.' : showPath(path)}: ${reason}`)
  if (troubles.length > LISTED_MAX) note(`    and ${troubles.length - LISTED_MAX} more (--json lists all)`)
  note(`What they were before is kept. \`restore undo ${id} --force\` brings it back all the same, and keeps aside what is there now.`)
}

export function undoFields({ id, to, steps, troubles, shortcomings, done }: UndoReport): object {
  return {
    id,
    to,
    done,
    steps,
    troubles: troubles.map(({ path, reason }) => ({ ...bytesFields('path', path), reason })),
    shortcomings: shortcomings.map(({ path, what, reason }) => ({ ...bytesFields('path', path), what, reason })),
  }
}

export function listFields(of: UndoNote, target: string): object {
  return {
    id: of.id,
    to: target,
    state: of.state,
    agent: of.agent,
    volume: of.volume,
    ...bytesFields('path', of.path),
    moment: isoTime(of.momentMs),
    epoch: of.epoch,
    seq: of.seq,
    started: isoTime(of.startedMs),
    ended: of.endedMs === null ? null : isoTime(of.endedMs),
  }
}
