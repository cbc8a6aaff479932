import { describe, expect, it } from 'vitest'
import { showAge, showBytes, showCount, showDuration } from '../../collector/cli/amounts.ts'
import { parseDuration } from '../../collector/cli/duration.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe('amounts', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [10_189, '10 KiB'],
    [20 << 20, '20 MiB'],
    [(1 << 20) - 1, '1.0 MiB'],
    [3 * 1024 ** 4, '3.0 TiB'],
    [5000 * 1024 ** 5, '5000 PiB'],
  ])('%d bytes are %s', (bytes, text) => {
    expect(showBytes(bytes)).toBe(text)
  })

  it.each([
    [0, '0 ms'],
    [5.4, '5 ms'],
    [999.7, '1.0 s'],
    [1500, '1.5 s'],
    [59_970, '1 min'],
    [250_000, '4 min 10 s'],
    [HOUR, '1 h'],
    [3 * HOUR + 5 * MINUTE, '3 h 5 min'],
    [2 * DAY + 7 * HOUR, '2 d 7 h'],
  ])('%d ms are %s', (ms, text) => {
    expect(showDuration(ms)).toBe(text)
  })

  it('of time passed are never negative, whatever the clocks say', () => {
    expect(showAge(1000, 3500)).toBe('2.5 s ago')
    expect(showAge(4000, 3500)).toBe('0 ms ago')
  })

  it('are counted in the right number', () => {
    expect([showCount(1, 'file'), showCount(0, 'file'), showCount(1234, 'study', 'studies')]).toEqual([
      '1 file',
      '0 files',
      '1,234 studies',
    ])
  })

  it('of time are read with their unit, and refused without sense', () => {
    expect(['60s', '1.5h', '250ms', '5', ' 7d '].map((text) => parseDuration(text, 'x'))).toEqual([MINUTE, 1.5 * HOUR, 250, 5000, 7 * DAY])
    for (const text of ['', 'soon', '5 parsecs', '-1s', '1h30m']) expect(() => parseDuration(text, '--ttl')).toThrow('--ttl')
  })
})
