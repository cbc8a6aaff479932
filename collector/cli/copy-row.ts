/** The copies of a repository as a table: the same in `status` and in `copy list`. */
import type { CopyReport } from '../copier.ts'
import { showAge, showBytes, showCount } from './amounts.ts'
import { paint, say } from './output.ts'
import { type Column, sayTable } from './table.ts'

const COLUMNS: readonly Column[] = [
  { title: 'COPY' },
  { title: 'STATE' },
  { title: 'BEHIND', align: 'right' },
  { title: 'CURRENT' },
  { title: 'VERIFIED' },
  { title: 'PLACE' },
]

export function sayCopies(copies: readonly CopyReport[]): void {
  sayTable(COLUMNS, copies.map(copyRow))
  for (const { name, state, reason, damaged } of copies) {
    if (reason !== undefined) say(paint(state === 'forked' ? 'red' : 'yellow', `copy ${name}: ${reason}`))
    if (damaged > 0)
      say(
        paint(
          'red',
          `copy ${name}: ${showCount(damaged, 'file')} of it ${damaged === 1 ? 'is' : 'are'} damaged: run \`pacsimile copy verify ${name}\``,
        ),
      )
  }
}

function copyRow({ name, url, state, behindBytes, currentAtMs, verifiedSinceMs }: CopyReport): string[] {
  const behind = behindBytes === undefined ? '?' : showBytes(behindBytes)
  const ages = [currentAtMs, verifiedSinceMs].map((ms) => (ms === undefined ? 'not yet' : showAge(ms)))
  return [name, state, behind, ...ages, url]
}
