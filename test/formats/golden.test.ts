/** What version 1 wrote is read for ever, and written the same way. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, cpSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { checkAccessLog } from '../../collector/access-check.ts'
import { accessDirectory } from '../../collector/access-log.ts'
import { checkRepository } from '../../collector/check.ts'
import { OfflineHistory } from '../../collector/offline-history.ts'
import { openKeys, type RepositorySecret } from '../../collector/repository/keys.ts'
import { decodeLedgerEntry, encodeLedgerEntry, LEDGER_START, ledgerBreak, ledgerEnd } from '../../collector/repository/ledger-entry.ts'
import { DEFAULT_PARITY } from '../../collector/repository/parity.ts'
import { Repository, readDescription } from '../../collector/repository/repository.ts'
import { restore } from '../../collector/restore.ts'
import { scrubRepository } from '../../collector/scrub.ts'
import { digestFromHex, digestHex, NO_DIGEST } from '../../shared/digest.ts'
import { label, ROOT } from '../../shared/path.ts'
import { decodeRecord, encodeRecord, recordHash } from '../../shared/record.ts'
import { decodeMessage, encodeMessage } from '../../shared/wire.ts'
import { scratchDirectory } from '../support/scratch.ts'
import {
  copiedRepository,
  GOLDEN,
  GOLDEN_ACCESS,
  GOLDEN_EXTENSIONS,
  GOLDEN_FILTER,
  GOLDEN_LEDGER,
  GOLDEN_PARITY,
  goldenAccess,
  goldenExtensions,
  goldenFiltered,
  goldenItems,
  goldenLedger,
  goldenRepository,
  goldenWithParity,
} from './examples.ts'
import { plain, plainAdditions, plainEntry, plainTree } from './plain.ts'

const REPOSITORY = join(GOLDEN, 'repository')
const expected = goldenRepository()
const dataKey = Buffer.from(expected.dataKey, 'hex')

describe('a golden record', () => {
  const items = goldenItems('records.json')

  it.each(items.map((item, i) => [`${i + 1}, ${item.value.kind}`, item] as const))(
    '%s decodes, and encodes to the same bytes',
    (_, item) => {
      const bytes = Buffer.from(item.hex, 'hex')
      const record = decodeRecord(bytes)
      expect(plain(record)).toEqual(item.value)
      expect(encodeRecord(record).toString('hex')).toBe(item.hex)
      expect(digestHex(recordHash(bytes))).toBe(item.hash)
    },
  )

  it('is there of every kind, and of every kind of file', () => {
    const kinds = 'epoch volume put remove rename sweep gap coverage mark lost'.split(' ')
    expect(new Set(items.map(({ value }) => value.kind))).toEqual(new Set(kinds))
    const files = 'file directory symlink fifo socket character-device block-device'.split(' ')
    const put = items.flatMap(({ value }) =>
      value.kind === 'put' ? [(value as unknown as { version: { kind: string } }).version.kind] : [],
    )
    expect(new Set(put)).toEqual(new Set(files))
  })
})

describe('a golden version with extension fields', () => {
  const { records, tree } = goldenExtensions()

  it.each(records.map((item, i) => [`${i + 1}, ${item.value.kind}`, item] as const))('%s says what it said', (_, item) => {
    const bytes = Buffer.from(item.hex, 'hex')
    const record = decodeRecord(bytes)
    expect(plain(record)).toEqual(item.value)
    expect(encodeRecord(record).toString('hex')).toBe(item.hex)
    expect(digestHex(recordHash(bytes))).toBe(item.hash)
    expect(record.kind === 'put' ? plainAdditions(record.version) : {}).toEqual(item.says)
  })

  it('is there with each field, well-formed and not', () => {
    const said = new Set(records.flatMap(({ says }) => Object.keys(says ?? {})))
    expect(said).toEqual(new Set(['holes', 'writer', 'inferred']))
    expect(tree.find(({ path }) => path === 'cut')).not.toHaveProperty('holes')
  })

  it('is read from its repository, and restored whole, its holes as holes', async () => {
    const secret = { kind: 'key-file', file: join(GOLDEN_EXTENSIONS, 'repository.key') } as const
    const directory = join(GOLDEN_EXTENSIONS, 'repository')
    const key = openKeys(directory, readDescription(directory).id, secret)
    await using history = await OfflineHistory.open(directory, key)
    const place = { agent: label('pacs1', 'Agent'), volume: label('images', 'Volume'), path: ROOT }
    const point = await history.point(place.agent, place.volume, { kind: 'head' })
    const entries = []
    for await (const entry of history.tree(place.agent, place.volume, ROOT, point.position)) entries.push(entry)
    expect(plainTree(entries, () => false)).toEqual(tree)
    const to = join(scratchDirectory(), 'out')
    const how = { dryRun: false, setuid: false, special: false, torn: false }
    const report = await restore(history, { ...place, point, to, ...how })
    expect(report.missing).toEqual([])
    expect(readFileSync(join(to, 'full-hole'), 'utf8')).toBe('content')
    expect(readFileSync(join(to, 'all-hole'))).toEqual(Buffer.alloc(8192))
    expect(statSync(join(to, 'all-hole')).blocks).toBe(0)
  })
})

describe('a golden chunk that is filtered', () => {
  it('is read, of samples of every kind', async () => {
    const directory = join(GOLDEN_FILTER, 'repository')
    const key = openKeys(directory, readDescription(directory).id, { kind: 'key-file', file: join(GOLDEN_FILTER, 'repository.key') })
    await using history = await OfflineHistory.open(directory, key)
    const place = { agent: label('pacs1', 'Agent'), volume: label('images', 'Volume'), path: ROOT }
    const point = await history.point(place.agent, place.volume, { kind: 'head' })
    const to = join(scratchDirectory(), 'out')
    const report = await restore(history, { ...place, point, to, dryRun: false, setuid: false, special: false, torn: false })
    expect(report.missing).toEqual([])
    const contents = Object.entries(goldenFiltered())
    expect(contents).toHaveLength(39)
    for (const [name, hex] of contents) expect(readFileSync(join(to, name)).toString('hex'), name).toBe(hex)
  })
})

describe('a golden access log', () => {
  it('is what its ledger says, behind lines of a release that did not chain them', async () => {
    const [item] = goldenAccess()
    const entry = decodeLedgerEntry(Buffer.from(item?.hex ?? '', 'hex'))
    expect(plainEntry(entry)).toEqual(item?.value)
    expect(encodeLedgerEntry(entry).toString('hex')).toBe(item?.hex)
    if (entry.body.kind !== 'access') throw new Error('the entry is of another kind')
    const { kind: _, ...end } = entry.body
    const found = await checkAccessLog(accessDirectory(GOLDEN_ACCESS), [end])
    expect({ ...found, unchained: found.unchained }).toMatchObject({ files: 2, lines: 8, unchained: 2, broken: undefined })
    const other = await checkAccessLog(accessDirectory(GOLDEN_ACCESS), [{ ...end, hash: NO_DIGEST }])
    expect(other.broken).toMatchObject({ file: '2026-11-30.jsonl', line: 3 })
  })
})

describe('a golden ledger', () => {
  it('is read, entry by entry, and encodes to the same bytes', () => {
    const items = goldenLedger()
    let end = LEDGER_START
    for (const { hex, value } of items) {
      const bytes = Buffer.from(hex, 'hex')
      const entry = decodeLedgerEntry(bytes)
      expect(plainEntry(entry)).toEqual(value)
      expect(encodeLedgerEntry(entry).toString('hex')).toBe(hex)
      expect(ledgerBreak(end, entry)).toBeUndefined()
      end = ledgerEnd(entry, bytes)
    }
    const kinds = 'tick policy hold release expired retired deleted checkpoint'.split(' ')
    expect(new Set(items.map(({ hex }) => decodeLedgerEntry(Buffer.from(hex, 'hex')).body.kind))).toEqual(new Set(kinds))
  })

  it('says what of its repository has expired', async () => {
    const directory = join(GOLDEN_LEDGER, 'repository')
    const key = openKeys(directory, readDescription(directory).id, { kind: 'key-file', file: join(GOLDEN_LEDGER, 'repository.key') })
    expect(await checkRepository(directory, key)).toMatchObject({ damage: [], affected: [], expired: 1 })
    await using history = await OfflineHistory.open(directory, key)
    const [agent, volume] = [label('pacs1', 'Agent'), label('images', 'Volume')]
    for (const [seq, absent] of [
      [4, 'expired'],
      [5, undefined],
    ] as const) {
      const [, entry] = await Array.fromAsync(history.tree(agent, volume, ROOT, { epoch: 1, seq }))
      expect(entry).toMatchObject({ path: 'a', position: { epoch: 1, seq }, absent })
    }
  })
})

describe('a golden file with parity', () => {
  it('is read, checked, and repaired to the same bytes', async () => {
    const directory = join(scratchDirectory(), 'repository')
    cpSync(join(GOLDEN_PARITY, 'repository'), directory, { recursive: true })
    const key = openKeys(directory, readDescription(directory).id, { kind: 'key-file', file: join(GOLDEN_PARITY, 'repository.key') })
    const files = ['packs/01/000000000001.pack', 'segments/01/000000000001.seg'].map((file) => join(directory, file))
    const whole = files.map((file) => readFileSync(file))
    for (const [i, file] of files.entries()) {
      chmodSync(file, 0o600)
      writeFileSync(file, Buffer.concat([Buffer.alloc(600), whole[i]?.subarray(600) ?? Buffer.alloc(0)]))
    }
    expect((await checkRepository(directory, key)).damage.length).toBeGreaterThan(0)
    const repository = Repository.open(directory, key)
    onTestFinished(() => repository.close())
    const options = { parity: DEFAULT_PARITY, bytesPerSecond: Number.POSITIVE_INFINITY }
    expect(await scrubRepository(repository, key, options)).toMatchObject({ unprotected: 0, left: [] })
    expect(files.map((file) => readFileSync(file))).toEqual(whole)

    await using history = await OfflineHistory.open(directory, key)
    const place = { agent: label('pacs1', 'Agent'), volume: label('images', 'Volume'), path: ROOT }
    const point = await history.point(place.agent, place.volume, { kind: 'head' })
    const to = join(scratchDirectory(), 'out')
    const report = await restore(history, { ...place, point, to, dryRun: false, setuid: false, special: false, torn: false })
    expect(report.missing).toEqual([])
    const contents = Object.entries(goldenWithParity())
    expect(contents).toHaveLength(24)
    for (const [name, sha256] of contents)
      expect(
        createHash('sha256')
          .update(readFileSync(join(to, name)))
          .digest('hex'),
        name,
      ).toBe(sha256)
  })
})

describe('a golden message', () => {
  const items = goldenItems('messages.json')

  it.each(items.map((item) => [item.value.kind, item] as const))('%s decodes, and encodes to the same bytes', (_, item) => {
    const message = decodeMessage(Buffer.from(item.hex, 'hex'))
    expect(plain(message)).toEqual(item.value)
    expect(encodeMessage(message).toString('hex')).toBe(item.hex)
  })

  it('is there of every type', () => {
    const types = new Set(items.map(({ hex }) => Number.parseInt(hex.slice(0, 2), 16)))
    expect([...types].sort((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, i) => i + 1))
  })
})

describe('the golden repository', () => {
  const text = (name: string): string => readFileSync(join(GOLDEN, name), 'utf8')
  const secrets: [string, RepositorySecret][] = [
    ['key file', { kind: 'key-file', file: join(GOLDEN, 'repository.key') }],
    ['passphrase', { kind: 'passphrase', passphrase: text('passphrase.txt') }],
    ['recovery key', { kind: 'recovery', recoveryKey: text('recovery.txt') }],
  ]

  it.each(secrets)('opens with its %s', (_, secret) => {
    expect(openKeys(REPOSITORY, readDescription(REPOSITORY).id, secret)).toEqual(dataKey)
  })

  it('holds the trees that it held, at every point', async () => {
    await using history = await OfflineHistory.open(REPOSITORY, dataKey)
    expect(history.damage).toEqual([])
    for (const point of expected.points) {
      const [agent, volume] = [label(point.agent, 'Agent'), label(point.volume, 'Volume')]
      const byTime = await history.point(agent, volume, { kind: 'time', ms: Number(BigInt(point.time) >> 16n) })
      expect(byTime.position).toEqual({ epoch: point.epoch, seq: point.seq })
      const entries = []
      const lost = new Set<string>()
      for await (const entry of history.tree(agent, volume, ROOT, byTime.position)) {
        entries.push(entry)
        if (entry.absent === 'lost') lost.add(`${entry.position.epoch}:${entry.position.seq}`)
      }
      expect(plainTree(entries, (epoch, seq) => lost.has(`${epoch}:${seq}`))).toEqual(point.tree)
    }
  })

  it('holds the content that it held', async () => {
    await using history = await OfflineHistory.open(REPOSITORY, dataKey)
    let files = 0
    for (const point of expected.points) {
      const [agent, volume] = [label(point.agent, 'Agent'), label(point.volume, 'Volume')]
      for await (const { version, absent } of history.tree(agent, volume, ROOT, point)) {
        if (version.kind !== 'file' || absent !== undefined) continue
        const sha = createHash('sha256')
        for await (const chunk of history.chunks(version.chunks)) {
          if ('failure' in chunk) throw new Error(chunk.failure)
          sha.update(chunk.bytes)
        }
        expect(sha.digest('hex')).toBe(expected.contents[digestHex(version.digest)])
        files += 1
      }
    }
    expect(files).toBeGreaterThan(10)
  })

  it('is whole: its torn tail is no damage, and its lost version is no surprise', async () => {
    const report = await checkRepository(REPOSITORY, dataKey)
    expect(report).toMatchObject({ damage: [], affected: [], lostByAgent: 1, chunks: expected.chunks.length, agents: 2 })
    expect(report.notes.join()).toContain('000000000002.seg')
  })

  it('can be appended to: behind what is whole, without its torn tail', async () => {
    const directory = copiedRepository()
    const repository = Repository.openForAppending(directory, dataKey)
    onTestFinished(() => repository.close())
    expect(repository.end('pack').file).toBe(2)
    const before = readFileSync(join(REPOSITORY, 'segments/02/000000000002.seg'))
    const after = readFileSync(join(directory, 'segments/02/000000000002.seg'))
    expect(after.equals(before.subarray(0, after.length))).toBe(true)
    expect(before.length - after.length).toBe(120)
    const report = await checkRepository(directory, dataKey)
    expect(report).toMatchObject({ damage: [], notes: [] })
  })

  it('names its chunks by their digests', () => {
    const repository = Repository.open(REPOSITORY, dataKey)
    onTestFinished(() => repository.close())
    const found = new Set<string>()
    for (const number of repository.numbers('pack')) {
      for (const frame of repository.file('pack', number).scan())
        if (frame.kind === 'frame' && frame.type === 'chunk') found.add(digestHex(frame.digest))
    }
    expect(found).toEqual(new Set(expected.chunks))
    for (const hex of expected.chunks) expect(digestHex(digestFromHex(hex))).toBe(hex)
  })
})

describe('the program that made the golden files', () => {
  const make = (directory: string) =>
    spawnSync(process.execPath, [join(import.meta.dirname, 'make-golden.ts'), directory], { encoding: 'utf8' })

  it('never writes over them', () => {
    const { status, stderr } = make(GOLDEN)
    expect(status).not.toBe(0)
    expect(stderr).toContain('holds golden files')
  })

  it('makes the same records and messages today', () => {
    const directory = join(scratchDirectory(), 'v1')
    expect(make(directory)).toMatchObject({ status: 0 })
    for (const name of ['records.json', 'messages.json', 'expected.json'])
      expect(readFileSync(join(directory, name), 'utf8')).toBe(readFileSync(join(GOLDEN, name), 'utf8'))
  })
})
