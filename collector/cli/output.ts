/**
 * The two streams of a command: what it found out goes to stdout, everything about the run (progress, warnings, errors)
 * to stderr.
 *
 * Invariant: lines of both come in the order in which they were said, with --json stdout holds JSON and nothing else, and nothing is coloured
 * unless it goes to a terminal. It prevents scripts that break on a friendly word.
 */
import { once } from 'node:events'
import { styleText } from 'node:util'
import { asPacsimileError } from '../../shared/errors.ts'

/** Lines that go to no terminal are written together: one by one each costs a system call. */
const GATHER_CHARACTERS = 64 << 10
let unwritten = ''

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** A reader that went away (`| head`) ends the command quietly; a disk that does not take the answer ends it with what `report` says. */
export function endWithoutReader(report: (error: Error) => number): void {
  process.on('exit', writeSaid)
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : report(asPacsimileError(error, 'Writing the answer')))
  })
}

export function say(line = ''): void {
  if (unwritten === '' && !process.stdout.isTTY) setImmediate(writeSaid)
  unwritten += `${line}\n`
  if (unwritten.length >= GATHER_CHARACTERS || process.stdout.isTTY) writeSaid()
}

/** At the latest before the process waits for anything. */
function writeSaid(): void {
  if (unwritten === '') return
  const text = unwritten
  unwritten = ''
  process.stdout.write(text)
}

/** Resolves when what was said is with the reader; never where that is not possible, which ends the command. */
export async function wasSaid(): Promise<void> {
  writeSaid()
  await new Promise<void>((resolve) => {
    process.stdout.write('', (error) => {
      if (!error) resolve()
    })
  })
}

/** Resolves when stdout takes more: for answers that are larger than memory should be. */
export async function readerKeepsUp(): Promise<void> {
  if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain')
}

/** Beside the result. */
export function note(line: string): void {
  // Both may be read by one.
  writeSaid()
  process.stderr.write(`${line}\n`)
}

export function warn(line: string): void {
  note(paint('yellow', `warning: ${line}`, process.stderr))
}

/** Leaves text alone where the stream is no terminal or NO_COLOR is set. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream })
}
