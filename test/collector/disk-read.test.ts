import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type ReadPiece, readFileAsItIs, readWhatIsThere } from '../../collector/repository/disk-read.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { Random } from '../support/workload.ts'

const PAGE = 4096
const content = new Random(3).bytes(3 * (1 << 20) + 777)

/** A disk that refuses whatever touches one of these pages. */
function diskWithout(pages: readonly number[], code = 'EIO'): ReadPiece {
  return (into, offset, length, position) => {
    const isRefused = pages.some((page) => position < (page + 1) * PAGE && position + length > page * PAGE)
    if (isRefused) throw Object.assign(new Error(`${code}: read`), { code })
    return content.copy(into, offset, position, position + length)
  }
}

function expected(position: number, length: number, pages: readonly number[]): Buffer {
  const bytes = Buffer.from(content)
  for (const page of pages) bytes.fill(0, page * PAGE, Math.min((page + 1) * PAGE, bytes.length))
  return bytes.subarray(position, position + length)
}

describe('reading from a disk that fails', () => {
  it.each([[[]], [[0]], [[255, 256]], [[3, 5, 400, 767]], [[768]]] as [number[]][])('leaves zeros for pages %j alone', (pages) => {
    for (const position of [0, 1, PAGE * 3 + 5, PAGE * 255]) {
      const into = Buffer.alloc(content.length - position, 0xff)
      const { length } = readWhatIsThere(-1, into, position, diskWithout(pages))
      expect(length).toBe(into.length)
      expect(into.equals(expected(position, length, pages))).toBe(true)
    }
  })

  it('counts what was refused, and ends where the file does', () => {
    const into = Buffer.alloc(content.length + 5000)
    expect(readWhatIsThere(-1, into, 0, diskWithout([2, 300]))).toEqual({ length: content.length, refused: 2 * PAGE })
    const within = Buffer.alloc(100)
    expect(readWhatIsThere(-1, within, 2 * PAGE + 50, diskWithout([2]))).toEqual({ length: 100, refused: 100 })
  })

  it('takes no other error for that', () => {
    expect(() => readWhatIsThere(-1, Buffer.alloc(10), 0, diskWithout([0], 'EBADF'))).toThrow('EBADF')
  })

  it('is reading where nothing fails', () => {
    const path = join(scratchDirectory(), 'file')
    writeFileSync(path, content)
    const fd = openSync(path, 'r')
    const { bytes, refused } = readFileAsItIs(fd)
    closeSync(fd)
    expect(bytes.equals(content)).toBe(true)
    expect(refused).toBe(0)
  })
})
