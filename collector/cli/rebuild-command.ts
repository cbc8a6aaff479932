/**
 * `pacsimile rebuild`: the catalog anew, from the repository alone.
 *
 * Invariant: it says what the catalog before it was worth. It prevents an index that had gone wrong from being replaced in
 * silence, and a sound one from being doubted for ever.
 */
import { join, resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS } from '../../shared/errors.ts'
import type { RebuildReport } from '../rebuild.ts'
import { showCount, showDuration } from './amounts.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { paint, say, warn } from './output.ts'
import { Progress } from './progress.ts'
import { openRepository, type RepositoryAccess } from './source.ts'

const SECONDS_PER_MINUTE = 60

export function rebuildCommand(yargs: Argv): Argv {
  return yargs.command(
    'rebuild',
    'Make the catalog of a stopped collector anew from its repository; exit 3 on damage',
    (options) =>
      withExamples(
        jsonOption(dataOption(options)).option('key-file', {
          type: 'string',
          describe: 'Key file of the repository (else PACSIMILE_PASSPHRASE, PACSIMILE_RECOVERY_KEY, or the key file beside it)',
          requiresArg: true,
        }),
        'rebuild',
        'rebuild --data /srv/pacsimile --json',
      ),
    async ({ data, keyFile, json }) => {
      const report = await rebuilt(join(resolve(data), 'catalog'), await openRepository({ data, repository: undefined, keyFile }))
      for (const { file, offset, reason } of report.damage) warn(`the repository is damaged: ${file} at byte ${offset}: ${reason}`)
      if (json) sayJson(rebuildFields(report))
      else sayReport(report)
      if (report.damage.length > 0) process.exitCode = ERRORS.damage.exit
    },
  )
}

async function rebuilt(directory: string, { directory: repositoryDirectory, dataKey }: RepositoryAccess): Promise<RebuildReport> {
  const { rebuildCatalog } = await import('../rebuild.ts')
  using progress = new Progress('Rebuilding the catalog')
  const onProgress = (records: number): void => progress.count(records, 'records')
  return await rebuildCatalog({ directory, repositoryDirectory, dataKey, onProgress })
}

export function rebuildFields({ setAside, ...report }: RebuildReport): object {
  return { ...report, setAside: setAside ?? null }
}

function sayReport({ records, chunks, seconds, before, differences, reason, setAside }: RebuildReport): void {
  const rate = Math.round((records / Math.max(seconds, 0.001)) * SECONDS_PER_MINUTE)
  say(
    `Made from ${showCount(records, 'record')} and ${showCount(chunks, 'chunk')} in ${showDuration(seconds * 1000)} (${showCount(rate, 'record')} a minute).`,
  )
  const verdicts = {
    equal: paint('green', 'The catalog before it was equal to it, entry by entry.'),
    missing: 'There was no catalog before it.',
    different: paint('red', `The catalog before it differed in ${showCount(differences, 'entry', 'entries')}.`),
    damaged: paint('red', `The catalog before it cannot be read: ${reason}`),
  }
  say(verdicts[before])
  if (setAside !== undefined) say(`It is kept as ${setAside}; nothing needs it.`)
}
