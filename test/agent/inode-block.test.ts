import { describe, expect, it } from 'vitest'
import { digestOfRecords, parseRow, seenRow, UNSEEN_ROW } from '../../agent/inode-block.ts'
import { BULKSTAT } from '../../agent/system-calls.ts'

const RECORDS = 3
/** Words of a record by which nothing is told to have changed: blocks, atime, and what only XFS knows. */
const OF_NO_INTEREST = 'what is read of it, and where it lies on the disk'

function records(): Uint32Array {
  return Uint32Array.from({ length: (RECORDS * BULKSTAT.bytes) >> 2 }, (_, i) => i * 7919 + 1)
}

describe('what a filesystem says of a block of inodes', () => {
  it.each([
    ['the inode', BULKSTAT.ino, true],
    ['the inode, above 32 bits', BULKSTAT.ino + 4, true],
    ['type and mode', BULKSTAT.mode, true],
    ['the owner', BULKSTAT.uid, true],
    ['the group', BULKSTAT.gid, true],
    ['the number of names', BULKSTAT.nlink, true],
    ['the size', BULKSTAT.size, true],
    ['the size, above 32 bits', BULKSTAT.size + 4, true],
    ['mtime', BULKSTAT.mtime, true],
    ['mtime, above 32 bits', BULKSTAT.mtime + 4, true],
    ['mtime, nanoseconds', BULKSTAT.mtimeNs, true],
    ['ctime', BULKSTAT.ctime, true],
    ['ctime, above 32 bits', BULKSTAT.ctime + 4, true],
    ['ctime, nanoseconds', BULKSTAT.ctimeNs, true],
    // struct xfs_bulkstat: bs_blocks, bs_atime
    [OF_NO_INTEREST, 16, false],
    [OF_NO_INTEREST, 32, false],
  ])('has another digest where there is another word of %s (byte %i): %s', (_, at, isOther) => {
    const before = digestOfRecords(records(), 0, RECORDS)
    for (let record = 0; record < RECORDS; record++) {
      const words = records()
      const word = (record * BULKSTAT.bytes + at) >> 2
      words[word] = (words[word] ?? 0) ^ 1
      expect(digestOfRecords(words, 0, RECORDS) !== before).toBe(isOther)
    }
  })

  it('leaves out what has no name any more', () => {
    const words = records()
    words[(BULKSTAT.bytes + BULKSTAT.nlink) >> 2] = 0
    const rest = Uint32Array.from([...words.subarray(0, BULKSTAT.bytes >> 2), ...words.subarray((2 * BULKSTAT.bytes) >> 2)])
    expect(digestOfRecords(words, 0, RECORDS)).toBe(digestOfRecords(rest, 0, RECORDS - 1))
  })

  it('is kept in a row that is read as it was written', () => {
    const digest = digestOfRecords(records(), 0, RECORDS)
    expect(parseRow(seenRow(9, digest))).toEqual({ entries: 9, digest })
    for (const text of [UNSEEN_ROW, 'x', '9', '9 ', '9 abc', `9 ${digest}0`, ` 9 ${digest}`, `-9 ${digest}`, digest])
      expect(parseRow(text)).toBeUndefined()
  })
})
