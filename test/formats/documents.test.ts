/** docs/format.md and docs/protocol.md say what the code does: the examples decode, and sizes and numbers are equal. */
import { createHmac, createSecretKey } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import { describe, expect, it, onTestFinished } from 'vitest'
import { SPOOL_FRAME_HEADER_BYTES } from '../../agent/spool-segment.ts'
import { FILE_HEADER_BYTES } from '../../collector/repository/file-header.ts'
import { FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FRAME_TYPES, labelKey } from '../../collector/repository/frame.ts'
import { FrameFile } from '../../collector/repository/frame-file.ts'
import { FOOTER_BYTES } from '../../collector/repository/frame-index.ts'
import { decodeLedgerEntry, LEDGER_HEADER_BYTES } from '../../collector/repository/ledger-entry.ts'
import { millisecondsOf } from '../../shared/clock.ts'
import { digestHex, digestOf } from '../../shared/digest.ts'
import { ERRORS } from '../../shared/errors.ts'
import * as limits from '../../shared/limits.ts'
import { decodeRecord, EPOCH_REASONS, encodeRecord, RECORD_HEADER_BYTES, recordHash, WATCH_MODES } from '../../shared/record.ts'
import { CONSISTENCIES, FILE_KINDS } from '../../shared/version.ts'
import { decodeMessage, ENROLL_PATH, encodeMessage, JOURNAL_PATH, type MessageKind, SUBPROTOCOL } from '../../shared/wire.ts'
import { scratchDirectory } from '../support/scratch.ts'
import { documentText, goldenAccess, goldenItems, goldenLedger, tableOf, workedExample } from './examples.ts'

const format = documentText('format.md')
const protocol = documentText('protocol.md')

const DATA_KEY = Buffer.alloc(32, 0x42)
const CONTENT = 'PACS facsimile, PACS facsimile, PACS facsimile.\n'

describe('the sealed pack of docs/format.md', () => {
  const bytes = workedExample(format, 'pack')
  const value = (name: string): string => new RegExp(`\\| ${name} \\| \`([0-9a-f]+)\` \\|`).exec(format)?.[1] ?? `no ${name}`

  function opened(): FrameFile {
    const path = join(scratchDirectory(), '000000000001.pack')
    writeFileSync(path, bytes)
    const file = FrameFile.open(
      path,
      { kind: 'pack', repository: '0123456789abcdef0123456789abcdef', number: 1 },
      createSecretKey(DATA_KEY),
    )
    onTestFinished(() => file.close())
    return file
  }

  it('opens to its content, by its index and front to back', () => {
    const file = opened()
    const [frame, ...more] = file.sealedIndex() ?? []
    expect(more).toEqual([])
    expect(frame).toMatchObject({ type: 'chunk', offset: FILE_HEADER_BYTES, plainLength: CONTENT.length })
    if (frame === undefined) return
    expect(file.read(frame.offset, frame.storedLength, frame.digest).toString()).toBe(CONTENT)
    expect([...file.scan()].map((found) => (found.kind === 'frame' ? found.type : found.reason))).toEqual(['chunk', 'index'])
  })

  it('has the keys that are written beside it', () => {
    const name = digestOf(Buffer.from(CONTENT))
    expect(bytes.subarray(48, 80).toString('hex')).toBe(value('salt'))
    expect(labelKey(createSecretKey(DATA_KEY), bytes.subarray(48, 80)).export().toString('hex')).toBe(value('label key'))
    expect(digestHex(name)).toBe(value('digest of the chunk'))
    const payloadKey = createHmac('sha256', DATA_KEY).update('pacsimile frame v1').update(Buffer.from(name, 'latin1')).update('\x01')
    expect(payloadKey.digest('hex')).toBe(value('payload key of the chunk'))
    expect(zstdDecompressSync(Buffer.from(value('its payload, opened'), 'hex')).toString()).toBe(CONTENT)
  })
})

describe('the record of docs/format.md', () => {
  const bytes = workedExample(format, 'record')

  it('decodes to what is written beside it, and encodes to the same bytes', () => {
    const record = decodeRecord(bytes)
    expect(record).toMatchObject({ kind: 'put', epoch: 1, seq: 3, volume: 'images', path: 'CT/a\xff.dcm' })
    expect(new Date(millisecondsOf(record.time)).toISOString()).toBe('2026-01-02T03:04:05.678Z')
    expect(encodeRecord(record)).toEqual(bytes)
    expect(format).toContain(digestHex(recordHash(bytes)))
    if (record.kind === 'put')
      expect(record.version).toMatchObject({
        kind: 'file',
        mode: 0o640,
        uid: 1001,
        gid: 100,
        mtimeNs: 1_767_323_045_123_456_789n,
        inode: 4711n,
        links: 1,
        consistency: 'stable',
        size: CONTENT.length,
        digest: digestOf(Buffer.from(CONTENT)),
        xattrs: [{ name: 'user.note', value: 'x' }],
        extensions: [{ tag: 200, value: 'later' }],
      })
  })
})

describe('the byte tables of docs/format.md', () => {
  /** Where each row begins is where the one before ends. */
  const sizeOf = (rows: readonly string[][]): number => {
    let at = 0
    for (const [offset, bytes] of rows) {
      if (!/^\d+$/.test(offset ?? '') || !/^\d+$/.test(bytes ?? '')) break
      expect(Number(offset)).toBe(at)
      at += Number(bytes)
    }
    return at
  }

  it('have the sizes of the code', () => {
    expect(sizeOf(tableOf(format, 'offset', 'bytes', 'file header'))).toBe(FILE_HEADER_BYTES)
    expect(sizeOf(tableOf(format, 'offset', 'bytes', ''))).toBe(FRAME_HEADER_BYTES)
    expect(sizeOf(tableOf(format, 'offset', 'bytes', 'footer'))).toBe(FOOTER_BYTES)
    expect(sizeOf(tableOf(format, 'offset', 'bytes', 'record header'))).toBe(RECORD_HEADER_BYTES)
    expect(sizeOf(tableOf(format, 'offset', 'bytes', 'ledger entry'))).toBe(LEDGER_HEADER_BYTES)
    expect(format).toContain(`A frame takes ${FRAME_OVERHEAD_BYTES} + *n* bytes`)
    expect(format).toContain(`u32 CRC of the ${SPOOL_FRAME_HEADER_BYTES - 4}\nbytes before`)
  })

  it('name the kinds of entries of the ledger in the order of their numbers', () => {
    const rows = tableOf(format, 'kind', '', 'content').map(([number, kind]) => [Number(number), kind])
    const at = 2 * (LEDGER_HEADER_BYTES - 1)
    const inGolden = new Map(
      [...goldenLedger(), ...goldenAccess()].map(({ hex }) => [
        Number.parseInt(hex.slice(at, at + 2), 16),
        decodeLedgerEntry(Buffer.from(hex, 'hex')).body.kind,
      ]),
    )
    expect(rows).toEqual([...inGolden].sort(([a], [b]) => a - b))
  })

  it('name the kinds of records in the order of their numbers', () => {
    const rows = tableOf(format, 'kind', '', 'body').map(([number, kind]) => [Number(number), kind])
    const items = goldenItems('records.json')
    const inGolden = new Map(items.map(({ hex, value }) => [Number.parseInt(hex.slice(112, 114), 16), value.kind]))
    expect(rows).toEqual([...inGolden].sort(([a], [b]) => a - b))
  })

  it('name the other numbers as the code has them', () => {
    const numbered = (names: readonly string[]): string => names.map((name, i) => `${i + 1} \`${name}\``).join(', ')
    expect(format).toContain(numbered(FILE_KINDS))
    expect(format).toContain(numbered(EPOCH_REASONS))
    expect(format).toContain(numbered(WATCH_MODES))
    expect(tableOf(format, '', '', '').map(([number, name]) => [number, name])).toEqual(
      CONSISTENCIES.map((name, i) => [`${i + 1}`, `\`${name}\``]),
    )
    const { chunk, records, index } = FRAME_TYPES
    expect(format).toContain(`type: ${chunk} chunk, ${records} records, ${index} index`)
  })

  it('bound what the code bounds', () => {
    const bounds = [...format.matchAll(/`([A-Z_]+_MAX)` (\d+)/g)].map(([, name, value]) => [name, Number(value)])
    expect(bounds.length).toBeGreaterThan(8)
    expect(Object.fromEntries(bounds)).toEqual(
      Object.fromEntries(bounds.map(([name]) => [name, (limits as Record<string, unknown>)[name ?? '']])),
    )
  })
})

describe('docs/protocol.md', () => {
  it.each(['hello', 'want', 'chunk', 'ack'] as const)('has a %s that is the golden one', (kind) => {
    const bytes = workedExample(protocol, kind)
    const message = decodeMessage(bytes)
    expect(message.kind).toBe(kind)
    expect(encodeMessage(message)).toEqual(bytes)
    expect(goldenItems('messages.json').map(({ hex }) => hex)).toContain(bytes.toString('hex'))
  })

  it('names every type, who sends it, and its fields', () => {
    const rows = tableOf(protocol, 'type', 'message', 'from', 'layout')
    const items = goldenItems('messages.json')
    expect(rows.map(([type, kind]) => [Number(type), kind])).toEqual(
      [...new Map(items.map(({ hex, value }) => [Number.parseInt(hex.slice(0, 2), 16), value.kind]))].sort(([a], [b]) => a - b),
    )
    for (const [, kind, , layout] of rows) {
      if (layout?.startsWith('CBOR') !== true) continue
      const item = items.find(({ value }) => value.kind === (kind as MessageKind))
      for (const field of Object.keys(item?.value ?? {})) if (field !== 'kind') expect(layout).toContain(`\`${field}\``)
    }
  })

  it('names paths, subprotocol and bounds as the code has them', () => {
    for (const name of [ENROLL_PATH, JOURNAL_PATH, SUBPROTOCOL]) expect(protocol).toContain(name)
    expect(protocol).toContain(`at most ${limits.MESSAGE_BYTES_MAX / 2 ** 20} MiB`)
    expect(protocol).toContain(`at most ${limits.CONTROL_BYTES_MAX / 2 ** 20} MiB`)
    expect(protocol).toContain(`at most ${limits.OFFER_DIGESTS_MAX}`)
    expect(protocol).toContain(`1 to ${limits.RECORDS_PER_MESSAGE_MAX} records`)
    expect(protocol).toContain(`1 to ${limits.ASKED_SPOTS_MAX} of them`)
    expect(protocol).toContain(`more than ${limits.ASKS_MAX} questions`)
    expect(protocol).toContain(`(${limits.WINDOW_BYTES / 2 ** 20} MiB)`)
    expect(protocol).toContain(`beyond ${limits.SESSIONS_MAX} sessions`)
    expect(protocol).toContain(`${limits.CLOCK_SKEW_MS_MAX / 60_000} minutes ahead`)
    expect(protocol).toContain(`more than ${limits.ENROLLMENT_BYTES_MAX / 1024} KiB`)
    expect(protocol).toContain(`${limits.ENROLLMENT_FAILURES_MAX} failures`)
  })

  it('refuses with codes that exist', () => {
    const codes = [...tableOf(protocol, 'refused if', 'code'), ...tableOf(protocol, 'status', 'code', '')].flatMap(([, code = '']) =>
      [...code.matchAll(/`([a-z-]+)`/g)].map(([, name]) => name ?? ''),
    )
    expect(codes.length).toBeGreaterThan(8)
    expect(codes.filter((code) => !Object.hasOwn(ERRORS, code))).toEqual([])
  })
})

describe('a repository as docs/format.md names its places', () => {
  it('puts files where the layout says', async () => {
    const { Repository } = await import('../../collector/repository/repository.ts')
    const directory = scratchDirectory()
    mkdirSync(join(directory, 'r'))
    Repository.create(join(directory, 'r'), { id: '00'.repeat(16), chunkSizes: { min: 131_072, average: 524_288, max: 2_097_152 } })
    const repository = Repository.open(join(directory, 'r'), DATA_KEY)
    expect(repository.pathOf('pack', 0x1_23ab)).toBe(join(directory, 'r', 'packs/ab/0000000123ab.pack'))
    expect(repository.pathOf('segment', 1)).toBe(join(directory, 'r', 'segments/01/000000000001.seg'))
    repository.close()
  })
})
