/** The copies of a repository as a table: the same in `status` and in `copy list`. */
import type { CopyStatus } from '../copier.ts'
import { showAge, showBytes } from './amounts.ts'
import { paint, say } from './output.ts'
import { type Column, sayTable } from './table.ts'

const COLUMNS: readonly Column[] = [
  { title: 'COPY' },
  { title: 'STATE' },
  { title: 'BEHIND', align: 'right' },
  { title: 'CURRENT' },
  { title: 'PLACE' },
]

export function sayCopies(copies: readonly CopyStatus[]): void {
  sayTable(COLUMNS, copies.map(copyRow))
  for (const { name, state, reason } of copies)
    if (reason !== undefined) say(paint(state === 'forked' ? 'red' : 'yellow', `copy ${name}: ${reason}`))
}

function copyRow({ name, url, state, behindBytes, currentAtMs }: CopyStatus): string[] {
  const behind = behindBytes === undefined ? '?' : showBytes(behindBytes)
  return [name, state, behind, currentAtMs === undefined ? 'not yet' : showAge(currentAtMs), url]
}
