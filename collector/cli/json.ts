/**
 * Answers for machines (docs/json.md): one JSON document, or one a line.
 *
 * Invariant: a name of any bytes comes through exactly: as text where it is UTF-8, else also as base64 in a field beside
 * it. Times are RFC 3339 in UTC. It prevents a script from restoring another file than the one that it was told of.
 */
import type { ByteString } from '../../shared/bytes.ts'
import { type HybridTime, millisecondsOf } from '../../shared/clock.ts'
import { showPath } from '../../shared/path.ts'
import { say } from './output.ts'

export function sayJson(value: unknown): void {
  say(formatJson(value))
}

/** JSON has no bigint: they become decimal strings. */
export function formatJson(value: unknown): string {
  try {
    return JSON.stringify(value)
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    // To look at every field costs several times as much, and most answers have no bigint.
    return JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? field.toString() : field))
  }
}

const ASCII = /^[\0-\x7f]*$/

/** The field `name`, and `nameBytes` where the bytes are not UTF-8; the text is then as people are shown it. */
export function bytesFields<Name extends string>(name: Name, bytes: ByteString): { [Field in Name]: string } & Record<string, string> {
  if (ASCII.test(bytes)) return { [name]: bytes } as { [Field in Name]: string } & Record<string, string>
  const buffer = Buffer.from(bytes, 'latin1')
  const text = buffer.toString('utf8')
  const isText = Buffer.from(text, 'utf8').equals(buffer)
  const fields = isText ? { [name]: text } : { [name]: showPath(bytes), [`${name}Bytes`]: buffer.toString('base64') }
  return fields as { [Field in Name]: string } & Record<string, string>
}

export function isoTime(ms: number): string {
  return new Date(ms).toISOString()
}

export function spanFields({ from, until }: { readonly from: HybridTime; readonly until: HybridTime }): { from: string; until: string } {
  return { from: isoTime(millisecondsOf(from)), until: isoTime(millisecondsOf(until)) }
}
