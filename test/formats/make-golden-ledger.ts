/**
 * Makes the golden repository with a ledger, once: `node test/formats/make-golden-ledger.ts test/formats/v1-ledger`.
 * What holds for `v1` and make-golden.ts holds for it: read for ever, never changed.
 *
 *     repository/               one pack, one segment with an entry of every kind; the content of one version has expired; its data key is 32 bytes 0x42
 *     repository.key            its key file
 *     entries.json              of each entry the bytes in hex, and what they say
 */

import { packPayload } from '../../collector/repository/frame.ts'
import { encodeLedgerEntry, LEDGER_START, type LedgerBody, ledgerEnd } from '../../collector/repository/ledger-entry.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'

import { startOfMillisecond } from '../../shared/clock.ts'
import { digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { label, relativePath } from '../../shared/path.ts'
import { type Change, chainStart, encodeRecord, recordHash } from '../../shared/record.ts'
import type { Version } from '../../shared/version.ts'
import { GoldenPlace } from './golden-place.ts'
import { plainEntry } from './plain.ts'

const START_MS = Date.UTC(2026, 10, 25, 22, 0, 0)
const HOUR_MS = 3_600_000
const agent = label('pacs1', 'Agent')
const volume = label('images', 'Volume')
const name = label('trial', 'Hold')
const mtimeNs = BigInt(START_MS) * 1_000_000n
const METADATA = { mode: 0o755, uid: 1001, gid: 1001, mtimeNs, ctimeNs: mtimeNs, inode: 1n, links: 1, xattrs: [] }
const contents = ['what nobody keeps', 'what is there now'].map((text) => Buffer.from(text))

function version(plain: Buffer): Version {
  const digest = digestOf(plain)
  return { kind: 'file', ...METADATA, consistency: 'stable', size: plain.length, digest, chunks: [{ digest, length: plain.length }] }
}

const changes: Change[] = [
  { kind: 'epoch', agent, reason: 'first', previousEpoch: 0, previousHash: NO_DIGEST, nonce: 'a ledger with it' },
  { kind: 'volume', volume, root: '/srv/images', mode: 'complete' },
  { kind: 'put', volume, path: relativePath(''), version: { kind: 'directory', ...METADATA } },
  ...contents.map((plain): Change => ({ kind: 'put', volume, path: relativePath('a'), version: version(plain) })),
]
let end = chainStart(1)
const records = changes.map((change, i) => {
  const record = { ...change, previous: end.hash, epoch: 1, seq: i + 1, time: startOfMillisecond(START_MS + i * 1000) }
  const bytes = encodeRecord(record)
  end = { epoch: 1, seq: record.seq, time: record.time, hash: recordHash(bytes) }
  return bytes
})

const bodies: LedgerBody[] = [
  { kind: 'policy', text: '{"others":{"all":0,"hourly":0,"daily":0,"monthly":0,"worm":0},"volumes":{}}' },
  { kind: 'tick', newestPack: 2 },
  { kind: 'hold', hold: { name, agent, volume, pattern: '**/*.\xff', fromMs: START_MS, untilMs: undefined } },
  { kind: 'expired', agent, positions: [{ epoch: 1, seq: 4 }] },
  { kind: 'retired', packs: [2, 300] },
  { kind: 'release', name },
  { kind: 'deleted', packs: [2] },
  {
    kind: 'checkpoint',
    segment: 1,
    files: [
      {
        name: 'CURRENT',
        chunks: [{ digest: digestOf(Buffer.from('not stored')), length: 10, place: { file: 2, offset: 96, storedLength: 9 } }],
      },
      { name: '000005.ldb', chunks: [] },
    ],
  },
  { kind: 'tick', newestPack: 3 },
]
let last = LEDGER_START
const entries = bodies.map((body, i) => {
  const entry = { previous: last.hash, number: i + 1, wallMs: START_MS + i * HOUR_MS, ageMs: i * HOUR_MS, body }
  const bytes = encodeLedgerEntry(entry)
  last = ledgerEnd(entry, bytes)
  return { entry, bytes }
})

const place = GoldenPlace.begin('33445566778899aabbccddeeff001122', Buffer.alloc(32, 0x42))
place.pack.append('chunk', packPayload(contents[1] ?? Buffer.alloc(0)))
place.segment.append('records', packPayload(encodeRecordGroup({ agent, records })))
for (const { bytes } of entries) place.segment.append('ledger', packPayload(bytes))
await place.seal()
place.writeJson(
  'entries.json',
  entries.map(({ entry, bytes }) => ({ hex: bytes.toString('hex'), value: plainEntry(entry) })),
)
