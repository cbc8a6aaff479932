/**
 * The one executable: which command, which options, which exit status.
 *
 * Everything heavy is loaded by the command that needs it, so that `--help` and short commands start at once. Invariant:
 * a command line that is not understood whole is refused before anything is done. It prevents a mistyped option from
 * being ignored by a command that overwrites or restores.
 */
import yargs from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { keepHeapSmall } from '../../shared/heap.ts'
import { agentCommand } from './agent-command.ts'
import { catCommand } from './cat-command.ts'
import { checkCommand } from './check-command.ts'
import { collectorCommand } from './collector-command.ts'
import { reportError } from './command-error.ts'
import { copyCommand } from './copy-command.ts'
import { demoCommand } from './demo-command.ts'
import { diffCommand } from './diff-command.ts'
import { failoverCommand } from './failover-command.ts'
import { findCommand } from './find-command.ts'
import { historyCommand } from './history-command.ts'
import { holdCommand } from './hold-command.ts'
import { keysCommand } from './keys-command.ts'
import { logCommand } from './log-command.ts'
import { lsCommand } from './ls-command.ts'
import { markCommand, marksCommand } from './mark-command.ts'
import { mountCommand } from './mount-command.ts'
import { endWithoutReader } from './output.ts'
import { pruneCommand } from './prune-command.ts'
import { rebuildCommand } from './rebuild-command.ts'
import { replicaCommand } from './replica-command.ts'
import { restoreCommand } from './restore-command.ts'
import { restorerCommand } from './restorer-command.ts'
import { scrubCommand } from './scrub-command.ts'
import { statusCommand } from './status-command.ts'
import { tokenCommand } from './token-command.ts'
import { waitCommand } from './wait-command.ts'
import { windowCommand } from './window-command.ts'

const COMMANDS = [
  demoCommand,
  collectorCommand,
  tokenCommand,
  agentCommand,
  restorerCommand,
  statusCommand,
  waitCommand,
  windowCommand,
  logCommand,
  lsCommand,
  catCommand,
  findCommand,
  historyCommand,
  diffCommand,
  markCommand,
  marksCommand,
  restoreCommand,
  mountCommand,
  replicaCommand,
  failoverCommand,
  checkCommand,
  scrubCommand,
  rebuildCommand,
  pruneCommand,
  holdCommand,
  keysCommand,
  copyCommand,
]

/** Costs every command a few percent of its time, and those that look at a whole history a third of their memory. */
const HEAP_GROWING_PERCENT = 100

/** The options that may be given several times. */
const REPEATABLE = new Set(['_', 'volume', 'owner-map', 'ownerMap', 'allow'])

/** yargs makes a list of an option that is given twice; no command means that. */
function eachOnce(options: Record<string, unknown>): true {
  const repeated = Object.keys(options).find((name) => Array.isArray(options[name]) && !REPEATABLE.has(name))
  if (repeated === undefined) return true
  throw new PacsimileError('usage', `--${repeated} is given more than once`)
}

/** yargs counts words and does not say which are missing. */
function plainly(message: string): string {
  const [, got, need] = /^Not enough non-option arguments: got (\d+), need at least (\d+)/.exec(message) ?? []
  return got === undefined ? message : `The command needs ${need} words behind its name and has ${got}; its first line of --help names them`
}

async function main(args: readonly string[]): Promise<number> {
  const isForMachines = args.includes('--json')
  endWithoutReader((error) => reportError(error, isForMachines))
  keepHeapSmall(HEAP_GROWING_PERCENT)
  let cli = yargs([...args])
    .scriptName('pacsimile')
    .locale('en')
    .usage('$0 COMMAND\n\nContinuous data protection for medical image archives: every change kept, and back at any second.')
    .strict()
    .recommendCommands()
    .demandCommand(1, 'Name a command; --help lists them')
    .completion('completion', 'Print a completion script for the shell')
    .wrap(Math.min(110, process.stdout.columns ?? 100))
    .check(eachOnce)
    .version()
    .help()
    .fail((message, error) => {
      throw error ?? new PacsimileError('usage', plainly(message.replaceAll(/\s*\n\s*/g, ' ')))
    })
  for (const command of COMMANDS) cli = command(cli)
  try {
    await cli.parseAsync()
    return Number(process.exitCode ?? 0)
  } catch (error) {
    return reportError(
      error instanceof Error && error.name === 'YError' ? new PacsimileError('usage', error.message, { cause: error }) : error,
      isForMachines,
    )
  }
}

process.exitCode = await main(process.argv.slice(2))
