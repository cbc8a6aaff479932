/**
 * Amounts as people say them: bytes, durations, counts.
 *
 * Rounding comes before the choice of the unit. It prevents `1024 KiB` and `60.0 s`, which make a reader look twice.
 */
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1.5 MiB`. */
export function showBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit > 0 && value < 9.95 ? 1 : 0
  return `${value.toFixed(digits)} ${UNITS[unit] ?? ''}`
}

/** `850 ms`, `12.3 s`, `4 min 10 s`, `1 h`, `3 h 5 min`, `2 d 4 h`. */
export function showDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  if (hours === 0) return twoUnits(minutes, 'min', seconds % 60, 's')
  return hours < 48 ? twoUnits(hours, 'h', minutes % 60, 'min') : twoUnits(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function twoUnits(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`
}

/** `24.5 s ago`; a clock that is a little ahead does not make it the future. */
export function showAge(sinceMs: number, now = Date.now()): string {
  return `${showDuration(Math.max(0, now - sinceMs))} ago`
}

/** `in 12 d`, or `3 d ago`. */
export function showWhen(ms: number, now = Date.now()): string {
  return ms > now ? `in ${showDuration(ms - now)}` : showAge(ms, now)
}

export function showCount(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`
}
