/**
 * `pacsimile scrub`: reads every byte of the repository from the disk itself, and repairs from parity what is damaged; what that cannot, the
 * running collector may, who knows copies, the replica and agents.
 *
 * Invariant: it exits 0 only when nothing damaged is left. It prevents a repair of a part from passing for one of the whole.
 */
import type { Argv } from 'yargs'
import { asPacsimileError, ERRORS, PacsimileError } from '../../shared/errors.ts'
import type { RepositoryScrub, ScrubReport } from '../scrub.ts'
import { askCollector } from './admin-call.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { sayJson } from './json.ts'
import { jsonOption, sourceOptions, withExamples } from './options.ts'
import { paint, say, warn } from './output.ts'
import { Progress } from './progress.ts'
import { openRepository, type RepositoryAccess } from './source.ts'

const LISTED_MAX = 50
const BYTES_PER_MB = 1e6

export function scrubCommand(yargs: Argv): Argv {
  return yargs.command(
    'scrub',
    'Read every byte of the repository from the disk, and repair what is damaged; exit 3 where something is left',
    (options) =>
      withExamples(
        jsonOption(sourceOptions(options)).option('rate', {
          type: 'number',
          describe: 'MB to read per second at most; as fast as it goes without it',
          requiresArg: true,
        }),
        'scrub',
        'scrub --rate 50 --json',
      ),
    async ({ data, repository, keyFile, rate, json }) => {
      if (rate !== undefined && !(rate > 0)) throw new PacsimileError('usage', `--rate ${rate} is no number of MB above 0`)
      const help = repository === undefined ? helpOf(data) : undefined
      const report = await scrubbed(await openRepository({ data, repository, keyFile }), rate, help)
      if (json) sayJson(report)
      else sayReport(report)
      if (report.left.length > 0) process.exitCode = ERRORS.damage.exit
    },
  )
}

/** Where a collector runs, it heals what parity cannot. */
function helpOf(data: string): RepositoryScrub['help'] {
  return async (files) => {
    try {
      await askCollector(data, 'scrub', { files })
    } catch (error) {
      // What it did by then counts; all of it is read again.
      const { code, message } = asPacsimileError(error, 'Asking the collector')
      if (code !== 'collector-unreachable') warn(`the collector could not help with all of it: ${message}`)
    }
  }
}

async function scrubbed(
  { directory, dataKey }: RepositoryAccess,
  rate: number | undefined,
  help: RepositoryScrub['help'],
): Promise<ScrubReport> {
  const { scrubRepository } = await import('../scrub.ts')
  const { Repository } = await import('../repository/repository.ts')
  const { DEFAULT_PARITY } = await import('../repository/parity.ts')
  using progress = new Progress('Scrubbing')
  const repository = Repository.open(directory, dataKey)
  try {
    const bytesPerSecond = (rate ?? Number.POSITIVE_INFINITY) * BYTES_PER_MB
    const onProgress = ({ bytes, totalBytes }: { bytes: number; totalBytes: number }): void => progress.update(bytes, totalBytes)
    return await scrubRepository(repository, dataKey, { parity: DEFAULT_PARITY, bytesPerSecond, onProgress, ...(help && { help }) })
  } finally {
    repository.close()
  }
}

function sayReport(report: ScrubReport): void {
  say(`Read ${showBytes(report.bytes)} in ${showCount(report.files, 'file')} from the disk in ${showDuration(report.seconds * 1000)}.`)
  if (report.unprotected > 0)
    say(paint('dim', `${showCount(report.unprotected, 'file has', 'files have')} no parity: not full yet, or written without it.`))
  for (const { file, source, blocks, end, chunks } of report.healed) {
    if (source !== 'parity') {
      const what = chunks.length === 0 ? 'the whole file' : showCount(chunks.length, 'chunk')
      say(paint('green', `Made good from ${source}: ${file}, ${what}`))
      continue
    }
    const what = [...(blocks.length > 0 ? [showCount(blocks.length, 'block')] : []), ...(end ? ['what ends it'] : [])]
    say(paint('green', `Repaired from parity: ${file}, ${what.join(' and ')}`))
  }
  if (report.superseded.length > 0)
    say(
      paint(
        'dim',
        `${showCount(report.superseded.length, 'damaged place', 'damaged places')} concern nothing: what was there is stored elsewhere.`,
      ),
    )
  if (report.left.length === 0) {
    say(
      paint(
        'green',
        report.found.length === 0 ? 'Whole: every byte is what was written.' : 'Whole again: nothing that is damaged is needed.',
      ),
    )
    return
  }
  say(paint('red', `Damaged still in ${showCount(report.left.length, 'place')}:`))
  for (const { file, offset, reason } of report.left.slice(0, LISTED_MAX)) say(`    ${file}, byte ${offset}: ${reason}`)
  if (report.left.length > LISTED_MAX) say(`    and ${report.left.length - LISTED_MAX} more (--json lists all)`)
  say('`pacsimile check` names the versions that are concerned.')
}
