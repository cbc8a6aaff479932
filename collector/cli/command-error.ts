/**
 * How a command ends badly: one line what failed, one line what to do, and the exit status of the table.
 *
 * Invariant: the code decides the status, in text and in JSON alike. It prevents a script and a person from being told
 * two different things by the same failure.
 */
import { inspect } from 'node:util'
import { asPacsimileError, PacsimileError } from '../../shared/errors.ts'
import { formatJson } from './json.ts'
import { note, paint } from './output.ts'

/** @returns the exit status */
export function reportError(error: unknown, json: boolean): number {
  const failure = asPacsimileError(error, 'Unexpected failure')
  if (json) note(formatJson({ error: { code: failure.code, message: failure.message, advice: failure.advice, details: failure.details } }))
  else sayError(failure)
  return failure.exit
}

/** Of a command that makes the configuration: there is no file to correct yet, what is wrong was said on the command line. */
export function asUsage(error: unknown): unknown {
  if (!(error instanceof PacsimileError) || error.code !== 'config-invalid') return error
  return new PacsimileError('usage', error.message, { cause: error })
}

function sayError(failure: PacsimileError): void {
  note(`${paint('red', 'pacsimile:', process.stderr)} ${failure.message}`)
  note(paint('dim', failure.advice, process.stderr))
  // With what caused it, whose stack is the one that helps.
  if (process.env['PACSIMILE_DEBUG'] === '1') note(inspect(failure))
  else if (failure.code === 'internal') note('PACSIMILE_DEBUG=1 shows where.')
}
