/**
 * `pacsimile mount`: a past moment as a read-only directory, until it is unmounted.
 *
 * Invariant: the directory is mounted when the command says so, and the command runs for as long as it is. It prevents a script that looks at an
 * empty directory because the mount was not there yet, or not any more.
 */
import { readdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Argv } from 'yargs'
import { asPacsimileError, errnoOf, PacsimileError } from '../../shared/errors.ts'
import type { HistorySource } from '../history-source.ts'
import type { Mount } from '../mount.ts'
import { type Point, parsePoint } from '../point.ts'
import { absenceOf } from './absence.ts'
import { bytesFields, sayJson } from './json.ts'
import { pointFields, requireComplete, sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, say, warn, wasSaid } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, showTarget, type Target } from './target.ts'

/** How often a mount that somebody uses is tried to be unmounted, in ms. */
const AGAIN_MS = 250

export function mountCommand(yargs: Argv): Argv {
  return yargs.command(
    'mount <target> <directory>',
    'Show a moment as a read-only directory (FUSE, as root), every byte verified as it is read; runs until it is unmounted',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', { ...TARGET, describe: 'AGENT:VOLUME[/PATH] of a directory' })
          .positional('directory', { type: 'string', demandOption: true, describe: 'An empty directory of this host' })
          .option('at', { ...MOMENT, describe: AT_HELP, demandOption: true })
          .option('allow-other', {
            type: 'boolean',
            describe: 'Other users may look too, each as far as the recorded owners and modes let them',
            default: false,
          })
          .option('require-complete', {
            type: 'boolean',
            describe: 'Refuse a moment in which something may have been missed: in a gap, before the first scan, not proven yet',
            default: false,
          })
          .option('torn', {
            type: 'boolean',
            describe: 'Let files be read that changed while they were captured: their content may never have existed as a whole',
            default: false,
          }),
        'mount pacs1:images /mnt/before --at "2026-11-24 02:59:59"',
        'mount pacs1:images /mnt/before --at mark:before-upgrade --allow-other    # for a viewer that is not root',
        'mount pacs1:images /mnt/before --at now --repository /mnt/copy           # without a collector',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, directory, at, allowOther, ...asked }) => {
      const place = parseTarget(target)
      const moment = parsePoint(at)
      const on = resolve(directory)
      expectEmpty(on)
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const point = await source.point(place.agent, place.volume, moment)
      if (asked.requireComplete) requireComplete(point)
      await expectDirectory(source, place, point)
      const { Mount } = await import('../mount.ts')
      await using mount = await Mount.open(source, {
        ...place,
        at: point.position,
        directory: on,
        allowOther,
        torn: asked.torn,
        onTrouble: warn,
      })
      const running = mount.run()
      const unmounting = unmountWhenTold(mount, on)
      if (json) sayJson(mountFields(place, on, point))
      else {
        sayPoint(target, point, 'Showing ')
        say(`Mounted on ${on}, read-only, until Ctrl-C or \`umount ${on}\``)
      }
      await wasSaid()
      await Promise.race([running, unmounting])
      await running
    },
  )
}

export function mountFields(place: Target, directory: string, point: Point): object {
  return { agent: place.agent, volume: place.volume, ...bytesFields('path', place.path), directory, ...pointFields(point) }
}

/** @throws not-found, target-not-empty, io */
function expectEmpty(directory: string): void {
  try {
    if (readdirSync(directory).length === 0) return
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 'ENOENT') throw new PacsimileError('not-found', `There is no directory ${directory}`, { cause: error })
    if (errno === 'ENOTCONN')
      throw new PacsimileError('io', `${directory} is a mount whose process has died; \`umount ${directory}\` frees it`, { cause: error })
    throw asPacsimileError(error, `Mounting ${directory}`)
  }
  throw new PacsimileError('target-not-empty', `${directory} is not empty: what is in it would be hidden`)
}

async function expectDirectory(source: HistorySource, place: Target, point: Point): Promise<void> {
  for await (const { path, version } of source.tree(place.agent, place.volume, place.path, point.position, 'directory')) {
    if (path === place.path && version.kind !== 'directory')
      throw new PacsimileError('usage', `${showTarget(place)} was a ${version.kind} then; name the directory that holds it`)
    return
  }
  // A volume that holds nothing is a state like any other.
  if (place.path !== '') throw await absenceOf(source, place, point.position)
}

/** The first signal unmounts it as soon as nobody uses it, the second at once. */
async function unmountWhenTold(mount: Mount, directory: string): Promise<void> {
  const told = Promise.withResolvers<void>()
  let isForced = false
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    let count = 0
    process.on(name, () => {
      count += 1
      isForced = count > 1
      told.resolve()
    })
  }
  await told.promise
  if (mount.unmount(false)) return
  note(
    `${directory} is in use; it is unmounted as soon as it is not. A second signal unmounts it at once, with errors for whoever uses it.`,
  )
  do await setTimeout(AGAIN_MS)
  while (!mount.unmount(isForced))
}
