/**
 * Reads a file without reading its holes from disk, and says where they are.
 *
 * Invariant: what is called a hole was read as zeros. Of a file that somebody may write meanwhile the holes are therefore
 * read after all, and only those that were zeros are named. It prevents content that was written into a hole from being
 * taken for one.
 */
import { readSync } from 'node:fs'
import { errnoOf } from '../shared/errors.ts'
import { HOLES_MAX, type Hole } from '../shared/version-extensions.ts'
import { linuxCalls } from './beneath.ts'
import type { Stat } from './system-calls.ts'

const BLOCK_BYTES = 512n
const ZEROS = Buffer.alloc(64 * 1024)

export class SparseFile {
  readonly #fd: number
  readonly #isFixed: boolean
  readonly #found: readonly Hole[]
  readonly #filled = new Set<Hole>()
  #next = 0

  /** `isFixed` says that nobody writes it while it is read. */
  constructor(fd: number, stat: Stat, isFixed: boolean) {
    this.#fd = fd
    this.#isFixed = isFixed
    this.#found = stat.blocks * BLOCK_BYTES < stat.size ? findHoles(fd, Number(stat.size)) : []
  }

  /** As far as they were read, by rising offset. */
  get holes(): readonly Hole[] {
    return this.#filled.size === 0 ? this.#found : this.#found.filter((hole) => !this.#filled.has(hole))
  }

  /** Reads a piece, by rising positions; 0 is the end of the file. */
  read(into: Buffer, at: number, length: number, position: number): number {
    const hole = this.#holeAt(position)
    if (hole === undefined || hole.offset > position) {
      const untilHole = hole === undefined ? length : Math.min(length, hole.offset - position)
      return readSync(this.#fd, into, at, untilHole, position)
    }
    const withinHole = Math.min(length, hole.offset + hole.length - position)
    if (this.#isFixed) {
      into.fill(0, at, at + withinHole)
      return withinHole
    }
    const read = readSync(this.#fd, into, at, withinHole, position)
    if (read < withinHole || !isZero(into, at, at + read)) this.#filled.add(hole)
    return read
  }

  /** The first hole that ends behind the position. */
  #holeAt(position: number): Hole | undefined {
    for (;;) {
      const hole = this.#found[this.#next]
      if (hole === undefined || hole.offset + hole.length > position) return hole
      this.#next += 1
    }
  }
}

/** None where there are too many to be worth it, or the filesystem does not tell. */
function findHoles(fd: number, size: number): Hole[] {
  const calls = linuxCalls()
  const holes: Hole[] = []
  try {
    for (let position = 0; position < size; ) {
      const offset = calls.seekHole(fd, position) ?? size
      if (offset >= size) break
      if (holes.length === HOLES_MAX) return []
      position = Math.min(size, calls.seekData(fd, offset) ?? size)
      // Somebody filled it between the two calls.
      if (position > offset) holes.push({ offset, length: position - offset })
    }
    return holes
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return []
  }
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += ZEROS.length) {
    const length = Math.min(ZEROS.length, end - at)
    if (bytes.compare(ZEROS, 0, length, at, at + length) !== 0) return false
  }
  return true
}
