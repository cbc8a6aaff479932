/**
 * Makes the golden repository with filtered chunks, once: `node test/formats/make-golden-filter.ts test/formats/v1-filter`.
 * What holds for `v1` and make-golden.ts holds for it: read for ever, never changed.
 *
 *     repository/               one pack, whose chunks are filtered in every way there is, one segment; its data key is 32 bytes 0x42
 *     repository.key            its key file
 *     contents.json             by path, the content in hex
 */

import { zstdCompressSync } from 'node:zlib'
import { packPayload } from '../../collector/repository/frame.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'

import { startOfMillisecond } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { label, relativePath } from '../../shared/path.ts'
import { type Change, chainStart, encodeRecord, recordHash } from '../../shared/record.ts'
import { filteredLength, filterSamples, type Samples } from '../../shared/sample-filter.ts'
import type { Version } from '../../shared/version.ts'
import { GoldenPlace } from './golden-place.ts'

const REPOSITORY = '2233445566778899aabbccddeeff0011'
const DATA_KEY = Buffer.alloc(32, 0x42)
const START_MS = Date.UTC(2026, 10, 24, 16, 0, 0)
const agent = label('pacs1', 'Agent')
const volume = label('images', 'Volume')
const WIDTHS: readonly Samples['width'][] = [1, 2, 4]

interface Piece {
  readonly name: string
  readonly samples: Samples
  readonly compressed: boolean
  readonly plain: Buffer
}

/** A slope with a jump below zero and one to the other end, and bytes that are no whole sample. */
function content({ width, isBigEndian, lead }: Samples, count: number): Buffer {
  const plain = Buffer.alloc(lead + count * width + (width - 1), 0xee)
  for (let i = 0; i < count; i++) {
    const value = i % 37 === 36 ? 2 ** (8 * width) - 1 : (i * i) % 2 ** (8 * width)
    if (isBigEndian) plain.writeUIntBE(value, lead + i * width, width)
    else plain.writeUIntLE(value, lead + i * width, width)
  }
  return plain
}

const pieces = WIDTHS.flatMap((width) =>
  [1, 3, 4].flatMap((stride) =>
    (width === 1 ? [false] : [false, true]).flatMap((isBigEndian) =>
      Array.from({ length: width }, (_, lead): Piece => {
        const samples = { width, isBigEndian, stride, lead }
        const name = `${width}-${stride}-${isBigEndian ? 'big' : 'little'}-${lead}`
        return { name, samples, compressed: stride !== 3, plain: content(samples, 90 + stride) }
      }),
    ),
  ),
)

function version(plain: Buffer, inode: bigint): Version {
  const mtimeNs = BigInt(START_MS) * 1_000_000n
  const metadata = { mode: 0o640, uid: 1001, gid: 1001, mtimeNs, ctimeNs: mtimeNs, inode, links: 1, xattrs: [] }
  const digest = digestOf(plain)
  return { kind: 'file', ...metadata, consistency: 'stable', size: plain.length, digest, chunks: [{ digest, length: plain.length }] }
}

const mtimeNs = BigInt(START_MS) * 1_000_000n
const root: Version = { kind: 'directory', mode: 0o755, uid: 1001, gid: 1001, mtimeNs, ctimeNs: mtimeNs, inode: 1n, links: 2, xattrs: [] }
const changes: Change[] = [
  { kind: 'epoch', agent, reason: 'first', previousEpoch: 0, previousHash: NO_DIGEST, nonce: 'filtered content' },
  { kind: 'volume', volume, root: '/srv/images', mode: 'complete' },
  { kind: 'put', volume, path: relativePath(''), version: root },
  ...pieces.map(
    ({ name, plain }, i): Change => ({ kind: 'put', volume, path: relativePath(name), version: version(plain, BigInt(i + 2)) }),
  ),
]
let end = chainStart(1)
const records = changes.map((change, i) => {
  const record = { ...change, previous: end.hash, epoch: 1, seq: i + 1, time: startOfMillisecond(START_MS + i * 1000) }
  const bytes = encodeRecord(record)
  end = { epoch: 1, seq: record.seq, time: record.time, hash: recordHash(bytes) }
  return bytes
})

const place = GoldenPlace.begin(REPOSITORY, DATA_KEY)
for (const { plain, samples, compressed } of pieces) {
  const filtered = Buffer.alloc(filteredLength(plain.length))
  filterSamples(plain, samples, filtered)
  const bytes = compressed ? zstdCompressSync(filtered) : filtered
  place.pack.append('chunk', { digest: digestOf(plain), plainLength: plain.length, filtered: true, compressed, bytes })
}
place.segment.append('records', packPayload(encodeRecordGroup({ agent, records })))
await place.seal()
place.writeJson('contents.json', Object.fromEntries(pieces.map(({ name, plain }) => [name, plain.toString('hex')])))
