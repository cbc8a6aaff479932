/**
 * `pacsimile diff`: what differs between two moments, or between a moment and a directory as it is now.
 *
 * Invariant: both moments are said as they were understood before the first difference. It prevents a comparison with another
 * hour from being taken for the damage that an upgrade did.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { digestHex } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { byteString, showPath } from '../../shared/path.ts'
import type { HistorySource } from '../history-source.ts'
import type { Unreadable } from '../live-tree.ts'
import { type Point, parsePoint } from '../point.ts'
import { type Side, sideOf, type TreeChange, treeDiff } from '../tree-diff.ts'
import { absenceOf } from './absence.ts'
import { showBytes, showCount } from './amounts.ts'
import { bytesFields, isoTime, sayJson } from './json.ts'
import { sayPoint } from './moment.ts'
import { AT_HELP, historyOptions, jsonOption, MOMENT, TARGET, withExamples } from './options.ts'
import { note, paint, readerKeepsUp, say, warn } from './output.ts'
import { openSource } from './source.ts'
import { parseTarget, type Target } from './target.ts'

export function diffCommand(yargs: Argv): Argv {
  return yargs.command(
    'diff <target>',
    'What differs between two moments, or between a moment and a directory of this host',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options))
          .positional('target', TARGET)
          .option('from', { ...MOMENT, describe: `The earlier moment. ${AT_HELP}` })
          .option('to', { ...MOMENT, describe: 'The later one', default: 'now' })
          .option('at', { ...MOMENT, describe: 'With --with: the moment' })
          .option('with', { type: 'string', describe: 'A directory that holds now what the target held then', requiresArg: true })
          .option('directory-times', {
            type: 'boolean',
            describe: 'Also directories of which only the modification time differs',
            default: false,
          }),
        'diff pacs1:images --from mark:before-upgrade',
        'diff pacs1:images/2026 --from "2026-11-24 02:00" --to "2026-11-24 03:00"',
        'diff pacs1:images --at "10m ago" --with /srv/restored',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target, from, to, at, with: directory, directoryTimes }) => {
      const place = parseTarget(target)
      const moments = momentsOf({ from, to, at, directory })
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const points: Point[] = []
      for (const moment of moments) points.push(await source.point(place.agent, place.volume, moment))
      if (!json) for (const point of points) sayPoint(target, point)
      const [before, after] = points
      if (before === undefined) throw new PacsimileError('usage', 'Name a moment')
      const unreadable: Unreadable[] = []
      const olds = sidesAt(source, place, before)
      const news =
        after === undefined ? await liveSides(directory ?? '', place, (what) => unreadable.push(what)) : sidesAt(source, place, after)
      const count = { added: 0, removed: 0, changed: 0 }
      for await (const change of treeDiff(olds, news, { isWithDirectoryTimes: directoryTimes })) {
        count[kindOf(change)] += 1
        if (json) sayJson(changeFields(change))
        else say(changeLine(change))
        await readerKeepsUp()
      }
      const isEqual = count.added + count.removed + count.changed === 0
      if (isEqual) await requireEither(source, place, points)
      if (!json) note(isEqual ? 'No difference.' : `${count.added} added, ${count.removed} removed, ${count.changed} changed`)
      for (const { path, reason } of unreadable) warn(`${path === '' ? '.' : showPath(path)} could not be compared: ${reason}`)
      if (unreadable.length > 0)
        throw new PacsimileError('incomplete', `${showCount(unreadable.length, 'path')} of ${directory ?? ''} could not be compared`)
    },
  )
}

/** @throws usage */
function momentsOf(asked: {
  readonly from: string | undefined
  readonly to: string
  readonly at: string | undefined
  readonly directory: string | undefined
}): ReturnType<typeof parsePoint>[] {
  const { from, to, at, directory } = asked
  if (directory !== undefined) {
    if (from !== undefined) throw new PacsimileError('usage', '--with compares one moment: name it with --at')
    return [parsePoint(at ?? 'now')]
  }
  if (at !== undefined) throw new PacsimileError('usage', '--at goes with --with DIR; two moments are --from and --to')
  if (from === undefined) throw new PacsimileError('usage', 'Name what to compare: --from T1 [--to T2], or --at T --with DIR')
  return [parsePoint(from), parsePoint(to)]
}

async function* sidesAt(source: HistorySource, { agent, volume, path }: Target, point: Point): AsyncGenerator<Side> {
  for await (const entry of source.tree(agent, volume, path, point.position)) yield sideOf(entry)
}

async function liveSides(directory: string, { path }: Target, onUnreadable: (what: Unreadable) => void): Promise<AsyncIterable<Side>> {
  // It makes system calls, which no other comparison needs.
  const { liveTree } = await import('../live-tree.ts')
  return liveTree(byteString(resolve(directory)), path, onUnreadable)
}

/** A path that was at neither moment is a mistake, and no equality. @throws not-found */
async function requireEither(source: HistorySource, place: Target, points: readonly Point[]): Promise<void> {
  if (place.path === '') return
  for (const point of points) for await (const _ of sidesAt(source, place, point)) return
  const [last] = points.slice(-1)
  if (last !== undefined) throw await absenceOf(source, place, last.position)
}

function kindOf({ before, after }: TreeChange): 'added' | 'removed' | 'changed' {
  if (before === undefined) return 'added'
  return after === undefined ? 'removed' : 'changed'
}

function changeLine(change: TreeChange): string {
  const path = `${change.path === '' ? '.' : showPath(change.path)}${(change.after ?? change.before)?.kind === 'directory' ? '/' : ''}`
  switch (kindOf(change)) {
    case 'added':
      return `${paint('green', '+')} ${path}${sizeOf(change.after)}`
    case 'removed':
      return `${paint('red', '-')} ${path}${sizeOf(change.before)}`
    case 'changed':
      return `${paint('yellow', 'M')} ${path}  ${change.aspects.join(', ')}${sizesOf(change)}`
  }
}

function sizeOf(side: Side | undefined): string {
  return side?.size === undefined ? '' : `  ${showBytes(side.size)}`
}

function sizesOf({ before, after, aspects }: TreeChange): string {
  if (!aspects.includes('content') || before?.size === undefined || after?.size === undefined) return ''
  return before.size === after.size ? `  ${showBytes(after.size)}` : `  ${showBytes(before.size)} -> ${showBytes(after.size)}`
}

export function changeFields(change: TreeChange): object {
  return {
    ...bytesFields('path', change.path),
    change: kindOf(change),
    aspects: change.aspects,
    before: change.before === undefined ? null : sideFields(change.before),
    after: change.after === undefined ? null : sideFields(change.after),
  }
}

function sideFields(side: Side): object {
  const digest = side.digest()
  return {
    kind: side.kind,
    mode: side.mode.toString(8).padStart(4, '0'),
    uid: side.uid,
    gid: side.gid,
    mtime: isoTime(Number(side.mtimeNs / 1_000_000n)),
    mtimeNs: side.mtimeNs.toString(),
    ...(side.size === undefined ? {} : { size: side.size }),
    ...(digest === undefined ? {} : { digest: digestHex(digest) }),
    ...(side.target === undefined ? {} : bytesFields('target', side.target)),
    ...(side.device === undefined ? {} : { device: side.device.toString() }),
  }
}
