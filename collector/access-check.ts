/**
 * Whether the access log is what was written: its chain, and what the ledger says of it.
 *
 * Invariant: the first line that is not as it was written, or behind which one is missing, is named; what no hash vouches for is counted, and not called
 * whole. It prevents a log from which a line was taken out from being shown to an auditor.
 */
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { type Digest, NO_DIGEST } from '../shared/digest.ts'
import { asPacsimileError, errnoOf } from '../shared/errors.ts'
import { type AccessEnd, accessLine, hashBehind, previousOf } from './access-chain.ts'
import { accessFiles } from './access-log.ts'

export interface AccessCheck {
  readonly files: number
  readonly lines: number
  /** For which no hash vouches: of an older release, or at the very end. */
  readonly unchained: number
  /** The last day of which the ledger knows something, and how many bytes of it. */
  readonly anchored: Pick<AccessEnd, 'day' | 'bytes'> | undefined
  /** The first that is wrong; undefined where nothing is. */
  readonly broken: BrokenLine | undefined
}

export interface BrokenLine {
  /** Of the directory. */
  readonly file: string
  /** From 1. */
  readonly line: number
  readonly reason: string
}

interface FoundLine {
  readonly content: Buffer
  readonly chain: Digest | undefined
  /** Bytes of the file up to its end. */
  readonly bytes: number
}

const LINE_END = 0x0a
const EXTENSION = '.jsonl'

/** @param anchors what the ledger says, in its order. @throws io */
export async function checkAccessLog(directory: string, anchors: readonly AccessEnd[]): Promise<AccessCheck> {
  const checker = new Checker(directory, anchors)
  try {
    await checker.run()
  } catch (error) {
    throw asPacsimileError(error, `Reading ${directory}`)
  }
  return checker
}

class Checker implements AccessCheck {
  files = 0
  lines = 0
  readonly anchored: AccessCheck['anchored']
  broken: BrokenLine | undefined
  readonly #directory: string
  readonly #anchors = new Map<string, AccessEnd[]>()
  /** Of the line before. */
  #hash = NO_DIGEST
  /** Whether a hash vouches for that one. */
  #isVouched = false
  /** Lines without a hash since the last that carries one, and those for which none vouches. */
  #pending = 0
  #unvouched = 0

  constructor(directory: string, anchors: readonly AccessEnd[]) {
    this.#directory = directory
    const last = anchors.at(-1)
    this.anchored = last && { day: last.day, bytes: last.bytes }
    for (const anchor of anchors) this.#anchors.set(anchor.day, [...(this.#anchors.get(anchor.day) ?? []), anchor])
  }

  get unchained(): number {
    return this.#unvouched + this.#pending
  }

  async run(): Promise<void> {
    const names = filesIn(this.#directory)
    this.files = names.length
    for (const [i, name] of names.entries()) await this.#read(name, i === names.length - 1)
    // Whole days at the beginning may have been moved away, as the rules ask for.
    const [first] = names
    if (first === undefined) return
    const days = new Set(names.map(dayOf))
    for (const day of this.#anchors.keys())
      if (day > dayOf(first) && !days.has(day)) this.#note(`${day}${EXTENSION}`, 1, 'the ledger knows of this file, and it is missing')
  }

  async #read(name: string, isNewest: boolean): Promise<void> {
    const anchors = this.#anchors.get(dayOf(name)) ?? []
    const known = new Map(anchors.map(({ bytes, hash }) => [bytes, hash]))
    let line = 0
    let reached = 0
    for await (const found of linesOf(join(this.#directory, name), !isNewest)) {
      line += 1
      this.#take(name, line, found)
      reached = found.bytes
      const said = known.get(reached)
      known.delete(reached)
      if (said !== undefined && said !== this.#hash) this.#note(name, line, 'up to here the ledger knows other lines than these')
    }
    const [missed] = known.keys()
    if (missed !== undefined)
      this.#note(
        name,
        line + 1,
        missed > reached ? 'lines are missing here that the ledger knows of' : 'the ledger knows of a line that ends elsewhere',
      )
  }

  #take(name: string, line: number, { content, chain }: FoundLine): void {
    this.lines += 1
    const previous = line === 1 ? previousOf(content) : undefined
    if (previous !== undefined) {
      if (this.#isVouched && previous !== this.#hash)
        this.#note(name, line, 'it does not follow the file before it: lines are missing between, or were altered there')
      this.#hash = previous
    } else if (line === 1 && chain !== undefined && !this.#isVouched) {
      this.#note(name, line, 'it is not the first line of its file: lines before it are missing')
    }
    const isCertain = this.#isVouched || previous !== undefined
    const expected = hashBehind(this.#hash, content)
    this.#hash = chain ?? expected
    if (chain === undefined) {
      this.#pending += 1
      return
    }
    if (isCertain && chain !== expected)
      this.#note(name, line, 'it, or a line before it that carries no hash, was altered, or lines before it are missing')
    // It vouches for those before it that carry none, where it is known what stands before those.
    if (!this.#isVouched) this.#unvouched += this.#pending
    this.#pending = 0
    this.#isVouched = true
  }

  #note(file: string, line: number, reason: string): void {
    this.broken ??= { file, line, reason }
  }
}

function filesIn(directory: string): string[] {
  try {
    return accessFiles(directory)
  } catch (error) {
    // Nobody has read over the network yet.
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}

function dayOf(name: string): string {
  return name.slice(0, -EXTENSION.length)
}

/** One at the end that is being written is none yet, where nothing is written any more it is one: `withTorn`. */
async function* linesOf(file: string, withTorn: boolean): AsyncGenerator<FoundLine> {
  let left: Buffer = Buffer.alloc(0)
  let bytes = 0
  for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    left = left.length === 0 ? piece : Buffer.concat([left, piece])
    let from = 0
    for (let end = left.indexOf(LINE_END); end >= 0; end = left.indexOf(LINE_END, from)) {
      bytes += end + 1 - from
      yield { ...accessLine(left.subarray(from, end)), bytes }
      from = end + 1
    }
    left = left.subarray(from)
  }
  if (withTorn && left.length > 0) yield { ...accessLine(left), bytes: bytes + left.length }
}
