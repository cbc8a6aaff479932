/**
 * Who read what of the history, and when: DATA/access/DAY.jsonl, a line for each question of a restorer and one for how it ended.
 *
 * Invariant: nothing is answered before the line that says so was handed to the operating system; where it cannot be written, nothing is
 * answered. Each line carries a hash over all before it (access-chain.ts). It prevents a read of patients' data that nobody can be told of, and a
 * line from being taken out afterwards. Nothing is ever removed here; a power cut may cost the last seconds.
 */
import { closeSync, fdatasyncSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock, type WallClock } from '../shared/clock.ts'
import { type Digest, NO_DIGEST } from '../shared/digest.ts'
import { asPacsimileError } from '../shared/errors.ts'
import { makeDirectory, writeFully } from '../shared/files.ts'
import type { Label } from '../shared/path.ts'
import { type AccessEnd, accessLine, chainBehind, chainedLine } from './access-chain.ts'

/** Who asks, and how that is known. */
export interface Reader {
  readonly name: Label
  readonly by: 'certificate' | 'password'
  readonly address: string
}

interface OpenDay {
  readonly day: string
  readonly fd: number
  bytes: number
}

const DAY_FILE = /^\d{4}-\d\d-\d\d\.jsonl$/
/** Read of a file's end at first; a line may be longer. */
const TAIL_BYTES = 256 * 1024
const LINE_END = 0x0a

export class AccessLog implements Disposable {
  readonly #directory: string
  readonly #clock: WallClock
  #open: OpenDay | undefined
  /** Of the last line; undefined where that has to be looked up. */
  #hash: Digest | undefined
  #end: AccessEnd | undefined
  /** Of this run of the collector; with the time of its start it names a question for ever. */
  #asked = 0
  readonly #run: string

  constructor(dataDir: string, clock: WallClock = systemClock) {
    this.#directory = accessDirectory(dataDir)
    this.#clock = clock
    this.#run = clock.now().toString(36)
    makeDirectory(this.#directory)
  }

  /** Behind the last line of this run, durably; undefined where it has written none. @throws io */
  durableEnd(): AccessEnd | undefined {
    try {
      if (this.#open !== undefined) fdatasyncSync(this.#open.fd)
    } catch (error) {
      throw asPacsimileError(error, `Writing to ${this.#directory}`)
    }
    return this.#end
  }

  /** @param facts what is asked for. @returns how `ended` names it. @throws io, space */
  asked({ name, by, address }: Reader, what: string, facts: object): string {
    this.#asked += 1
    const id = `${this.#run}-${this.#asked}`
    this.#write({ id, event: 'asked', restorer: name, by, address, what, ...facts })
    return id
  }

  /** @param outcome `whole`, or the code of an error. Never throws: what can be said no more was said by `asked`. */
  ended(id: string, outcome: string, bytes: number): void {
    try {
      this.#write({ id, event: 'ended', outcome, bytes })
    } catch {
      // The next question fails for the same reason, and says it.
    }
  }

  #write(line: object): void {
    const time = new Date(this.#clock.now()).toISOString()
    try {
      const open = this.#opened(time.slice(0, 10))
      const { bytes, hash } = chainedLine(this.#hash ?? NO_DIGEST, { time, ...line }, open.bytes === 0)
      writeFully(open.fd, bytes)
      open.bytes += bytes.length
      this.#hash = hash
      this.#end = { day: open.day, bytes: open.bytes, hash }
    } catch (error) {
      // What of the line is there, only who reads the file anew can tell.
      if (this.#open !== undefined) closeSync(this.#open.fd)
      this.#open = undefined
      this.#hash = undefined
      this.#end = undefined
      throw asPacsimileError(error, `Writing to ${this.#directory}`)
    }
  }

  #opened(day: string): OpenDay {
    if (this.#open?.day === day) return this.#open
    this[Symbol.dispose]()
    this.#hash ??= lastHash(this.#directory)
    const fd = openSync(join(this.#directory, `${day}.jsonl`), 'a+', 0o600)
    this.#open = { day, fd, bytes: fstatSync(fd).size }
    this.#endTornLine(this.#open)
    return this.#open
  }

  /** Of what a power cut has left a line is made, and no other is appended to it. */
  #endTornLine(open: OpenDay): void {
    const last = Buffer.alloc(1, LINE_END)
    if (open.bytes > 0) readSync(open.fd, last, 0, 1, open.bytes - 1)
    if (last[0] === LINE_END) return
    writeFully(open.fd, Buffer.from([LINE_END]))
    open.bytes += 1
  }

  /** Durably: what is in another file from now on follows these lines. */
  [Symbol.dispose](): void {
    if (this.#open === undefined) return
    fdatasyncSync(this.#open.fd)
    closeSync(this.#open.fd)
    this.#open = undefined
  }
}

export function accessDirectory(dataDir: string): string {
  return join(dataDir, 'access')
}

/** Names of the days' files, oldest first. */
export function accessFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => DAY_FILE.test(name))
    .toSorted()
}

/** Of the last line that there is, torn or not. A file that holds none of this release goes on from the one before, where that does. */
function lastHash(directory: string): Digest {
  const [newest = [], before = []] = accessFiles(directory)
    .slice(-2)
    .toReversed()
    .map((name) => chainedTail(join(directory, name)))
  return chainBehind(newest, chainBehind(before.some(isChained) ? before : []))
}

/** The last lines of a file, so many that one of them carries a hash; all where none does. */
function chainedTail(file: string): Buffer[] {
  const fd = openSync(file, 'r')
  try {
    const { size } = fstatSync(fd)
    for (let length = TAIL_BYTES; ; length *= 8) {
      const from = Math.max(0, size - length)
      const tail = Buffer.alloc(size - from)
      readSync(fd, tail, 0, tail.length, from)
      const lines = linesOf(tail)
      if (from === 0) return lines
      // The first may be the end of one only.
      if (lines.slice(1).some(isChained)) return lines.slice(1)
    }
  } finally {
    closeSync(fd)
  }
}

function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  for (let from = 0; from < bytes.length; ) {
    const end = bytes.indexOf(LINE_END, from)
    lines.push(bytes.subarray(from, end < 0 ? bytes.length : end))
    from = end < 0 ? bytes.length : end + 1
  }
  return lines
}

function isChained(line: Buffer): boolean {
  return accessLine(line).chain !== undefined
}
