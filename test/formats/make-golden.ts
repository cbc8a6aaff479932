/**
 * Makes the golden files of format version 1, once: `node test/formats/make-golden.ts test/formats/v1`.
 *
 * They were made when version 1 was frozen, are committed, and are read for ever: a release that cannot read them has broken
 * the format. So this program refuses to write into a directory that holds anything. To cover something new, make a further
 * directory beside `v1`; never change what is there.
 *
 *     records.json              every kind of record: its bytes and its value
 *     messages.json             every message of the wire: its bytes and its value
 *     repository/               a repository; its data key is 32 bytes 0x42
 *     repository.key            its key file; passphrase.txt, recovery.txt: its other keys
 *     expected.json             all records in it, the trees at several points, and SHA-256 of the contents
 */

import { createHash, createSecretKey } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { type FrameFileKind } from '../../collector/repository/file-header.ts'
import { labelKey, packPayload, sealFrame } from '../../collector/repository/frame.ts'
import { FrameFile } from '../../collector/repository/frame-file.ts'
import { formatSlot, type SlotSecret, sealSlot } from '../../collector/repository/key-slot.ts'
import { encodeRecordGroup } from '../../collector/repository/record-group.ts'
import { formatRecoveryKey } from '../../collector/repository/recovery-key.ts'
import { Repository } from '../../collector/repository/repository.ts'
import { DEFAULT_CHUNK_SIZES } from '../../shared/chunker.ts'
import { type HybridTime, hybridTime, startOfMillisecond } from '../../shared/clock.ts'
import { type Digest, digestHex, digestOf, NO_DIGEST } from '../../shared/digest.ts'
import { type Label, label, relativePath } from '../../shared/path.ts'
import { type ChainEnd, type Change, chainStart, encodeRecord, type JournalRecord, recordHash } from '../../shared/record.ts'
import { MemoryTree } from '../../shared/tree.ts'
import type { ChunkRef, Version } from '../../shared/version.ts'
import { encodeMessage, type Message } from '../../shared/wire.ts'
import { plain, plainTree } from './plain.ts'

const START_MS = Date.UTC(2026, 0, 2, 3, 4, 5)
const REPOSITORY_ID = '00112233445566778899aabbccddeeff'
const DATA_KEY = Buffer.alloc(32, 0x42)
const KEY = createSecretKey(DATA_KEY)
const PASSPHRASE = 'grüße aus dem Röntgen'

const images = label('images', 'Volume')
const db = label('db', 'Volume')

/** Bytes that look random and are the same every time. */
function noise(length: number, seed: string): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i * 32 < length; i++) parts.push(createHash('sha256').update(`${seed} ${i}`).digest())
  return Buffer.concat(parts).subarray(0, length)
}

// ---- what happened -----------------------------------------------------------------------------------------------------

class Agent {
  readonly name: Label
  readonly records: { readonly record: JournalRecord; readonly bytes: Buffer }[] = []
  #end: ChainEnd = chainStart(1)
  #second = 0

  constructor(name: string) {
    this.name = label(name, 'Agent')
  }

  begin(reason: 'first' | 'state-lost'): void {
    const before = this.#end
    const isFirst = reason === 'first'
    this.#end = chainStart(isFirst ? 1 : before.epoch + 1)
    this.add({
      kind: 'epoch',
      agent: this.name,
      reason,
      previousEpoch: isFirst ? 0 : before.epoch,
      previousHash: isFirst ? NO_DIGEST : before.hash,
      nonce: noise(16, `${this.name} ${reason}`).toString('latin1'),
    })
  }

  /** A second after the one before, unless it shares its millisecond. */
  add(change: Change, isSameMoment = false): JournalRecord {
    const time = isSameMoment ? hybridTime(this.#end.time + 1n) : this.nextTime()
    const record: JournalRecord = { ...change, previous: this.#end.hash, epoch: this.#end.epoch, seq: this.#end.seq + 1, time }
    const bytes = encodeRecord(record)
    this.records.push({ record, bytes })
    this.#end = { epoch: record.epoch, seq: record.seq, hash: recordHash(bytes), time }
    return record
  }

  nextTime(): HybridTime {
    this.#second += 1
    return startOfMillisecond(START_MS + this.#second * 1000)
  }

  get end(): ChainEnd {
    return this.#end
  }
}

const CHUNKS = new Map<Digest, Buffer>()
const CONTENTS: Record<string, string> = {}

function file(pieces: readonly Buffer[], change: Partial<Extract<Version, { kind: 'file' }>>): Version {
  const chunks = pieces.map((bytes): ChunkRef => {
    CHUNKS.set(digestOf(bytes), bytes)
    return { digest: digestOf(bytes), length: bytes.length }
  })
  const content = Buffer.concat(pieces)
  const digest = digestOf(content)
  CONTENTS[digestHex(digest)] = createHash('sha256').update(content).digest('hex')
  return { kind: 'file', ...metadata(0o640), consistency: 'stable', size: content.length, digest, chunks, ...change }
}

let nextInode = 0x1_0000_0000n
function metadata(mode: number) {
  nextInode += 1n
  const mtimeNs = 1_767_323_045_123_456_789n + nextInode
  return { mode, uid: 1001, gid: 100_000, mtimeNs, ctimeNs: mtimeNs + 5n, inode: nextInode, links: 1, xattrs: [] }
}

const directory = (mode = 0o755): Version => ({ kind: 'directory', ...metadata(mode), links: 2 })

function pacs1(): Agent {
  const agent = new Agent('pacs1')
  const put = (path: string, version: Version, volume = images): JournalRecord =>
    agent.add({ kind: 'put', volume, path: relativePath(path), version })
  const header = Buffer.concat([Buffer.alloc(128), Buffer.from('DICM'), Buffer.from('a header that repeats itself. '.repeat(20))])
  const pixels = noise(900, 'pixels')
  const lost = noise(300, 'lost')

  agent.begin('first')
  agent.add({ kind: 'volume', volume: images, root: '/srv/images', mode: 'best-effort' }, true)
  put('', directory())
  put('CT', {
    ...directory(0o2775),
    xattrs: [
      { name: 'user.note', value: 'caf\xc3\xa9' },
      { name: 'user.null', value: '\0\xff' },
    ],
  })
  const linked = file([header, pixels, header], { links: 2 })
  put('CT/a.dcm', linked)
  put('CT/a-link.dcm', linked)
  put('CT/b\xff\x01.dcm', file([], { consistency: 'crash-consistent' }))
  put('latest', { kind: 'symlink', ...metadata(0o777), target: 'CT/a.dcm' })
  agent.add({
    kind: 'coverage',
    volume: images,
    from: startOfMillisecond(START_MS),
    until: startOfMillisecond(START_MS + 9000),
    mode: 'best-effort',
  })
  put('CT-old', directory())
  put('CT-old/x', file([Buffer.from('old')], { consistency: 'unverified' }))
  agent.add({ kind: 'rename', volume: images, path: relativePath('CT-old'), to: relativePath('archive') })
  put(
    'CT/a.dcm',
    file([Buffer.from('a new header'), pixels], { mode: 0o4755, consistency: 'torn', extensions: [{ tag: 200, value: 'later' }] }),
  )
  agent.add({
    kind: 'gap',
    volume: images,
    from: startOfMillisecond(START_MS + 9000),
    until: startOfMillisecond(START_MS + 12_000),
    cause: 'the agent was not running',
  })
  agent.add({ kind: 'mark', volume: images, name: 'before the upgrade ✓' })
  agent.add({ kind: 'remove', volume: images, path: relativePath('latest') })
  const unkept = put('CT/lost.dcm', file([header, lost], {}))
  CHUNKS.delete(digestOf(lost))
  agent.add({ kind: 'lost', volume: images, path: relativePath('CT/lost.dcm'), lostSeq: unkept.seq })
  agent.add({ kind: 'volume', volume: db, root: '/var/lib/orthanc/\xe9', mode: 'complete' })
  put('', directory(0o700), db)
  put('index', file([noise(500, 'database')], {}), db)
  put('archive', { kind: 'fifo', ...metadata(0o600) })
  put('dev', directory())
  put('dev/null', { kind: 'character-device', ...metadata(0o666), device: 0x103n })
  put('dev/sda', { kind: 'block-device', ...metadata(0o660), device: 0x800n })
  put('dev/log', { kind: 'socket', ...metadata(0o666) })
  put('kept', directory())

  agent.begin('state-lost')
  const volume = agent.add({ kind: 'volume', volume: images, root: '/srv/images', mode: 'complete' })
  put('', directory())
  put('CT', directory(0o2775))
  put('CT/a.dcm', linked)
  put('kept/new.dcm', file([Buffer.from('kept')], { mtimeNs: -1_500_000_000n }))
  agent.add({ kind: 'sweep', volume: images, since: volume.seq })
  agent.add({
    kind: 'coverage',
    volume: images,
    from: startOfMillisecond(START_MS + 30_000),
    until: startOfMillisecond(START_MS + 36_000),
    mode: 'complete',
  })
  return agent
}

function pacs2(): Agent {
  const agent = new Agent('pacs2')
  agent.begin('first')
  agent.add({ kind: 'volume', volume: images, root: '/data', mode: 'best-effort' })
  agent.add({ kind: 'put', volume: images, path: relativePath(''), version: directory() })
  agent.add({ kind: 'put', volume: images, path: relativePath('x'), version: file([Buffer.from('old')], {}) })
  return agent
}

// ---- the repository ----------------------------------------------------------------------------------------------------

async function makeRepository(directory: string, first: Agent, second: Agent): Promise<void> {
  Repository.create(directory, { id: REPOSITORY_ID, chunkSizes: DEFAULT_CHUNK_SIZES })
  const keyFile = noise(32, 'key file')
  const recovery = noise(32, 'recovery')
  const secrets: SlotSecret[] = [
    { kind: 'key-file', bytes: keyFile },
    { kind: 'passphrase', bytes: Buffer.from(PASSPHRASE.normalize('NFC'), 'utf8') },
    { kind: 'recovery', bytes: recovery },
  ]
  for (const secret of secrets) {
    const slot = sealSlot(REPOSITORY_ID, DATA_KEY, secret)
    writeFileSync(join(directory, 'keys', `${slot.id}.json`), formatSlot(slot))
  }
  const beside = join(directory, '..')
  writeFileSync(join(beside, 'repository.key'), `pacsimile-key-1:${keyFile.toString('hex')}\n`)
  writeFileSync(join(beside, 'passphrase.txt'), PASSPHRASE)
  writeFileSync(join(beside, 'recovery.txt'), `${formatRecoveryKey(recovery)}\n`)

  const frameFile = (kind: FrameFileKind, number: number): FrameFile => {
    const name = number.toString(16).padStart(12, '0')
    const shelf = join(directory, `${kind}s`, name.slice(-2))
    mkdirSync(shelf)
    return FrameFile.create(join(shelf, `${name}.${kind === 'pack' ? 'pack' : 'seg'}`), { kind, repository: REPOSITORY_ID, number }, KEY)
  }
  const chunks = [...CHUNKS.values()]
  const packs = [frameFile('pack', 1), frameFile('pack', 2)] as const
  for (const [i, bytes] of chunks.entries()) packs[i < 3 ? 0 : 1].append('chunk', packPayload(bytes))
  // The same chunk again: a crash can leave two.
  packs[1].append('chunk', packPayload(chunks[0] ?? Buffer.alloc(1)))
  await packs[0].seal()
  await packs[1].sync()

  const segments = [frameFile('segment', 1), frameFile('segment', 2)] as const
  const records = (agent: Agent, from: number, to?: number) =>
    packPayload(encodeRecordGroup({ agent: agent.name, records: agent.records.slice(from, to).map(({ bytes }) => bytes) }))
  segments[0].append('records', records(first, 0, 12))
  segments[0].append('records', records(second, 0, 3))
  segments[0].append('records', records(first, 12, 27))
  await segments[0].seal()
  segments[1].append('records', records(first, 27))
  await segments[1].sync()
  const salted = labelKey(KEY, Buffer.alloc(32))
  const unknown = sealFrame('chunk', packPayload(Buffer.from('of a newer release')), KEY, salted)
  unknown[4] = 200
  unknown[6] = 9
  unknown.writeUInt32LE(crc32(unknown.subarray(0, 76)), 76)
  appendFileSync(segments[1].path, unknown)
  const path = segments[1].path
  segments[1].close()
  const again = FrameFile.reopen(path, { kind: 'segment', repository: REPOSITORY_ID, number: 2 }, KEY)
  if (again === undefined) throw new Error('a frame that may be passed over was not passed over')
  // Twice: an agent sends again what was durable and not acknowledged.
  again.append('records', records(first, 30, 33))
  again.append('records', records(second, 3))
  await again.sync()
  again.close()
  const torn = sealFrame('records', records(second, 0, 2), KEY, salted)
  appendFileSync(path, torn.subarray(0, 120))
}

function expected(first: Agent, second: Agent): object {
  const points = []
  const wanted: [Agent, Label, number][] = [
    [first, images, 11],
    [first, images, 18],
    [first, images, 27],
    [first, images, first.records.length],
    [first, db, first.records.length],
    [second, images, second.records.length],
  ]
  for (const [agent, volume, count] of wanted) {
    const tree = new MemoryTree()
    const lost = new Set<string>()
    const taken = agent.records.slice(0, count)
    for (const { record } of agent.records) if (record.kind === 'lost') lost.add(`${record.epoch}:${record.lostSeq}`)
    for (const { record } of taken) if ('volume' in record && record.volume === volume) tree.apply(record)
    const last = taken.at(-1)?.record
    points.push({
      agent: agent.name,
      volume,
      epoch: last?.epoch,
      seq: last?.seq,
      time: last?.time.toString(),
      tree: plainTree(tree.within(relativePath('')), (epoch, seq) => lost.has(`${epoch}:${seq}`)),
    })
  }
  return {
    dataKey: DATA_KEY.toString('hex'),
    chunks: [...CHUNKS.keys()].map(digestHex),
    contents: CONTENTS,
    records: [first, second].map((agent) => ({ agent: agent.name, records: agent.records.map(({ record }) => plain(record)) })),
    points,
  }
}

// ---- records and messages alone ----------------------------------------------------------------------------------------

function goldenRecords(agent: Agent): object {
  return agent.records.map(({ record, bytes }) => ({
    hex: bytes.toString('hex'),
    hash: digestHex(recordHash(bytes)),
    value: plain(record),
  }))
}

function goldenMessages(agent: Agent): object {
  const { epoch, seq, hash, time } = agent.end
  const head = { epoch, seq, hash }
  const digests = [...CHUNKS.keys()].slice(0, 3)
  const chunk = [...CHUNKS.entries()][0] ?? [NO_DIGEST, Buffer.alloc(1)]
  const packed = packPayload(chunk[1])
  const messages: Message[] = [
    { kind: 'hello', major: 1, minor: 0, agent: 'pacs1', head, oldest: 3, time },
    {
      kind: 'welcome',
      minor: 0,
      acked: { epoch, seq: 0, hash: NO_DIGEST },
      lastEpoch: 1,
      repository: REPOSITORY_ID,
      chunkSizes: DEFAULT_CHUNK_SIZES,
      windowBytes: 67_108_864,
      time,
    },
    { kind: 'refuse', code: 'forked', message: 'Epoch 1 is over', lastEpoch: 2 },
    { kind: 'offer', id: 7, digests },
    { kind: 'want', id: 7, indices: [0, 2] },
    { kind: 'chunk', digest: chunk[0], length: packed.plainLength, filtered: false, compressed: true, bytes: packed.bytes },
    { kind: 'chunk', digest: digestOf(Buffer.from('old')), length: 3, filtered: false, compressed: false, bytes: Buffer.from('old') },
    { kind: 'records', records: agent.records.slice(0, 3).map(({ bytes }) => bytes) },
    { kind: 'lost', digests: digests.slice(0, 1) },
    { kind: 'ack', head, time },
    { kind: 'flow', go: false },
    { kind: 'flow', go: true },
    {
      kind: 'coverage',
      until: time,
      head: seq,
      pending: 3,
      spoolBytes: 5_000_000_000,
      volumes: [
        { name: 'images', mode: 'best-effort', reason: 'chokidar', state: 'watching' },
        { name: 'db', mode: 'complete', reason: '', state: 'scanning' },
      ],
    },
    { kind: 'barrier', id: 4_294_967_296, volume: '' },
    { kind: 'barrier-done', id: 4_294_967_296, epoch, seq, error: '' },
  ]
  return messages.map((message) => ({ hex: encodeMessage(message).toString('hex'), value: plain(message) }))
}

const directoryName = process.argv[2]
if (directoryName === undefined) throw new Error('usage: node make-golden.ts DIRECTORY')
if (existsSync(directoryName) && readdirSync(directoryName).length > 0)
  throw new Error(`${directoryName} holds golden files; they are made once and never again`)
mkdirSync(directoryName, { recursive: true })
const [first, second] = [pacs1(), pacs2()]
const write = (name: string, value: object): void => writeFileSync(join(directoryName, name), `${JSON.stringify(value, null, 1)}\n`)
await makeRepository(join(directoryName, 'repository'), first, second)
write('expected.json', expected(first, second))
write('records.json', goldenRecords(first))
write('messages.json', goldenMessages(first))
