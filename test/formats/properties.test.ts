/** Encoding and decoding are inverse, and no bytes at all make a decoder do anything but refuse. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readFrameHeader } from '../../collector/repository/frame.ts'
import { decodeIndex, IndexWriter } from '../../collector/repository/frame-index.ts'
import { decodeRecordGroup, encodeRecordGroup } from '../../collector/repository/record-group.ts'

import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { digestOf } from '../../shared/digest.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import { decodeRecord, decodeSummary, encodeRecord } from '../../shared/record.ts'
import { decodeVersion, encodeVersion, sameVersion, type Version } from '../../shared/version.ts'
import { HOLES_MAX, holesOf, isInferred, withAdditions, writerOf } from '../../shared/version-extensions.ts'
import { decodeMessage, encodeMessage } from '../../shared/wire.ts'
import { messages, records, versions } from './arbitrary.ts'
import { goldenItems } from './examples.ts'
import { plain } from './plain.ts'

const RUNS = { numRuns: 5000 }
const metadataOf = { mode: 0, uid: 0, gid: 0, mtimeNs: 0n, ctimeNs: 0n, inode: 0n, links: 1, xattrs: [] }

describe('encoding and decoding', () => {
  it('of any record are inverse', () => {
    fc.assert(
      fc.property(records, (record) => {
        const bytes = encodeRecord(record)
        const decoded = decodeRecord(bytes)
        expect(decoded).toEqual(record)
        expect(encodeRecord(decoded)).toEqual(bytes)
      }),
    )
  })

  it('of any version are inverse', () => {
    fc.assert(
      fc.property(versions, (version) => {
        const to = new ByteWriter()
        encodeVersion(version, to)
        const from = new ByteReader(to.view(), 'Version')
        expect(decodeVersion(from)).toEqual(version)
        from.end()
      }),
    )
  })

  it('of any message are inverse', () => {
    fc.assert(
      fc.property(messages, (message) => {
        expect(plain(decodeMessage(encodeMessage(message)))).toEqual(plain(message))
      }),
    )
  })

  it('of any index and any group of records are inverse', () => {
    fc.assert(
      fc.property(fc.array(records, { maxLength: 5 }), (list) => {
        const group = { agent: label('pacs1', 'Agent'), records: list.map((record) => encodeRecord(record)) }
        expect(decodeRecordGroup(encodeRecordGroup(group))).toEqual(group)
        const index = list.map(({ previous, epoch, seq }, i) => ({
          type: i % 2 === 0 ? ('chunk' as const) : ('records' as const),
          offset: epoch,
          storedLength: seq,
          plainLength: i,
          digest: previous,
        }))
        const written = new IndexWriter()
        for (const frame of index) written.add(frame)
        expect([...decodeIndex(written.encode())]).toEqual(index)
      }),
    )
  })
})

const holes = fc
  .array(fc.record({ gap: fc.nat(1 << 20), length: fc.integer({ min: 1, max: 1 << 20 }) }), { minLength: 1, maxLength: 20 })
  .map((list) => {
    let end = 0
    return list.map(({ gap, length }) => {
      const offset = end + gap
      end = offset + length
      return { offset, length }
    })
  })
const executable = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1'))
const word = fc.nat(0xffff_ffff)
const file = versions.filter((version) => version.kind === 'file')

describe('the extension fields of a version', () => {
  it('come back as they were given, through the encoding, and nothing else changes', () => {
    fc.assert(
      fc.property(file, holes, fc.record({ pid: word, uid: word, executable }), fc.boolean(), (version, given, writer, inferred) => {
        const size = (given.at(-1)?.offset ?? 0) + (given.at(-1)?.length ?? 0)
        const to = new ByteWriter()
        // The size is not that of the chunks: it is looked at before it is encoded.
        const sparse = withAdditions({ ...version, size }, { holes: given, writer, isInferred: inferred })
        expect(holesOf(sparse)).toEqual(given)
        encodeVersion({ ...sparse, size: version.size }, to)
        const decoded = decodeVersion(new ByteReader(to.view(), 'Version'))
        expect(writerOf(decoded)).toEqual(writer)
        expect(isInferred(decoded)).toBe(inferred)
        const known = ({ tag }: { tag: number }): boolean => tag >= 128 && tag <= 130
        const others = (version.extensions ?? []).filter((extension) => !known(extension))
        expect((decoded.extensions ?? []).filter((extension) => !known(extension))).toEqual(others)
        expect(withAdditions(decoded, {})).toEqual(others.length === 0 ? withAdditions(version, {}) : { ...version, extensions: others })
      }),
    )
  })

  it('make no difference where they are not well-formed, whatever the bytes', () => {
    fc.assert(
      fc.property(file, fc.constantFrom(128, 129, 130), fc.uint8Array({ maxLength: 40 }), (version, tag, bytes) => {
        const spoilt: Version = { ...version, extensions: [{ tag, value: Buffer.from(bytes).toString('latin1') }] }
        const found = holesOf(spoilt)
        // Whatever is taken from them is in order and within the file.
        let end = 0
        for (const { offset, length } of found) {
          expect(offset).toBeGreaterThanOrEqual(end)
          expect(length).toBeGreaterThan(0)
          end = offset + length
        }
        expect(end).toBeLessThanOrEqual(version.size)
        const writer = writerOf(spoilt)
        if (tag !== 129) expect(writer).toBeUndefined()
        expect(isInferred(spoilt)).toBe(tag === 130)
      }),
      RUNS,
    )
  })

  it('are absent: too many holes, an empty hole, one beyond the end, of no file, cut short', () => {
    const version: Version = {
      ...metadataOf,
      kind: 'file',
      consistency: 'stable',
      size: 100,
      digest: digestOf(Buffer.alloc(0)),
      chunks: [],
    }
    const withField = (tag: number, ...bytes: number[]): Version => ({
      ...version,
      extensions: [{ tag, value: Buffer.from(bytes).toString('latin1') }],
    })
    expect(holesOf(withField(128, 1, 90, 10))).toEqual([{ offset: 90, length: 10 }])
    expect(holesOf(withField(128, 1, 90, 11))).toEqual([])
    expect(holesOf(withField(128, 1, 90, 0))).toEqual([])
    expect(holesOf(withField(128, 2, 0, 1))).toEqual([])
    expect(holesOf({ ...metadataOf, kind: 'directory', extensions: [{ tag: 128, value: '\x01\x00\x01' }] })).toEqual([])
    const many = Array.from({ length: HOLES_MAX + 1 }, (_, i) => ({ offset: 2 * i, length: 1 }))
    expect(withAdditions(version, { holes: many })).toEqual(version)
    expect(holesOf(withAdditions({ ...version, size: 1 << 20 }, { holes: many.slice(1) }))).toHaveLength(HOLES_MAX)
    expect(writerOf(withField(129, 1, 2, 3, 0x61))).toBeUndefined()
    expect(writerOf(withField(129, 1, 2, 1, 0x61))).toEqual({ pid: 1, uid: 2, executable: 'a' })
  })

  it('decide whether two versions are the same only by their holes', () => {
    const version: Version = {
      ...metadataOf,
      kind: 'file',
      consistency: 'stable',
      size: 100,
      digest: digestOf(Buffer.alloc(0)),
      chunks: [],
    }
    const writer = { pid: 1, uid: 2, executable: 'a' }
    const sparse = withAdditions(version, { holes: [{ offset: 0, length: 4 }] })
    expect(sameVersion(version, withAdditions(version, { writer, isInferred: true }))).toBe(true)
    expect(sameVersion(version, sparse)).toBe(false)
    expect(sameVersion(sparse, withAdditions(sparse, { holes: [{ offset: 0, length: 4 }], writer }))).toBe(true)
    expect(sameVersion(sparse, withAdditions(sparse, { holes: [{ offset: 0, length: 5 }] }))).toBe(false)
  })
})

/** Bytes of every kind: noise, and what is right but for a few bytes. */
function hostile(seeds: readonly string[]): fc.Arbitrary<Buffer> {
  const changed = fc
    .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), fc.nat(), fc.boolean())
    .map(([hex, changes, cut, isCut]) => {
      const bytes = Buffer.from(hex, 'hex')
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte
      return isCut ? bytes.subarray(0, cut % bytes.length) : bytes
    })
  return fc.oneof(
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) },
    { weight: 4, arbitrary: changed },
  )
}

function refusal(decode: () => unknown): string | undefined {
  try {
    decode()
    return undefined
  } catch (error) {
    if (error instanceof PacsimileError) return error.code
    throw error
  }
}

const hexOf = (name: 'records.json' | 'messages.json'): string[] => goldenItems(name).map(({ hex }) => hex)

describe('any bytes', () => {
  it('are a record, or refused as none', () => {
    fc.assert(
      fc.property(hostile(hexOf('records.json')), (bytes) => {
        for (const decode of [decodeRecord, decodeSummary]) {
          const code = refusal(() => decode(bytes))
          expect([undefined, 'format-invalid', 'format-unknown']).toContain(code)
        }
        // What is taken has one encoding only.
        if (refusal(() => decodeRecord(bytes)) === undefined) expect(encodeRecord(decodeRecord(bytes))).toEqual(bytes)
      }),
      RUNS,
    )
  })

  it('are a message, or refused as none', () => {
    fc.assert(
      fc.property(hostile(hexOf('messages.json')), (bytes) => {
        expect([undefined, 'protocol']).toContain(refusal(() => decodeMessage(bytes)))
        // Whatever was taken can be said again.
        if (refusal(() => decodeMessage(bytes)) === undefined) encodeMessage(decodeMessage(bytes))
      }),
      RUNS,
    )
  })

  it('are the inside of a frame, or refused as none', () => {
    const group = encodeRecordGroup({ agent: label('pacs1', 'Agent'), records: [Buffer.from('a'), Buffer.from('bc')] }).toString('hex')
    fc.assert(
      fc.property(hostile([group]), (bytes) => {
        for (const decode of [decodeRecordGroup, decodeIndex]) expect([undefined, 'format-invalid']).toContain(refusal(() => decode(bytes)))
        expect([undefined, 'format-unknown']).toContain(refusal(() => readFrameHeader(bytes)))
      }),
      RUNS,
    )
  })
})
