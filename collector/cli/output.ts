/**
 * The two streams of a command: what it found out goes to stdout, everything about the run (progress, warnings, errors)
 * to stderr.
 *
 * Invariant: with --json stdout holds JSON and nothing else, and nothing is coloured unless it goes to a terminal. It
 * prevents scripts that break on a friendly word.
 */
import { once } from 'node:events'
import { styleText } from 'node:util'

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** A reader that went away (`| head`) ends the command quietly. */
export function endQuietlyOnClosedPipe(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
}

export function say(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** Resolves when stdout takes more: for answers that are larger than memory should be. */
export async function readerKeepsUp(): Promise<void> {
  if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain')
}

/** Beside the result. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function warn(line: string): void {
  note(paint('yellow', `warning: ${line}`, process.stderr))
}

/** Leaves text alone where the stream is no terminal or NO_COLOR is set. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream })
}
