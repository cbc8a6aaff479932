/**
 * Verifies the logs of a LevelDB database, before it is opened: each record against its checksum.
 *
 * A record that fails is passed over without a word, with all that follows in its block of 32 KiB, and what stands in later blocks is
 * taken. At the end of a log that is what a crash leaves, and the catalog is an older whole state; in the middle it is a hole. Once opened, the log has
 * become a table whose checksums are right. The layout is LevelDB's own (doc/log_format.md of its sources). Invariant: of a log that is called sound,
 * what LevelDB takes is everything up to some place. It prevents a flipped bit from taking the places of hundreds of chunks out
 * of the catalog, which a walk of its records does not see.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { maskedCrc32c } from './crc32c.ts'

const BLOCK_BYTES = 32_768
/** CRC of what follows it but the length; length; type. */
const HEADER_BYTES = 7
const TYPE_OFFSET = 6
/** Whole, first, middle, last. */
const TYPES = new Set([1, 2, 3, 4])

/** Why the logs of a database cannot be believed; undefined where they can. @throws what read(2) says */
export function faultOfLogs(directory: string): string | undefined {
  for (const name of readdirSync(directory).filter((file) => /^\d+\.log$/.test(file))) {
    const fault = faultOfLog(readFileSync(join(directory, name)))
    if (fault !== undefined) return `${name}: ${fault}`
  }
  return undefined
}

function faultOfLog(bytes: Buffer): string | undefined {
  let fault: number | undefined
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, bytes.length)
    for (let at = block; at + HEADER_BYTES <= end; ) {
      const next = endOfRecord(bytes, at, end)
      if (next === undefined) {
        fault ??= at
        break
      }
      if (fault !== undefined) return `the record at byte ${fault} fails its checksum, and others follow`
      at = next
    }
  }
  return undefined
}

/** Undefined where there is no whole record. */
function endOfRecord(bytes: Buffer, at: number, end: number): number | undefined {
  const next = at + HEADER_BYTES + bytes.readUInt16LE(at + 4)
  if (!TYPES.has(bytes[at + TYPE_OFFSET] ?? 0) || next > end) return undefined
  return maskedCrc32c(bytes.subarray(at + TYPE_OFFSET, next)) === bytes.readUInt32LE(at) ? next : undefined
}
