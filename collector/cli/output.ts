/**
 * What a command says: one JSON document (or one a line) with --json, else text made for reading.
 *
 * Results go to stdout, everything about the run (progress, warnings, errors) to stderr. Invariant: with --json stdout
 * holds JSON and nothing else, and nothing is coloured unless it goes to a terminal. It prevents scripts that break on a
 * friendly word.
 */
import { styleText } from 'node:util'
import { type ByteString } from '../../shared/bytes.ts'
import { showPath } from '../../shared/path.ts'

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

/** Beside the result: warnings, notes. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function warn(line: string): void {
  note(paint('yellow', `warning: ${line}`, process.stderr))
}

export function sayJson(value: unknown): void {
  say(formatJson(value))
}

export function formatJson(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))
}

/** styleText itself leaves text alone where the stream is no terminal or NO_COLOR is set. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream })
}

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
}

/** Lines of a table, columns as wide as they need to be. */
function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const widths = columns.map((column, i) => Math.max(column.title.length, ...rows.map((row) => (row[i] ?? '').length)))
  const line = (cells: readonly string[]): string =>
    columns
      .map((column, i) => {
        const cell = cells[i] ?? ''
        if (column.align === 'right') return cell.padStart(widths[i] ?? 0)
        return i === columns.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)
      })
      .join('  ')
  return [paint('bold', line(columns.map((column) => column.title))), ...rows.map(line)]
}

export function sayTable(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  for (const line of table(columns, rows)) say(line)
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1.5 MiB`. */
export function showBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return unit === 0 ? `${bytes} B` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit] ?? ''}`
}

/** `850 ms`, `12.3 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`. */
export function showDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor((ms % 60_000) / 1000)} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

export function showCount(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`
}

/** How a path appears in JSON: text for people, and its exact bytes where the text cannot carry them. */
export function pathFields(path: ByteString): { path: string; pathBytes?: string } {
  const bytes = Buffer.from(path, 'latin1')
  const text = bytes.toString('utf8')
  const isText = Buffer.from(text, 'utf8').equals(bytes)
  return isText ? { path: text } : { path: showPath(path), pathBytes: bytes.toString('base64') }
}
