/**
 * Writes the content of a file front to back and leaves its recorded holes as holes.
 *
 * Invariant: the file reads, byte for byte, as what was written to it: within a named hole only what is zero is left out.
 * It prevents a disk image of a terabyte with a gigabyte in it from filling the disk it is restored to, and a record that
 * names a hole where there is content from losing that content.
 */
import { ftruncateSync } from 'node:fs'
import { writeFully } from '../shared/files.ts'
import type { Hole } from '../shared/version-extensions.ts'

/** A chunk is held against these piece by piece. */
const ZEROS = Buffer.alloc(64 << 10)

export class HoleWriter {
  readonly #fd: number
  readonly #holes: readonly Hole[]
  /** The hole that the next byte lies in, or before. */
  #next = 0
  #at = 0

  /** `holes` by rising offset, none over another. */
  constructor(fd: number, holes: readonly Hole[]) {
    this.#fd = fd
    this.#holes = holes
  }

  write(bytes: Buffer): void {
    if (this.#holes.length === 0) {
      writeFully(this.#fd, bytes)
      return
    }
    for (let done = 0; done < bytes.length; ) {
      const { isHole, length } = this.#stretch()
      const piece = bytes.subarray(done, done + length)
      if (!isHole || !isZero(piece)) writeFully(this.#fd, piece, this.#at)
      this.#at += piece.length
      done += piece.length
    }
  }

  /** Gives the file its size: what it ends with may be a hole. */
  end(): void {
    if (this.#holes.length > 0) ftruncateSync(this.#fd, this.#at)
  }

  /** How far from here it is all hole, or all none. */
  #stretch(): { isHole: boolean; length: number } {
    for (let hole = this.#holes[this.#next]; hole !== undefined; hole = this.#holes[++this.#next]) {
      if (this.#at < hole.offset) return { isHole: false, length: hole.offset - this.#at }
      if (this.#at < hole.offset + hole.length) return { isHole: true, length: hole.offset + hole.length - this.#at }
    }
    return { isHole: false, length: Number.POSITIVE_INFINITY }
  }
}

function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length)
    if (ZEROS.compare(piece, 0, piece.length, 0, piece.length) !== 0) return false
  }
  return true
}
