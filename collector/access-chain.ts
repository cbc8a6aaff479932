/**
 * How the lines of the access log are chained (docs/format.md, "Access log"). Pure.
 *
 * The hash of a line is BLAKE3 of that of the line before and of its own bytes, which end before its `chain`. Invariant: every line is in the chain,
 * also one that carries no hash itself, for an older release or a power cut has left it. It prevents a line from being taken out, or put in,
 * without another hash in every line behind it.
 */
import { type Digest, digestFromHex, digestHex, digestOf, NO_DIGEST } from '../shared/digest.ts'

export interface AccessLine {
  /** What is hashed: the line without its own hash. */
  readonly content: Buffer
  /** The hash that it carries. */
  readonly chain: Digest | undefined
}

/** A place in the log: so many bytes of a day's file, and the hash of the line that ends there. */
export interface AccessEnd {
  /** YYYY-MM-DD, UTC. */
  readonly day: string
  readonly bytes: number
  readonly hash: Digest
}

const CHAIN = /^,"chain":"([0-9a-f]{64})"\}$/
const CHAIN_BYTES = 76
const HASH = /^[0-9a-f]{64}$/
const END_OF_OBJECT = Buffer.from('}')

/** @param line without its end */
export function accessLine(line: Buffer): AccessLine {
  const [, hex] = CHAIN.exec(line.subarray(-CHAIN_BYTES).toString('latin1')) ?? []
  if (hex === undefined) return { content: line, chain: undefined }
  return { content: Buffer.concat([line.subarray(0, -CHAIN_BYTES), END_OF_OBJECT]), chain: digestFromHex(hex) }
}

/** The hash of a line behind one of that hash. */
export function hashBehind(previous: Digest, content: Uint8Array): Digest {
  return digestOf(Buffer.concat([Buffer.from(previous, 'latin1'), content]))
}

/** A line with its end. `isFirst`: of its file, where it also says what it follows. */
export function chainedLine(previous: Digest, facts: object, isFirst: boolean): { readonly bytes: Buffer; readonly hash: Digest } {
  const content = JSON.stringify(isFirst ? { ...facts, previous: digestHex(previous) } : facts)
  const hash = hashBehind(previous, Buffer.from(content, 'utf8'))
  return { bytes: Buffer.from(`${content.slice(0, -1)},"chain":"${digestHex(hash)}"}\n`, 'utf8'), hash }
}

/** What the first line of a file says that it follows; undefined for one of an older release. */
export function previousOf(content: Buffer): Digest | undefined {
  try {
    const facts: unknown = JSON.parse(content.toString('utf8'))
    const said = typeof facts === 'object' && facts !== null && 'previous' in facts ? facts.previous : undefined
    return typeof said === 'string' && HASH.test(said) ? digestFromHex(said) : undefined
  } catch {
    // No JSON: a power cut has left it.
    return undefined
  }
}

/** The end of the chain behind these lines. `start`: what stands before them, where none of them carries a hash. */
export function chainBehind(lines: readonly Buffer[], start: Digest = NO_DIGEST): Digest {
  const parsed = lines.map(accessLine)
  const last = parsed.findLastIndex(({ chain }) => chain !== undefined)
  return parsed.slice(last + 1).reduce((hash, { content }) => hashBehind(hash, content), parsed[last]?.chain ?? start)
}
