/**
 * Tables on a terminal: columns as wide as they need to be, two blanks between them, nothing drawn.
 *
 * The last column is never padded, so that a line ends where its text ends and long paths do not widen all the others.
 */
import { paint, say } from './output.ts'

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
}

/** The titles, then the rows. */
export function tableLines(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const widths = columns.map(({ title }, i) => rows.reduce((width, row) => Math.max(width, (row[i] ?? '').length), title.length))
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, i) => {
        const cell = cells[i] ?? ''
        const width = widths[i] ?? 0
        if (align === 'right') return cell.padStart(width)
        return i === columns.length - 1 ? cell : cell.padEnd(width)
      })
      .join('  ')
  return [columns.map(({ title }) => title), ...rows].map(line)
}

export function sayTable(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const [titles = '', ...lines] = tableLines(columns, rows)
  say(paint('bold', titles))
  for (const line of lines) say(line)
}
