/**
 * Makes the golden repository with parity, once: `node test/formats/make-golden-parity.ts test/formats/v1-parity`. What holds for
 * `v1` and make-golden.ts holds for it: read for ever, never changed.
 *
 *     repository/               one pack and one segment, sealed with parity 10+2; its data key is 32 bytes 0x42
 *     repository.key            its key file
 *     contents.json             by path, SHA-256 of the content
 */

import { createHash } from 'node:crypto'
import { packPayload } from '../../collector/repository/frame.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { parityOf } from '../../collector/repository/parity-thread.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'

import { startOfMillisecond } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { label, relativePath } from '../../shared/path.ts'
import { type Change, chainStart, encodeRecord, recordHash } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { GoldenPlace } from './golden-place.ts'

const REPOSITORY = '33445566778899aabbccddeeff001122'
const DATA_KEY = Buffer.alloc(32, 0x42)
const START_MS = Date.UTC(2026, 10, 24, 20, 0, 0)
const FILES = 24
const agent = label('pacs1', 'Agent')
const volume = label('images', 'Volume')

/** What does not compress, and is the same each time. */
function content(number: number): Buffer {
  const parts = Array.from({ length: 10 + number * 5 }, (_, i) => createHash('sha256').update(`${number}.${i}`).digest())
  return Buffer.concat(parts)
}

const mtimeNs = BigInt(START_MS) * 1_000_000n
const metadata = { mode: 0o644, uid: 1001, gid: 1001, mtimeNs, ctimeNs: mtimeNs, links: 1, xattrs: [] }
const files = Array.from({ length: FILES }, (_, i) => ({ name: `image${i}`, plain: content(i) }))

function version(plain: Buffer, inode: bigint): Version {
  const digest = digestOf(plain)
  const chunks = [{ digest, length: plain.length }]
  return { kind: 'file', ...metadata, inode, consistency: 'stable', size: plain.length, digest, chunks }
}

const root: Version = { kind: 'directory', ...metadata, mode: 0o755, inode: 1n, links: 2 }
const changes: Change[] = [
  { kind: 'epoch', agent, reason: 'first', previousEpoch: 0, previousHash: NO_DIGEST, nonce: 'protected frames' },
  { kind: 'volume', volume, root: '/srv/images', mode: 'complete' },
  { kind: 'put', volume, path: relativePath(''), version: root },
  ...files.map(({ name, plain }, i): Change => ({ kind: 'put', volume, path: relativePath(name), version: version(plain, BigInt(i + 2)) })),
]
let end = chainStart(1)
const records = changes.map((change, i) => {
  const record = { ...change, previous: end.hash, epoch: 1, seq: i + 1, time: startOfMillisecond(START_MS + i * 1000) }
  const bytes = encodeRecord(record)
  end = { epoch: 1, seq: record.seq, time: record.time, hash: recordHash(bytes) }
  return bytes
})

const place = GoldenPlace.begin(REPOSITORY, DATA_KEY)
for (const { plain } of files) place.pack.append('chunk', packPayload(plain))
place.segment.append('records', packPayload(encodeRecordGroup({ agent, records })))
await place.seal(parityOf(DEFAULT_PARITY))
const sha256 = (plain: Buffer): string => createHash('sha256').update(plain).digest('hex')
place.writeJson('contents.json', Object.fromEntries(files.map(({ name, plain }) => [name, sha256(plain)])))
