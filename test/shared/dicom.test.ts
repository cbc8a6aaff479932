/**
 * Finding Pixel Data: in files built here for every transfer syntax, in everything that pydicom ships (its own answer is
 * the measure), and in damaged and hostile bytes, where the only demand is an answer.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { deflateRawSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DICOM_HEAD_BYTES, dicomTags, pixelData, samplesFrom } from '../../shared/dicom.ts'

const IMPLICIT = '1.2.840.10008.1.2'
const EXPLICIT = '1.2.840.10008.1.2.1'
const DEFLATED = '1.2.840.10008.1.2.1.99'
const BIG_ENDIAN = '1.2.840.10008.1.2.2'
const JPEG = '1.2.840.10008.1.2.4.50'
const RLE = '1.2.840.10008.1.2.5'
const GE_PRIVATE_IMPLICIT = '1.2.840.113619.5.2'
const UNDEFINED_LENGTH = 0xffff_ffff

interface Encoding {
  readonly explicit: boolean
  readonly bigEndian: boolean
}
const encodingOf = (syntax: string): Encoding => ({
  explicit: syntax !== IMPLICIT && syntax !== GE_PRIVATE_IMPLICIT,
  bigEndian: syntax === BIG_ENDIAN,
})

/** A part of a data set, to be written in any encoding. */
type Part = (encoding: Encoding) => Buffer

function numbers(bigEndian: boolean, ...values: (readonly [value: number, bytes: 2 | 4])[]): Buffer {
  return Buffer.concat(
    values.map(([value, bytes]) => {
      const buffer = Buffer.alloc(bytes)
      if (bigEndian) buffer.writeUIntBE(value, 0, bytes)
      else buffer.writeUIntLE(value, 0, bytes)
      return buffer
    }),
  )
}

const LONG = /^(O.|SQ|SV|U[CNRTV])$/

/** The tag, value representation and length of an element: all of it but the value. */
const opening =
  (tag: number, vr: string, length: number): Part =>
  ({ explicit, bigEndian }) => {
    const tagBytes = numbers(bigEndian, [tag >>> 16, 2], [tag & 0xffff, 2])
    if (!explicit) return Buffer.concat([tagBytes, numbers(bigEndian, [length, 4])])
    const lengthBytes = LONG.test(vr) ? numbers(bigEndian, [0, 2], [length, 4]) : numbers(bigEndian, [length, 2])
    return Buffer.concat([tagBytes, Buffer.from(vr, 'ascii'), lengthBytes])
  }

const text =
  (tag: number, vr: string, value: string): Part =>
  (encoding) => {
    const bytes = Buffer.from(value.length % 2 === 0 ? value : `${value}${vr === 'UI' ? '\0' : ' '}`, 'latin1')
    return Buffer.concat([opening(tag, vr, bytes.length)(encoding), bytes])
  }

const bytes =
  (tag: number, vr: string, value: Buffer): Part =>
  (encoding) =>
    Buffer.concat([opening(tag, vr, value.length)(encoding), value])

/** An element of one 16-bit number. */
const us =
  (tag: number, value: number): Part =>
  (encoding) =>
    bytes(tag, 'US', numbers(encoding.bigEndian, [value, 2]))(encoding)

const all =
  (...parts: readonly Part[]): Part =>
  (encoding) =>
    Buffer.concat(parts.map((part) => part(encoding)))

/** Items and delimiters have no value representation in any encoding. */
const marker =
  (element: number, length: number): Part =>
  ({ bigEndian }) =>
    numbers(bigEndian, [0xfffe, 2], [element, 2], [length, 4])

const knownLengthSequence =
  (tag: number, ...items: readonly Part[]): Part =>
  (encoding) => {
    const content = Buffer.concat(items.map((item) => Buffer.concat([marker(0xe000, item(encoding).length)(encoding), item(encoding)])))
    return Buffer.concat([opening(tag, 'SQ', content.length)(encoding), content])
  }

const undefinedLengthSequence = (tag: number, ...items: readonly Part[]): Part =>
  all(
    opening(tag, 'SQ', UNDEFINED_LENGTH),
    ...items.map((item) => all(marker(0xe000, UNDEFINED_LENGTH), item, marker(0xe00d, 0))),
    marker(0xe0dd, 0),
  )

const PIXELS = Buffer.from('pixels! '.repeat(8))
const nativePixels = bytes(0x7fe0_0010, 'OW', PIXELS)
const encapsulatedPixels = all(
  opening(0x7fe0_0010, 'OB', UNDEFINED_LENGTH),
  marker(0xe000, 0),
  marker(0xe000, PIXELS.length),
  () => PIXELS,
  marker(0xe0dd, 0),
)

const identification = all(
  text(0x0008_0005, 'CS', 'ISO_IR 100'),
  text(0x0008_0018, 'UI', '1.2.3.4'),
  text(0x0008_0020, 'DA', '20260102'),
  text(0x0008_0050, 'SH', 'ACC-1'),
  text(0x0008_0060, 'CS', 'CT'),
  text(0x0010_0010, 'PN', 'Mustermann^Erika'),
  text(0x0010_0020, 'LO', 'PAT-1'),
  text(0x0020_000d, 'UI', '1.2.3'),
  text(0x0020_000e, 'UI', '1.2.3.1'),
)
const icon = all(bytes(0x0028_0010, 'US', Buffer.from([1, 0])), nativePixels)

function part10(syntax: string, ...parts: readonly Part[]): Buffer {
  const dataSet = all(...parts)(encodingOf(syntax))
  const meta = all(text(0x0002_0003, 'UI', '1.2.3.4'), text(0x0002_0010, 'UI', syntax))(encodingOf(EXPLICIT))
  const groupLength = bytes(0x0002_0000, 'UL', numbers(false, [meta.length, 4]))(encodingOf(EXPLICIT))
  return Buffer.concat([Buffer.alloc(128), Buffer.from('DICM'), groupLength, meta, syntax === DEFLATED ? deflateRawSync(dataSet) : dataSet])
}

/** The same file, and where its last part begins. */
function withOffset(syntax: string, before: readonly Part[], pixels: Part): readonly [file: Buffer, offset: number] {
  return [part10(syntax, ...before, pixels), part10(syntax, ...before).length]
}

const IDENTITY = {
  sopInstanceUid: '1.2.3.4',
  studyDate: '20260102',
  accessionNumber: 'ACC-1',
  modality: 'CT',
  patientId: 'PAT-1',
  studyInstanceUid: '1.2.3',
  seriesInstanceUid: '1.2.3.1',
}

describe('Pixel Data', () => {
  test.each([IMPLICIT, EXPLICIT, BIG_ENDIAN, GE_PRIVATE_IMPLICIT])('is found in transfer syntax %s', (syntax) => {
    const [file, offset] = withOffset(syntax, [identification], nativePixels)
    expect(pixelData(file, file.length)?.offset).toBe(offset)
    expect(dicomTags(file)).toEqual({ ...IDENTITY, transferSyntaxUid: syntax })
  })

  const imageOf = (bitsAllocated: number, perPixel: number, planar: number): Part =>
    all(us(0x0028_0002, perPixel), us(0x0028_0006, planar), us(0x0028_0100, bitsAllocated))

  test.each([IMPLICIT, EXPLICIT, BIG_ENDIAN])('is an array of samples in transfer syntax %s', (syntax) => {
    const isBigEndian = syntax === BIG_ENDIAN
    const [file, offset] = withOffset(syntax, [identification, imageOf(16, 1, 0)], nativePixels)
    const first = offset + (syntax === IMPLICIT ? 8 : 12)
    expect(pixelData(file, file.length)).toEqual({ offset, samples: { offset: first, width: 2, isBigEndian, stride: 1 } })
    const samplesOf = (image: Part) => {
      const [other] = withOffset(syntax, [identification, image], nativePixels)
      return pixelData(other, other.length)?.samples
    }
    expect(samplesOf(imageOf(8, 3, 0))).toMatchObject({ width: 1, isBigEndian: false, stride: 3 })
    expect(samplesOf(imageOf(8, 3, 1))).toMatchObject({ width: 1, isBigEndian: false, stride: 1 })
    expect(samplesOf(imageOf(32, 1, 0))).toMatchObject({ width: 4, isBigEndian, stride: 1 })
    for (const unknown of [imageOf(1, 1, 0), imageOf(12, 1, 0), imageOf(16, 0, 0), imageOf(16, 5, 0), identification])
      expect(samplesOf(unknown)).toBeUndefined()
  })

  test.each([JPEG, RLE, GE_PRIVATE_IMPLICIT])('is no array of samples in transfer syntax %s', (syntax) => {
    const pixels = syntax === GE_PRIVATE_IMPLICIT ? nativePixels : encapsulatedPixels
    const [file, offset] = withOffset(syntax, [identification, imageOf(16, 1, 0)], pixels)
    expect(pixelData(file, file.length)).toEqual({ offset, samples: undefined })
  })

  test('has samples in any piece of it, from the first whole one on', () => {
    const samples = { offset: 1012, width: 2, isBigEndian: false, stride: 1 } as const
    const leads = [1000, 1001, 1012, 5001].map((start) => samplesFrom({ offset: 1000, samples }, start)?.lead)
    expect(leads).toEqual([0, 1, 0, 1])
    expect(samplesFrom({ offset: 1000, samples }, 999)).toBeUndefined()
    expect(samplesFrom({ offset: 1000, samples: undefined }, 1000)).toBeUndefined()
  })

  test.each([JPEG, RLE])('is found in fragments in transfer syntax %s', (syntax) => {
    const [file, offset] = withOffset(syntax, [identification], encapsulatedPixels)
    expect(pixelData(file, file.length)?.offset).toBe(offset)
    expect(dicomTags(file)).toEqual({ ...IDENTITY, transferSyntaxUid: syntax })
  })

  test.each([
    [0x7fe0_0008, 'OF'],
    [0x7fe0_0009, 'OD'],
  ])('is found in its floating-point form %i', (tag, vr) => {
    const [file, offset] = withOffset(EXPLICIT, [identification], bytes(tag, vr, PIXELS))
    expect(pixelData(file, file.length)?.offset).toBe(offset)
  })

  test.each([IMPLICIT, EXPLICIT, BIG_ENDIAN])('of an icon in a sequence does not count in transfer syntax %s', (syntax) => {
    for (const sequence of [knownLengthSequence, undefinedLengthSequence]) {
      const icons = sequence(0x0088_0200, icon, all(icon, sequence(0x0088_0200, icon)))
      const [file, offset] = withOffset(syntax, [identification, icons], nativePixels)
      expect(pixelData(file, file.length)?.offset).toBe(offset)
      const withoutImage = part10(syntax, identification, icons)
      expect(pixelData(withoutImage, withoutImage.length)?.offset).toBeUndefined()
      expect(dicomTags(withoutImage)).toEqual({ ...IDENTITY, transferSyntaxUid: syntax })
    }
  })

  test('is found behind elements of 64-bit integers and offset tables, which the parser does not know', () => {
    const before = [
      identification,
      bytes(0x0008_040c, 'UV', Buffer.alloc(8, 1)),
      bytes(0x0028_9999, 'SV', Buffer.alloc(8, 2)),
      bytes(0x7fe0_0001, 'OV', Buffer.alloc(64, 3)),
      bytes(0x7fe0_0002, 'OV', Buffer.alloc(64, 4)),
    ]
    const [file, offset] = withOffset(JPEG, before, encapsulatedPixels)
    expect(pixelData(file, file.length)?.offset).toBe(offset)
  })

  test('is found in a data set that is implicit although its transfer syntax says explicit', () => {
    const explicit = part10(EXPLICIT)
    const dataSet = all(identification)(encodingOf(IMPLICIT))
    const file = Buffer.concat([explicit, dataSet, nativePixels(encodingOf(IMPLICIT))])
    expect(pixelData(file, file.length)?.offset).toBe(explicit.length + dataSet.length)
  })

  test('is not looked for in a deflated file, whose meta header still identifies it', () => {
    const file = part10(DEFLATED, identification, nativePixels)
    expect(pixelData(file, file.length)?.offset).toBeUndefined()
    expect(dicomTags(file)).toEqual({ sopInstanceUid: '1.2.3.4', transferSyntaxUid: DEFLATED })
  })

  test('is at the same place however much of the file the caller has read', () => {
    const padding = bytes(0x0009_1010, 'OB', Buffer.alloc(DICOM_HEAD_BYTES - 1000))
    const [file, offset] = withOffset(EXPLICIT, [padding, identification], bytes(0x7fe0_0010, 'OW', Buffer.alloc(500_000)))
    expect(pixelData(file, file.length)?.offset).toBe(offset)
    expect(pixelData(file.subarray(0, DICOM_HEAD_BYTES), file.length)?.offset).toBe(offset)
    const beyond = part10(EXPLICIT, bytes(0x0009_1010, 'OB', Buffer.alloc(DICOM_HEAD_BYTES)), nativePixels)
    expect(pixelData(beyond, beyond.length)?.offset).toBeUndefined()
    expect(pixelData(beyond.subarray(0, DICOM_HEAD_BYTES), beyond.length)?.offset).toBeUndefined()
  })

  test('is never beyond the end of the file, whatever is behind it in the buffer', () => {
    const [file, offset] = withOffset(EXPLICIT, [identification], nativePixels)
    expect(pixelData(file, offset)?.offset).toBeUndefined()
    expect(pixelData(file, 0)?.offset).toBeUndefined()
  })

  test('is found in a view that does not begin where its buffer does', () => {
    const [file, offset] = withOffset(EXPLICIT, [identification], nativePixels)
    const view = new Uint8Array(Buffer.concat([Buffer.alloc(77), file])).subarray(77)
    expect(pixelData(view, view.length)?.offset).toBe(offset)
    expect(dicomTags(view)).toEqual({ ...IDENTITY, transferSyntaxUid: EXPLICIT })
  })
})

describe('tags', () => {
  test('that are missing, empty or too long to be true are absent', () => {
    const file = part10(
      EXPLICIT,
      text(0x0008_0050, 'SH', ''),
      text(0x0008_0060, 'CS', '   '),
      text(0x0010_0020, 'LO', 'x'.repeat(300)),
      nativePixels,
    )
    expect(dicomTags(file)).toEqual({ sopInstanceUid: '1.2.3.4', transferSyntaxUid: EXPLICIT })
  })

  test.each([
    ['ISO_IR 100', Buffer.from('PÄT-1 ', 'latin1')],
    ['ISO_IR 192', Buffer.from('PÄT-1', 'utf8')],
  ])('are read in the character set %s', (characterSet, patientId) => {
    const file = part10(EXPLICIT, text(0x0008_0005, 'CS', characterSet), bytes(0x0010_0020, 'LO', patientId))
    expect(dicomTags(file)?.patientId).toBe('PÄT-1')
  })

  test('are none for what is not DICOM', () => {
    for (const file of [
      Buffer.alloc(0),
      Buffer.alloc(4096),
      Buffer.from('not DICOM'),
      Buffer.concat([Buffer.alloc(128), Buffer.from('DICM')]),
    ]) {
      expect(dicomTags(file)).toBeUndefined()
      expect(pixelData(file, file.length)?.offset).toBeUndefined()
    }
  })
})

describe('damaged and hostile bytes', () => {
  const files = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG].map((syntax) =>
    withOffset(
      syntax,
      [identification, undefinedLengthSequence(0x0088_0200, icon), knownLengthSequence(0x0088_0201, icon)],
      syntax === JPEG ? encapsulatedPixels : nativePixels,
    ),
  )

  test('cut off at any length get an answer, and never a wrong one', () => {
    for (const [file, offset] of files) {
      for (let length = 0; length <= file.length; length++) {
        const answer = pixelData(file.subarray(0, length), length)?.offset
        if (answer !== undefined) expect(answer).toBe(offset)
        dicomTags(file.subarray(0, length))
      }
    }
  })

  test('with any bytes changed get an answer within the file', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...files.map(([file]) => file)),
        fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(0, 0xfe, 0xff))), { minLength: 1, maxLength: 12 }),
        (file, changes) => {
          const damaged = Buffer.from(file)
          for (const [at, byte] of changes) damaged[132 + (at % (file.length - 132))] = byte
          const answer = pixelData(damaged, damaged.length)?.offset
          if (answer !== undefined) expect(answer).toBeLessThan(damaged.length)
          dicomTags(damaged)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('of any kind behind a valid start get an answer within the file', () => {
    const starts = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED].map((syntax) => part10(syntax))
    fc.assert(
      fc.property(fc.constantFrom(...starts), fc.uint8Array({ maxLength: 2048, size: 'max' }), (start, tail) => {
        const file = Buffer.concat([start, tail])
        const answer = pixelData(file, file.length)?.offset
        if (answer !== undefined) expect(answer).toBeLessThan(file.length)
        dicomTags(file)
      }),
      { numRuns: 1000 },
    )
  })

  test('nested as deep as the head allows are answered at once', () => {
    for (const syntax of [EXPLICIT, IMPLICIT]) {
      const level = all(opening(0x0008_1140, 'SQ', UNDEFINED_LENGTH), marker(0xe000, UNDEFINED_LENGTH))(encodingOf(syntax))
      const levels = Math.ceil((2 * DICOM_HEAD_BYTES) / level.length)
      const file = Buffer.concat([part10(syntax, identification), Buffer.alloc(levels * level.length, level)])
      const began = performance.now()
      expect(pixelData(file, file.length)?.offset).toBeUndefined()
      expect(dicomTags(file)?.patientId).toBe('PAT-1')
      expect(performance.now() - began).toBeLessThan(5000)
    }
  })
})

describe('the files that pydicom ships', () => {
  const PYDICOM_FILES = '/usr/lib/python3/dist-packages/pydicom/data'
  /** What pydicom reads by guessing, or by inflating, and we leave uncut. */
  const NOT_CUT: ReadonlySet<string> = new Set([
    'image_dfl.dcm', // deflated
    'meta_missing_tsyntax.dcm', // no transfer syntax
    'nested_priv_SQ.dcm', // elements of group 1, which do not exist
  ])
  const ASK_PYDICOM = `
import json, sys, warnings
warnings.simplefilter('ignore')
import pydicom
answers = {}
for path in sys.argv[1:]:
    try:
        dataset = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        answers[path] = None
        continue
    found = [dataset.get_item(tag) for tag in (0x7fe00008, 0x7fe00009, 0x7fe00010) if tag in dataset]
    answers[path] = found[0].value_tell - (8 if found[0].is_implicit_VR else 12) if found else None
json.dump(answers, sys.stdout)
`

  test.skipIf(!existsSync(PYDICOM_FILES))('are answered as pydicom answers', () => {
    const paths = globSync(`${PYDICOM_FILES}/**/*`, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`)
      .filter((path) => !/\.(py|pyc|json|txt|md|gz|dump)$/.test(path))
    const answers: Readonly<Record<string, number | null>> = JSON.parse(
      execFileSync('/usr/bin/python3', ['-c', ASK_PYDICOM, ...paths], { encoding: 'utf8', maxBuffer: 1 << 24 }),
    )
    expect(Object.values(answers).filter((offset) => offset !== null).length).toBeGreaterThan(50)
    for (const [path, expected] of Object.entries(answers)) {
      const file = readFileSync(path)
      const isUncut = NOT_CUT.has(path.slice(path.lastIndexOf('/') + 1))
      expect([path, pixelData(file, file.length)?.offset]).toEqual([path, isUncut ? undefined : (expected ?? undefined)])
    }
  })
})
