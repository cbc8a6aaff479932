import { describe, expect, it } from 'vitest'
import { BulkInodes, inodeIn } from '../../agent/bulk-inodes.ts'
import { BLOCK_INODES } from '../../agent/inode-block.ts'
import type { ScanRoot } from '../../agent/scan-root.ts'
import { BULKSTAT } from '../../agent/system-calls.ts'
import { Random } from '../support/workload.ts'

const RECORD = BULKSTAT.bytes >> 2
const HIGH = 5 * 2 ** 32

/** A filesystem that holds these inodes and answers with as many of them as it likes, always in the same memory. */
function rootOf(inodes: readonly number[], random: Random): ScanRoot {
  const records = new Uint32Array(2 * BLOCK_INODES * RECORD)
  const bulkstat = (_: number, first: bigint, max: number): { count: number; records: Uint32Array } => {
    const from = inodes.findIndex((inode) => BigInt(inode) >= first)
    const given = from < 0 ? [] : inodes.slice(from, from + (random.below(3) === 0 ? 1 + random.below(max) : max))
    for (const [i, inode] of given.entries()) {
      records[i * RECORD] = inode % 2 ** 32
      records[i * RECORD + 1] = Math.floor(inode / 2 ** 32)
    }
    return { count: given.length, records }
  }
  return { fd: 0, calls: { bulkstat } } as unknown as ScanRoot
}

describe('the inodes of a filesystem', () => {
  it.each([1, 2, 3, 4])(
    'are all given, block by block, also where the kernel gives fewer at a time than it was asked for (seed %i)',
    (seed) => {
      const random = new Random(seed)
      const inodes: number[] = []
      // Blocks that are full, nearly empty, and holes between them.
      for (let block = 0; block < 12; block++) {
        const step = 1 + random.below(block % 3 === 0 ? 1 : 300)
        if (block % 5 !== 4) for (let i = 0; i < BLOCK_INODES; i += step) inodes.push(HIGH + block * BLOCK_INODES + i)
      }
      const bulk = new BulkInodes(rootOf(inodes, random))
      for (let from = HIGH; from < HIGH + 14 * BLOCK_INODES; from += BLOCK_INODES) {
        if (random.below(4) === 0) continue
        const { records, first, until } = bulk.within(from, from + BLOCK_INODES)
        const given = Array.from({ length: until - first }, (_, i) => inodeIn(records, first + i))
        expect(given).toEqual(inodes.filter((inode) => inode >= from && inode < from + BLOCK_INODES))
      }
    },
  )
})
