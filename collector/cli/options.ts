/**
 * Options that several commands share, and how examples are shown.
 *
 * Each option is described once. It prevents two commands that take the same word for different things.
 */
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Argv } from 'yargs'

const DEFAULT_DATA = '/var/lib/pacsimile/collector'
const DEFAULT_STATE = '/var/lib/pacsimile/agent'
const DEFAULT_RESTORER = '/var/lib/pacsimile/restorer'

export const AT_HELP = 'A moment: RFC 3339, local time ("2026-11-24 09:30:00"), "10m ago", mark:NAME, seq:N, or now'
export const TARGET = { type: 'string', demandOption: true, describe: 'AGENT:VOLUME[/PATH]' } as const
export const MOMENT = { type: 'string', requiresArg: true } as const

export function dataOption<T>(yargs: Argv<T>): Argv<T & { data: string }> {
  return yargs.option('data', {
    type: 'string',
    describe: "The collector's data directory (or PACSIMILE_DATA)",
    default: process.env['PACSIMILE_DATA'] ?? DEFAULT_DATA,
    requiresArg: true,
  })
}

export function stateOption<T>(yargs: Argv<T>): Argv<T & { state: string }> {
  return yargs.option('state', {
    type: 'string',
    describe: "The agent's state directory (or PACSIMILE_STATE)",
    default: process.env['PACSIMILE_STATE'] ?? DEFAULT_STATE,
    requiresArg: true,
  })
}

/** Where history is read from. */
export function sourceOptions<T>(
  yargs: Argv<T>,
): Argv<T & { data: string } & { repository: string | undefined } & { 'key-file': string | undefined }> {
  return dataOption(yargs)
    .option('repository', { type: 'string', describe: 'Read this bare repository; no collector is needed', requiresArg: true })
    .option('key-file', {
      type: 'string',
      describe: 'Key file of the repository (else PACSIMILE_PASSPHRASE, PACSIMILE_RECOVERY_KEY, or the key file beside it)',
      requiresArg: true,
    })
}

/** The same for commands that read a tree or a log. */
export function historyOptions<T>(yargs: Argv<T>): Argv<
  T & {
    data: string
    repository: string | undefined
    'key-file': string | undefined
    checkpoint: boolean
    collector: string | undefined
    identity: string
  }
> {
  return identityOption(sourceOptions(yargs))
    .option('checkpoint', {
      type: 'boolean',
      describe: 'Of a bare repository, begin at the last checkpoint; --no-checkpoint folds every record',
      default: true,
    })
    .option('collector', {
      type: 'string',
      describe: 'Read over the network, as a restorer: https://HOST:PORT (where it enrolled, on a host that has no collector)',
      requiresArg: true,
    })
}

/** Who this host is when it reads over the network. */
export function identityOption<T>(yargs: Argv<T>): Argv<T & { identity: string }> {
  const own = process.geteuid?.() === 0 ? DEFAULT_RESTORER : join(homedir(), '.config/pacsimile/restorer')
  return yargs.option('identity', {
    type: 'string',
    describe: 'Directory of the certificate that `restorer enroll` made (or PACSIMILE_RESTORER)',
    default: process.env['PACSIMILE_RESTORER'] ?? own,
    requiresArg: true,
  })
}

/** Whether nobody has said where a collector's data is. */
export function isDefaultData(data: string): boolean {
  return data === DEFAULT_DATA
}

export function jsonOption<T>(yargs: Argv<T>): Argv<T & { json: boolean }> {
  return yargs.option('json', { type: 'boolean', describe: 'Answer in JSON', default: false })
}

/** Commands that can be copied as they stand: the columns of yargs' own examples would break them into pieces. */
export function withExamples<T>(yargs: Argv<T>, ...examples: readonly string[]): Argv<T> {
  return yargs.epilogue(`Examples:\n${examples.map((example) => `  pacsimile ${example}`).join('\n')}`)
}
