import { describe, expect, it } from 'vitest'
import { entryRow } from '../../collector/cli/entry-row.ts'
import { ROOT } from '../../shared/path.ts'
import { directoryVersion } from '../support/journal-writer.ts'

describe('a row of a listing', () => {
  it('shows every mode as ls does', () => {
    const special = [
      [0o4000, 3, 'sS'],
      [0o2000, 6, 'sS'],
      [0o1000, 9, 'tT'],
    ] as const
    for (let mode = 0; mode < 0o10000; mode++) {
      const letters = Array.from('drwxrwxrwx', (letter, i) => (i === 0 || (mode >> (9 - i)) & 1 ? letter : '-'))
      for (const [bit, at, [on, off]] of special) if (mode & bit) letters[at] = (letters[at] === 'x' ? on : off) ?? ''
      const entry = { path: ROOT, position: { epoch: 1, seq: 1 }, absent: undefined, version: { ...directoryVersion(), mode } }
      expect(entryRow(entry, '.')[0]).toBe(letters.join(''))
    }
  })
})
