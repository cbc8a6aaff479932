/**
 * Reading from a disk that may be failing.
 *
 * Invariant: what the disk refuses is told apart, page by page, and stands as zeros in what is returned. It prevents one bad sector
 * from hiding what lies around it: zeros fail the checks of whatever they are a part of, and the rest can be read, and repaired by.
 */
import { fstatSync, readSync } from 'node:fs'
import { errnoOf } from '../../shared/errors.ts'

export interface DiskRead {
  /** Less than was asked for at the end of the file. */
  readonly length: number
  /** Bytes that the disk refused (EIO). */
  readonly refused: number
}

const PAGE_BYTES = 4096
/** Read at once where nothing is refused. */
const PIECE_BYTES = 1 << 20

/** As pread(2) with `into`, an offset in it, a length and a position. */
export type ReadPiece = (into: Buffer, offset: number, length: number, position: number) => number

/** Fills `into` from a position on, as far as the file goes. @throws what read(2) says, but for EIO */
export function readWhatIsThere(fd: number, into: Buffer, position: number, read: ReadPiece = pieceOf(fd)): DiskRead {
  let length = 0
  let refused = 0
  let pieceBytes = PIECE_BYTES
  let carefulUntil = 0
  while (length < into.length) {
    const at = position + length
    if (at >= carefulUntil) pieceBytes = PIECE_BYTES
    // Up to the end of a page, so that a refusal is of that one alone.
    const wanted = Math.min(into.length - length, pieceBytes === PAGE_BYTES ? PAGE_BYTES - (at % PAGE_BYTES) : pieceBytes)
    try {
      const got = read(into, length, wanted, at)
      if (got === 0) break
      length += got
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw error
      if (pieceBytes > PAGE_BYTES) {
        pieceBytes = PAGE_BYTES
        carefulUntil = at + wanted
        continue
      }
      into.fill(0, length, length + wanted)
      length += wanted
      refused += wanted
    }
  }
  return { length, refused }
}

/** All of a file. @throws what read(2) says, but for EIO */
export function readFileAsItIs(fd: number): { readonly bytes: Buffer; readonly refused: number } {
  const bytes = Buffer.alloc(fstatSync(fd).size)
  const { length, refused } = readWhatIsThere(fd, bytes, 0)
  return { bytes: bytes.subarray(0, length), refused }
}

function pieceOf(fd: number): ReadPiece {
  return (into, offset, length, position) => readSync(fd, into, offset, length, position)
}
