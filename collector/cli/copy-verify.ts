/**
 * `pacsimile copy verify`: is every byte of a copy what was written?
 *
 * Invariant: it exits 0 only when nothing that is wrong there is left. It prevents a rescue from beginning with the discovery that the
 * copy is none.
 */
import { resolve } from 'node:path'
import type { Argv } from 'yargs'
import { ERRORS } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import type { CopyVerifyReport, WatchedCopier } from '../copy-verify.ts'
import type { FrameFileKind } from '../repository/file-header.ts'
import { askCollector } from './admin-call.ts'
import { showBytes, showCount, showDuration } from './amounts.ts'
import { orOnData } from './copy-data.ts'
import { sayJson } from './json.ts'
import { dataOption, jsonOption, withExamples } from './options.ts'
import { paint, say } from './output.ts'
import { Progress } from './progress.ts'
import { openRepository } from './source.ts'

const LISTED_MAX = 50

interface VerifyOptions {
  readonly data: string
  readonly name: string
  readonly repair: boolean
  readonly keyFile: string | undefined
}

export function verifyCommand(yargs: Argv): Argv {
  return yargs.command(
    'verify <name>',
    'Read every byte of a copy, and compare it with its checksums and with the repository; exit 3 where something is wrong',
    (options) =>
      withExamples(
        jsonOption(dataOption(options.positional('name', { type: 'string', demandOption: true, describe: 'What the copy is called here' })))
          .option('repair', {
            type: 'boolean',
            describe: 'Put right what is damaged or missing there, from the repository',
            default: false,
          })
          .option('key-file', { type: 'string', describe: 'Key file of the repository, where no collector runs', requiresArg: true }),
        'copy verify vault',
        'copy verify vault --repair --json',
      ),
    async (options) => {
      const report = await orOnData(
        async () => (await askCollector(options.data, 'copyVerify', { name: options.name, repairs: options.repair })) as CopyVerifyReport,
        () => verifyOnData(options),
      )
      if (options.json) sayJson(report)
      else sayReport(report)
      if (report.findings.some(({ isRepaired }) => !isRepaired)) process.exitCode = ERRORS.damage.exit
    },
  )
}

async function verifyOnData({ data, name, repair, keyFile }: VerifyOptions): Promise<CopyVerifyReport> {
  const [{ CopyCare }, { definitionsIn, instanceOf, openCopy }, { Repository }, { unknownCopy }, { nameOf }, { Lease }] = await Promise.all(
    [
      import('../copy-care.ts'),
      import('../copy-definition.ts'),
      import('../repository/repository.ts'),
      import('../copies.ts'),
      import('../repository/copy.ts'),
      import('../repository/copy-lease.ts'),
    ],
  )
  const dataDir = resolve(data)
  const definitions = definitionsIn(dataDir)
  const named = definitions.find((known) => known.name === label(name, 'The name of a copy'))
  if (named === undefined)
    throw unknownCopy(
      name,
      definitions.map((known) => known.name),
    )
  const { directory, dataKey } = await openRepository({ data, repository: undefined, keyFile })
  const repository = Repository.open(directory, dataKey)
  using progress = new Progress('Verifying')
  try {
    const end = (kind: FrameFileKind): { file: number; offset: number } => ({ file: (repository.numbers(kind).at(-1) ?? 0) + 1, offset: 0 })
    const committed = { packs: end('pack'), segments: end('segment') }
    const care = new CopyCare({ dataDir, repository, committed: () => committed, dataKey, isDamaged: () => false })
    const again: string[] = []
    const copier: WatchedCopier = { redo: (kind, number) => void again.push(nameOf(kind, number)), holding: () => 'all' }
    const { signal } = new AbortController()
    const report = await care.withVerifier(
      named,
      { copier, bytesPerSecond: Number.POSITIVE_INFINITY },
      (verifier) => verifier.verify(repair, signal, (bytes, total) => progress.update(bytes, total)),
      signal,
    )
    if (again.length > 0) {
      await using copy = await openCopy(named.definition, signal)
      await Lease.require(copy, { repository: repository.id, instance: instanceOf(dataDir) })
      // The collector writes them anew when it starts.
      for (const file of again) await copy.remove(file)
    }
    return report
  } finally {
    repository.close()
  }
}

function sayReport({ copy, url, files, bytes, seconds, findings, better }: CopyVerifyReport): void {
  say(`Read ${showBytes(bytes)} in ${showCount(files, 'file')} of ${copy} (${url}) in ${showDuration(seconds * 1000)}.`)
  for (const { file, reason } of better)
    say(paint('yellow', `The copy has ${file}, and it is whole there; of the repository: ${reason}. Scrubbing takes it from the copy.`))
  for (const { file, kind, offset, reason, isRepaired } of findings.slice(0, LISTED_MAX))
    say(paint(isRepaired ? 'green' : 'red', `${isRepaired ? 'Repaired' : 'Wrong'}: ${file}, ${kind} at byte ${offset}: ${reason}`))
  if (findings.length > LISTED_MAX) say(`    and ${findings.length - LISTED_MAX} more (--json lists all)`)
  if (findings.length === 0) say(paint('green', 'Whole: every byte that is there is what was written.'))
  else if (findings.some(({ kind, isRepaired }) => !isRepaired && kind !== 'other'))
    say('`--repair` puts right what the repository has whole.')
}
