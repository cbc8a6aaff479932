/**
 * `pacsimile window`: what can be restored of a volume, from when, to when, with which gaps.
 *
 * Gaps and the mode of watching stand beside the span. It prevents "from Monday to now" from being read as "every second
 * from Monday to now" where that was not watched.
 */
import type { Argv } from 'yargs'
import { type HybridTime, millisecondsOf } from '../../shared/clock.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { showPath } from '../../shared/path.ts'
import type { Window } from '../history-source.ts'
import { showLocalTime, showMoment } from '../point.ts'
import { showAge, showCount, showDuration } from './amounts.ts'
import { bytesFields, isoTime, sayJson, spanFields } from './json.ts'
import { historyOptions, jsonOption, withExamples } from './options.ts'
import { say, warn } from './output.ts'
import { openSource } from './source.ts'
import { type Column, sayTable } from './table.ts'
import { parseTarget } from './target.ts'

const GAP_COLUMNS: readonly Column[] = [{ title: 'GAP FROM' }, { title: 'TO' }, { title: 'FOR', align: 'right' }, { title: 'CAUSE' }]

export function windowCommand(yargs: Argv): Argv {
  return yargs.command(
    'window <target>',
    'What can be restored of a volume: from when, to when, with which gaps',
    (options) =>
      withExamples(
        jsonOption(historyOptions(options)).positional('target', { type: 'string', demandOption: true, describe: 'AGENT:VOLUME' }),
        'window pacs1:images',
      ),
    async ({ data, repository, keyFile, checkpoint, collector, identity, json, target }) => {
      const { agent, volume, path } = parseTarget(target)
      if (path !== '') throw new PacsimileError('usage', 'A window is of a whole volume: AGENT:VOLUME')
      await using source = await openSource({ data, repository, keyFile, checkpoint, collector, identity })
      const window = await source.window(agent, volume)
      if (json) sayJson(windowFields(window))
      else sayWindow(window)
    },
  )
}

export function windowFields(window: Window): object {
  return {
    agent: window.agent,
    volume: window.volume,
    ...bytesFields('root', window.root),
    mode: window.mode,
    from: window.from === undefined ? null : isoTime(millisecondsOf(window.from)),
    to: isoTime(millisecondsOf(window.until)),
    head: window.head,
    gaps: window.gaps.map((gap) => ({ ...spanFields(gap), cause: gap.cause })),
    coverage: window.coverage.map((part) => ({ ...spanFields(part), mode: part.mode })),
  }
}

function sayWindow(window: Window): void {
  say(`${window.agent}:${window.volume}, ${showPath(window.root)} on the agent's host`)
  if (window.from === undefined) warn('the first full scan is not done yet: restored states may lack files')
  else sayEnd('from ', window.from, '')
  sayEnd('to   ', window.until, `, seq ${window.head.epoch}:${window.head.seq}`)
  say(
    window.mode === 'complete'
      ? 'watched complete: every change was seen'
      : 'watched best-effort: verified at each scan; a version that came and went between two scans may be missing',
  )
  say(window.gaps.length === 0 ? 'no gaps' : showCount(window.gaps.length, 'gap'))
  if (window.gaps.length === 0) return
  say()
  sayTable(
    GAP_COLUMNS,
    window.gaps.map(({ from, until, cause }) => [
      showLocalTime(millisecondsOf(from)),
      showLocalTime(millisecondsOf(until)),
      showDuration(millisecondsOf(until) - millisecondsOf(from)),
      cause,
    ]),
  )
}

function sayEnd(title: string, time: HybridTime, more: string): void {
  say(`${title} ${showMoment(millisecondsOf(time))}, ${showAge(millisecondsOf(time))}${more}`)
}
