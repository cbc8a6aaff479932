/** Encoding and decoding are inverse, and no bytes at all make a decoder do anything but refuse. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readFrameHeader } from '../../collector/repository/frame.ts'
import { decodeIndex, encodeIndex } from '../../collector/repository/frame-index.ts'
import { decodeRecordGroup, encodeRecordGroup } from '../../collector/repository/repository.ts'
import { ByteReader, ByteWriter } from '../../shared/bytes.ts'
import { PacsimileError } from '../../shared/errors.ts'
import { label } from '../../shared/path.ts'
import { decodeRecord, decodeSummary, encodeRecord } from '../../shared/record.ts'
import { decodeVersion, encodeVersion } from '../../shared/version.ts'
import { decodeMessage, encodeMessage } from '../../shared/wire.ts'
import { messages, records, versions } from './arbitrary.ts'
import { goldenItems } from './examples.ts'
import { plain } from './plain.ts'

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
        expect(decodeIndex(encodeIndex(index))).toEqual(index)
      }),
    )
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
const RUNS = { numRuns: 5000 }

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
