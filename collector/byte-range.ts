/**
 * The Range of an HTTP request (RFC 9110, 14.2): one part of a file.
 */

/** From the first to before the last byte. */
export interface ByteRange {
  readonly from: number
  readonly until: number
}

/** Undefined: the whole of it, also where several parts or other units are asked for. `none`: nothing of it lies there. */
export function rangeOf(header: string | undefined, size: number): ByteRange | 'none' | undefined {
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? []
  if (first === undefined || last === undefined || (first === '' && last === '')) return undefined
  if (first === '') return Number(last) === 0 || size === 0 ? 'none' : { from: Math.max(0, size - Number(last)), until: size }
  const from = Number(first)
  const until = last === '' ? size : Math.min(size, Number(last) + 1)
  // The other way round it is no range, and is passed over.
  if (last !== '' && Number(last) < from) return undefined
  return from >= size ? 'none' : { from, until }
}
