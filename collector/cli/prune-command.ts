/**
 * `pacsimile prune`: removes what the retention does not keep, after showing what that is.
 *
 * Invariant: nothing is removed before what goes was shown and agreed to, by a person or by --yes. It prevents a mistyped span in the
 * configuration from costing a history before anybody has seen a number.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import type { PruneReport } from '../prune.ts'
import type { PrunePlan, VolumePlan } from '../prune-plan.ts'
import { showBytes, showCount } from './amounts.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { note, paint, say, warn } from './output.ts'
import { usePruning } from './pruning-source.ts'
import { isAgreed } from './question.ts'
import { type Column, sayTable } from './table.ts'

const COLUMNS: readonly Column[] = [
  { title: 'VOLUME' },
  { title: 'VERSIONS', align: 'right' },
  { title: 'CURRENT', align: 'right' },
  { title: 'RECENT', align: 'right' },
  { title: 'THINNED', align: 'right' },
  { title: 'WORM', align: 'right' },
  { title: 'MARKED', align: 'right' },
  { title: 'HELD', align: 'right' },
  { title: 'SHARED', align: 'right' },
  { title: 'EXPIRE', align: 'right' },
]

export function pruneCommand(yargs: Argv): Argv {
  return yargs.command(
    'prune',
    'Remove what the retention of collector.toml does not keep; the plan is shown first',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .option('key-file', { type: 'string', describe: 'Key file of the repository, where no collector runs', requiresArg: true })
          .option('dry-run', { type: 'boolean', describe: 'Show the plan and change nothing', default: false })
          .option('despite-damage', {
            type: 'boolean',
            describe: 'Although something is damaged: what only damaged records name goes',
            default: false,
          })
          .option('yes', { type: 'boolean', describe: 'Do not ask', default: false }),
        'prune --dry-run',
        'prune --yes --json',
      ),
    async ({ data, keyFile, json, dryRun, despiteDamage, yes }) => {
      await usePruning({ data: resolve(data), keyFile }, async (pruning) => {
        if (dryRun || !yes) {
          const plan = await pruning.plan()
          if (dryRun && json) sayJson({ plan: planFields(plan), done: null })
          else sayPlan(plan)
          if (dryRun || isNothing(plan) || (plan.doubts.length > 0 && !despiteDamage)) return
          if (!process.stdin.isTTY)
            throw new PacsimileError('usage', 'There is no terminal to ask at: give --yes to prune, or --dry-run to look')
          if (!(await isAgreed('Remove this? Expired content cannot be brought back. [y/N] '))) {
            note('Nothing was changed.')
            return
          }
        }
        const report = await pruning.run({ isDespiteDoubts: despiteDamage })
        if (json) sayJson(pruneFields(report))
        else sayReport(report)
      })
    },
  )
}

function isNothing({ volumes, packs, deletable }: PrunePlan): boolean {
  return packs.length === 0 && deletable.length === 0 && volumes.every(({ expiring }) => expiring === 0)
}

export function pruneFields({ plan, ...done }: PruneReport): object {
  return { plan: planFields(plan), done }
}

function planFields({ volumes, packs, deletable, quarantined, deadBytes, doubts }: PrunePlan): object {
  return { volumes, packs, deletable, quarantined, deadBytes, doubts }
}

function sayPlan(plan: PrunePlan): void {
  if (plan.volumes.every(({ isLimited }) => !isLimited))
    say('No volume has a retention: every version is kept for ever. `[retention]` in collector.toml sets one.')
  sayTable(COLUMNS, plan.volumes.map(volumeRow))
  say()
  const moved = sum(plan.packs.map(({ liveBytes }) => liveBytes))
  if (plan.packs.length > 0)
    say(
      `${showCount(plan.packs.length, 'pack')} of ${showBytes(sum(plan.packs.map(({ bytes }) => bytes)))} will be left; ${showBytes(moved)} of that is needed and is stored once more before.`,
    )
  if (plan.quarantined.length > 0)
    say(
      `${showCount(plan.quarantined.length, 'pack')} of ${showBytes(sum(plan.quarantined.map(({ bytes }) => bytes)))} were left earlier and stay for the quarantine.`,
    )
  if (plan.deletable.length > 0)
    say(
      `${showCount(plan.deletable.length, 'pack')} of ${showBytes(sum(plan.deletable.map(({ bytes }) => bytes)))} will be deleted: nothing has led to them for the quarantine.`,
    )
  if (plan.deadBytes > 0)
    say(
      paint(
        'dim',
        `${showBytes(plan.deadBytes)} that nothing needs stay for now: in packs that are young, being written, or mostly needed.`,
      ),
    )
  for (const doubt of plan.doubts) warn(doubt)
  if (plan.doubts.length > 0)
    say(
      paint(
        'yellow',
        'Nothing is removed while that is so: see `pacsimile scrub` and `pacsimile rebuild`; --despite-damage does it all the same.',
      ),
    )
  else if (isNothing(plan)) say('There is nothing to remove.')
}

function volumeRow({ agent, volume, isLimited, versions, kept, expiring, shared }: VolumePlan): string[] {
  const thinned = kept.hourly + kept.daily + kept.monthly
  const name = `${agent}:${volume}${isLimited ? '' : ' (all kept)'}`
  return [name, versions, kept.current, kept.recent, thinned, kept.worm, kept.marked, kept.held, shared, expiring].map((cell) =>
    cell.toLocaleString('en'),
  )
}

function sayReport({ plan, retired, deleted, freedBytes, movedBytes, kept }: PruneReport): void {
  const expired = sum(plan.volumes.map(({ expiring }) => expiring))
  say(`${showCount(expired, 'version')} expired. ${showCount(retired, 'pack was', 'packs were')} left, ${showBytes(movedBytes)} moved.`)
  say(`${showCount(deleted, 'pack was', 'packs were')} deleted: ${showBytes(freedBytes)} are free.`)
  for (const { pack, reason } of kept) warn(`pack ${pack} stays: ${reason}`)
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
