/**
 * `restore --report FILE` and `restore verify-report FILE`: what was brought back, signed, and whether that is what was signed.
 *
 * Invariant: a report that nobody signed says so when it is written and fails when it is verified. It prevents a file that anybody could have written from being filed as proof.
 */
import { join, resolve } from 'node:path'
import type { Argv } from 'yargs'
import { fingerprintOf, parseCertificate } from '../../shared/certificate.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { readIfPresent } from '../../shared/files.ts'
import type { RestoreReport } from '../restore.ts'
import { showCount } from './amounts.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { note, say, warn } from './output.ts'
import { restoreFields } from './restore-row.ts'
import { openRepository, type SourceOptions } from './source.ts'

export async function keepReport(file: string, report: RestoreReport, from: SourceOptions & { readonly startedMs: number }): Promise<void> {
  const [{ writeReport }, { reportSigner }] = await Promise.all([import('../restore-report.ts'), import('../report-signer.ts')])
  const signer = reportSigner({ dataDir: from.data, repository: from.repository === undefined ? undefined : await opened(from) })
  writeReport(resolve(file), report, restoreFields(report), { startedMs: from.startedMs, endedMs: Date.now() }, signer)
  if ('unsigned' in signer) warn(`the report ${file} is not signed: ${signer.unsigned}`)
  else note(`Report: ${file}, signed`)
}

async function opened(from: SourceOptions): Promise<{ id: string; directory: string; dataKey: Buffer }> {
  const [{ directory, dataKey }, { readDescription }] = await Promise.all([openRepository(from), import('../repository/repository.ts')])
  return { directory, dataKey, id: readDescription(directory).id }
}

export function verifyReportCommand(yargs: Argv): Argv {
  return yargs.command(
    'verify-report <file>',
    'Whether a report is what the collector has signed',
    (options) =>
      withExamples(
        jsonOption(dataOption(options))
          .positional('file', { type: 'string', demandOption: true, describe: 'As restore --report has written it' })
          .option('authority', {
            type: 'string',
            describe: "SHA-256 of the installation's CA certificate, else that of --data",
            requiresArg: true,
          }),
        'restore verify-report report.jsonl --authority 3f0c…',
      ),
    async ({ file, data, authority, json }) => {
      const { verifyReport } = await import('../restore-report.ts')
      const found = verifyReport(file)
      const expected = authority?.toLowerCase().replaceAll(':', '') ?? authorityOf(data)
      if (expected !== undefined && expected !== found.authority)
        throw new PacsimileError('not-trusted', `${file} was signed under the authority ${found.authority}, not under ${expected}`)
      if (json)
        sayJson({
          file: resolve(file),
          signer: found.signer,
          authority: found.authority,
          trusted: expected !== undefined,
          paths: found.paths,
        })
      else say(`${file} is what ${found.signer} has signed: ${showCount(found.paths, 'path')}`)
      if (expected === undefined && !json)
        warn(`whether its authority is yours is for you to compare, or give --authority: SHA-256 ${found.authority}`)
    },
  )
}

/** Undefined also where it may not be read: anybody may verify. */
function authorityOf(data: string): string | undefined {
  try {
    const bytes = readIfPresent(join(data, 'keys/ca.crt'))
    return bytes === undefined ? undefined : fingerprintOf(parseCertificate(bytes))
  } catch (error) {
    if (error instanceof PacsimileError) return undefined
    throw error
  }
}
