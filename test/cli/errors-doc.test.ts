import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ERRORS } from '../../shared/errors.ts'

const DOCUMENT = readFileSync(join(import.meta.dirname, '../../docs/errors.md'), 'utf8')

describe('docs/errors.md', () => {
  it('has exactly the rows of the table in code', () => {
    const rows = DOCUMENT.split('\n').filter((line) => line.startsWith('| `'))
    const expected = Object.entries(ERRORS).map(
      ([code, meaning]) =>
        `| \`${code}\` | ${meaning.exit} | ${meaning.retryable ? 'yes' : 'no'} | ${meaning.advice.replaceAll('|', '\\|')} |`,
    )
    expect(rows).toEqual(expected)
  })

  it('explains every exit status', () => {
    const explained = [...DOCUMENT.matchAll(/^- \*\*(\d+)\*\*/gm)].map((match) => Number(match[1]))
    expect(explained).toEqual([0, ...new Set(Object.values(ERRORS).map((meaning) => meaning.exit))])
  })
})
