import { expect, it } from 'vitest'
import { progressLine } from '../../collector/cli/progress.ts'

const MIB = 1 << 20

it('progress says share, rate, and time left at that rate', () => {
  expect(progressLine('Restoring', MIB, 4 * MIB, 1000)).toBe('Restoring: 25 % of 4.0 MiB, 1.0 MiB/s, 3.0 s left')
  expect(progressLine('Restoring', MIB, 4 * MIB, 2000, ', 1 of 9 files')).toBe(
    'Restoring: 25 % of 4.0 MiB, 1 of 9 files, 512 KiB/s, 6.0 s left',
  )
})

it('progress promises nothing while nothing is done, and never more than all', () => {
  expect(progressLine('Checking', 0, MIB, 900)).toBe('Checking: 0 % of 1.0 MiB, 0 B/s, no end in sight yet')
  expect(progressLine('Checking', 2 * MIB, MIB, 1000)).toBe('Checking: 100 % of 1.0 MiB, 2.0 MiB/s, 0 ms left')
  expect(progressLine('Checking', 0, 0, 1000)).toContain('100 %')
})
