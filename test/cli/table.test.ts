import { expect, it } from 'vitest'
import { tableLines } from '../../collector/cli/table.ts'

it('a table is as wide as its cells, aligns numbers right, and does not pad its end', () => {
  const columns = [{ title: 'NAME' }, { title: 'SIZE', align: 'right' }, { title: 'PATH' }] as const
  const rows = [
    ['a', '1', '/srv/a'],
    ['a-long-name', '12,345', '/srv'],
    ['short', '', ''],
  ]
  expect(tableLines(columns, rows)).toEqual([
    'NAME           SIZE  PATH',
    'a                 1  /srv/a',
    'a-long-name  12,345  /srv',
    'short                ',
  ])
})

it('a table without rows is its titles', () => {
  expect(tableLines([{ title: 'A' }, { title: 'B' }], [])).toEqual(['A  B'])
})
