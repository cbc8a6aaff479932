/**
 * Makes the golden files of versions with extension fields, once: `node test/formats/make-golden-extensions.ts
 * test/formats/v1-extensions`. What holds for `v1` and make-golden.ts holds for them: read for ever, never changed.
 *
 *     repository/               one pack, one segment; its data key is 32 bytes 0x42
 *     repository.key            its key file
 *     records.json              its records: bytes, value, and what the extension fields of each version say
 *     tree.json                 the tree at its head
 */

import { packPayload } from '../../collector/repository/frame.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'

import { startOfMillisecond } from '../../shared/clock.ts'
import { type Digest, digestHex, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { label, ROOT, relativePath } from '../../shared/path.ts'
import { type Change, chainStart, encodeRecord, type JournalRecord, recordHash } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { FileVersion, Version } from '../../shared/version.ts'
import { type Additions, withAdditions } from '../../shared/version-extensions.ts'
import { GoldenPlace } from './golden-place.ts'
import { plain, plainAdditions, plainTree } from './plain.ts'

const REPOSITORY = '112233445566778899aabbccddeeff00'
const DATA_KEY = Buffer.alloc(32, 0x42)
const START_MS = Date.UTC(2026, 10, 24, 3, 4, 5)
const CHUNKS = new Map<Digest, Buffer>()
const agent = label('pacs1', 'Agent')
const volume = label('images', 'Volume')

let inode = 100n
function metadata(mode: number) {
  inode += 1n
  const mtimeNs = 1_795_489_445_123_456_789n + inode
  return { mode, uid: 1001, gid: 1001, mtimeNs, ctimeNs: mtimeNs, inode, links: 1, xattrs: [] }
}

function file(pieces: readonly Buffer[], additions: Additions, change: Partial<FileVersion> = {}): Version {
  for (const bytes of pieces) CHUNKS.set(digestOf(bytes), bytes)
  const chunks = pieces.map((bytes) => ({ digest: digestOf(bytes), length: bytes.length }))
  const content = Buffer.concat(pieces)
  const size = content.length
  const version = { kind: 'file', ...metadata(0o640), consistency: 'stable', size, digest: digestOf(content), chunks, ...change } as const
  return withAdditions<Version>(version, additions)
}

function records(): { record: JournalRecord; bytes: Buffer }[] {
  const put = (path: string, version: Version): Change => ({ kind: 'put', volume, path: relativePath(path), version })
  const writer = { pid: 4711, uid: 104, executable: '/usr/sbin/Orthanc' }
  const zeros = Buffer.alloc(8192)
  const changes: Change[] = [
    { kind: 'epoch', agent, reason: 'first', previousEpoch: 0, previousHash: NO_DIGEST, nonce: 'extension fields' },
    { kind: 'volume', volume, root: '/srv/images', mode: 'complete' },
    put('', { kind: 'directory', ...metadata(0o755) }),
    put('inferred', withAdditions<Version>({ kind: 'directory', ...metadata(0o755) }, { isInferred: true })),
    put('written', file([Buffer.from('x')], { writer })),
    put('ended', file([Buffer.from('y')], { writer: { pid: 0xffff_ffff, uid: 0, executable: '' }, isInferred: true })),
    put('bytes', file([Buffer.from('z')], { writer: { ...writer, executable: '/opt/\xff (deleted)' } })),
    put('all-hole', file([zeros], { holes: [{ offset: 0, length: 8192 }] })),
    put(
      'sparse',
      file([zeros, Buffer.from('data'), zeros, Buffer.from('end')], {
        holes: [
          { offset: 0, length: 8000 },
          { offset: 8196, length: 4096 },
        ],
        writer,
      }),
    ),
    // What a faulty writer may record: not zero in a hole, holes beyond the end, fields cut short.
    put('full-hole', file([Buffer.from('content')], { holes: [{ offset: 1, length: 3 }] })),
    put('beyond', file([Buffer.from('short')], { holes: [{ offset: 4, length: 2 }] })),
    put('cut', file([Buffer.from('cut')], {}, { extensions: [128, 129, 131].map((tag) => ({ tag, value: '\x02' })) })),
  ]
  let end = chainStart(1)
  return changes.map((change, i) => {
    const record = { ...change, previous: end.hash, epoch: 1, seq: i + 1, time: startOfMillisecond(START_MS + i * 1000) }
    const bytes = encodeRecord(record)
    end = { epoch: 1, seq: record.seq, time: record.time, hash: recordHash(bytes) }
    return { record, bytes }
  })
}

const place = GoldenPlace.begin(REPOSITORY, DATA_KEY)
const written = records()
for (const bytes of CHUNKS.values()) place.pack.append('chunk', packPayload(bytes))
place.segment.append('records', packPayload(encodeRecordGroup({ agent, records: written.map(({ bytes }) => bytes) })))
await place.seal()

const tree = new MemoryTree()
const items = written.map(({ record, bytes }) => {
  tree.apply(record)
  const says = record.kind === 'put' ? plainAdditions(record.version) : {}
  return { hex: bytes.toString('hex'), hash: digestHex(recordHash(bytes)), value: plain(record), says }
})
place.writeJson('records.json', items)
place.writeJson(
  'tree.json',
  plainTree(tree.within(ROOT), () => false),
)
