/**
 * A process that writes one file slowly and knows every state that the file ever had.
 *
 *     node slow-writer.ts '{"file": "...", "style": "in-place", "seconds": 8, "seed": 1, "enough": "..."}'
 *
 * It writes for the time, and until the file `enough` is there.
 * The last line of its output lists the states: BLAKE3 of the whole content, and when the write that made it began and ended.
 * Invariant: between two listed states there is exactly one write(2). It prevents a mix of two states, which the file never
 * held, from being taken for one of them.
 */
import { closeSync, existsSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { Random } from './workload.ts'

export type SlowStyle = 'in-place' | 'append' | 'random' | 'reopen'

export interface FileState {
  /** BLAKE3 of the content, hex. */
  readonly digest: string
  /** When the write that made it began and ended, ms since 1970. */
  readonly fromMs: number
  readonly untilMs: number
}

const SIZE = 384 << 10
const APPENDED_MAX = 2 << 20
const PIECE_MIN = 4096
const PIECE_MAX = 65_536
const PAUSE_MAX_MS = 25

const { file, style, seconds, seed, enough } = JSON.parse(process.argv[2] ?? '{}') as {
  file: string
  style: SlowStyle
  seconds: number
  seed: number
  enough: string
}

const random = new Random(seed)
const noise = random.bytes(1 << 20)
const states: FileState[] = []
const now = (): number => performance.timeOrigin + performance.now()
/** The content as it must be. */
let mirror = Buffer.alloc(0)
let fd = -1

function note(fromMs: number): void {
  states.push({ digest: digestHex(digestOf(mirror)), fromMs, untilMs: now() })
}

function reopen(flags: string): void {
  const fromMs = now()
  if (fd >= 0) closeSync(fd)
  fd = openSync(file, flags)
  if (flags === 'w') mirror = Buffer.alloc(0)
  note(fromMs)
}

function write(at: number): void {
  const length = PIECE_MIN + random.below(PIECE_MAX - PIECE_MIN)
  const piece = noise.subarray(random.below(noise.length - length)).subarray(0, length)
  const next = Buffer.alloc(Math.max(mirror.length, at + length))
  mirror.copy(next)
  piece.copy(next, at)
  const fromMs = now()
  const written = writeSync(fd, piece, 0, length, at)
  if (written !== length) throw new Error(`only ${written} of ${length} bytes were written`)
  mirror = next
  note(fromMs)
}

function cut(): void {
  const fromMs = now()
  ftruncateSync(fd, 0)
  mirror = Buffer.alloc(0)
  note(fromMs)
}

let position = 0

function step(): void {
  switch (style) {
    case 'in-place':
      // From the front to the end and again: a reader that starts in the middle meets two passes.
      write(position)
      position = position >= SIZE ? 0 : Math.min(SIZE, position + PIECE_MAX)
      return
    case 'random':
      write(random.below(SIZE))
      return
    case 'append':
      if (mirror.length > APPENDED_MAX) cut()
      write(mirror.length)
      return
    case 'reopen':
      if (mirror.length >= SIZE) reopen('w')
      write(mirror.length)
      return
  }
}

reopen('w')
const end = performance.now() + seconds * 1000
while (performance.now() < end || !existsSync(enough)) {
  step()
  await new Promise((resolve) => setTimeout(resolve, random.below(PAUSE_MAX_MS)))
}
closeSync(fd)
process.stdout.write(`${JSON.stringify(states)}\n`)
