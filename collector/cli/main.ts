/**
 * The one executable: which command, which options, which exit status.
 *
 * Everything heavy is loaded by the command that needs it, so that `--help` and short commands start at once.
 */
import yargs from 'yargs'
import { PacsimileError } from '../../shared/errors.ts'
import { agentCommand } from './agent-command.ts'
import { checkCommand } from './check-command.ts'
import { collectorCommand, tokenCommand } from './collector-command.ts'
import { reportError } from './command-error.ts'
import { demoCommand } from './demo-command.ts'
import { catCommand, logCommand, lsCommand } from './look-command.ts'
import { endQuietlyOnClosedPipe } from './output.ts'
import { restoreCommand } from './restore-command.ts'
import { statusCommand, waitCommand, windowCommand } from './status-command.ts'

const COMMANDS = [
  demoCommand,
  collectorCommand,
  tokenCommand,
  agentCommand,
  statusCommand,
  waitCommand,
  windowCommand,
  logCommand,
  lsCommand,
  catCommand,
  restoreCommand,
  checkCommand,
]

async function main(args: readonly string[]): Promise<number> {
  endQuietlyOnClosedPipe()
  let cli = yargs([...args])
    .scriptName('pacsimile')
    .usage('$0 COMMAND\n\nContinuous data protection for medical image archives: every change kept, and back at any second.')
    .strict()
    .recommendCommands()
    .demandCommand(1, 'Name a command; --help lists them')
    .completion('completion', 'Print a completion script for the shell')
    .wrap(Math.min(110, process.stdout.columns ?? 100))
    .version()
    .help()
    .fail((message, error) => {
      throw error ?? new PacsimileError('usage', message)
    })
  for (const command of COMMANDS) cli = command(cli)
  try {
    await cli.parseAsync()
    return Number(process.exitCode ?? 0)
  } catch (error) {
    return reportError(
      error instanceof Error && error.name === 'YError' ? new PacsimileError('usage', error.message, { cause: error }) : error,
      args.includes('--json'),
    )
  }
}

process.exitCode = await main(process.argv.slice(2))
