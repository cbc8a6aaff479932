/**
 * Reads from the first kilobytes of a file whether it is DICOM Part 10, where its Pixel Data element begins, and the
 * tags by which people look for it.
 *
 * Invariant: for every input, however damaged or hostile, the answer is a value and comes after one pass over the head;
 * and it depends on the first `DICOM_HEAD_BYTES` of the file only, not on how many the caller happened to read. This
 * prevents the failure in which one crafted or half-written file among ten million stops the capture of the rest, and the
 * one in which the same content is cut at another place the second time and is stored again.
 *
 * The offset is advice to the chunker: a file that is not understood is not cut here, and loses nothing but
 * deduplication. The tags are what the file claims; they are untrusted text of bounded length, to be escaped by whoever
 * prints them.
 */
import dicomParser from 'dicom-parser'
import type { Samples } from './sample-filter.ts'

/** Headers beyond this are not searched. Real ones take 2 to 60 KB. */
export const DICOM_HEAD_BYTES = 256 * 1024

export interface DicomTags {
  readonly patientId?: string
  readonly studyInstanceUid?: string
  readonly seriesInstanceUid?: string
  readonly sopInstanceUid?: string
  readonly accessionNumber?: string
  readonly modality?: string
  readonly studyDate?: string
  readonly transferSyntaxUid?: string
}

const NAME_BY_TAG: ReadonlyMap<string, keyof DicomTags> = new Map([
  ['x00080018', 'sopInstanceUid'],
  ['x00080020', 'studyDate'],
  ['x00080050', 'accessionNumber'],
  ['x00080060', 'modality'],
  ['x00100020', 'patientId'],
  ['x0020000d', 'studyInstanceUid'],
  ['x0020000e', 'seriesInstanceUid'],
])

const TRANSFER_SYNTAX_UID = 'x00020010'
const MEDIA_STORAGE_SOP_INSTANCE_UID = 'x00020003'
const SPECIFIC_CHARACTER_SET = 'x00080005'
const PIXEL_DATA_TAGS: ReadonlySet<string> = new Set(['x7fe00008', 'x7fe00009', 'x7fe00010'])

const BITS_ALLOCATED = 'x00280100'
const SAMPLES_PER_PIXEL = 'x00280002'
const PLANAR_CONFIGURATION = 'x00280006'
const SAMPLES_PER_PIXEL_MAX = 4
const WIDTH_BY_BITS: ReadonlyMap<number, Samples['width']> = new Map([
  [8, 1],
  [16, 2],
  [32, 4],
])

const EXPLICIT_BIG_ENDIAN = '1.2.840.10008.1.2.2'
const DEFLATED_LITTLE_ENDIAN = '1.2.840.10008.1.2.1.99'
/** Those that do not compress pixels (PS3.5 annex A.1 to A.3). */
const NATIVE_TRANSFER_SYNTAXES: ReadonlySet<string> = new Set(['1.2.840.10008.1.2', '1.2.840.10008.1.2.1', EXPLICIT_BIG_ENDIAN])

/** Value representations with two reserved bytes and a length of 32 bits (PS3.5 table 7.1-1). */
export const LONG_VALUE_REPRESENTATIONS: ReadonlySet<string> = new Set([
  'OB',
  'OD',
  'OF',
  'OL',
  'OV',
  'OW',
  'SQ',
  'SV',
  'UC',
  'UN',
  'UR',
  'UT',
  'UV',
])
const VALUE_REPRESENTATION = /^[A-Z]{2}$/
const UNDEFINED_LENGTH = 0xffff_ffff

const PREAMBLE_BYTES = 128
const PREFIX = [0x44, 0x49, 0x43, 0x4d] // DICM
const ELEMENT_HEADER_BYTES = 8

/** The longest value of any tag above: 64 characters of up to four bytes. */
const LONGEST_VALUE_BYTES = 256

interface Value {
  readonly offset: number
  readonly length: number
}

interface Walk {
  readonly values: ReadonlyMap<string, Value>
  readonly pixels: Pixels | undefined
  readonly isBigEndian: boolean
}

/** Where the Pixel Data element is, as the head shows it. */
interface Pixels {
  /** Of its tag. */
  readonly offset: number
  /** Of its value; undefined where that is encapsulated (PS3.5 annex A.4). */
  readonly valueOffset: number | undefined
}

/** The Pixel Data of a file. */
export interface PixelData {
  /** File offset of the tag of the top-level element (7FE0,0010), or of its floating-point forms (7FE0,0008) and (7FE0,0009). */
  readonly offset: number
  /** Where its value is an array of whole numbers of one, two or four bytes, how that lies in the file. */
  readonly samples: PixelSamples | undefined
}

export interface PixelSamples {
  /** File offset of the first one. */
  readonly offset: number
  /** Bytes of one. */
  readonly width: Samples['width']
  readonly isBigEndian: boolean
  /** Samples from one to the next of its kind. */
  readonly stride: number
}

/** Whether it has the prefix of Part 10 (PS3.10 section 7.1). */
export function isDicom(head: Uint8Array): boolean {
  return PREFIX.every((byte, index) => head[PREAMBLE_BYTES + index] === byte)
}

/** `undefined`: not DICOM, no pixels, or not within the head. */
export function pixelData(head: Uint8Array, fileSize: number): PixelData | undefined {
  const bytes = head.subarray(0, fileSize)
  const walked = walk(bytes)
  if (walked?.pixels === undefined) return undefined
  return { offset: walked.pixels.offset, samples: pixelSamples(bytes, walked, walked.pixels) }
}

/** What of it lies in a piece of the file that begins at `start`. */
export function samplesFrom({ offset, samples }: PixelData, start: number): Samples | undefined {
  if (samples === undefined || start < offset) return undefined
  const { width, isBigEndian, stride } = samples
  return { width, isBigEndian, stride, lead: (((samples.offset - start) % width) + width) % width }
}

/** By Bits Allocated, Samples per Pixel and Planar Configuration (PS3.3 C.7.6.3). */
function pixelSamples(head: Uint8Array, { values, isBigEndian }: Walk, { valueOffset }: Pixels): PixelSamples | undefined {
  const transferSyntax = text(head, values.get(TRANSFER_SYNTAX_UID), false)
  if (valueOffset === undefined || !NATIVE_TRANSFER_SYNTAXES.has(transferSyntax ?? '')) return undefined
  const width = WIDTH_BY_BITS.get(unsigned(head, values.get(BITS_ALLOCATED), isBigEndian) ?? 0)
  const perPixel = unsigned(head, values.get(SAMPLES_PER_PIXEL), isBigEndian) ?? 1
  if (width === undefined || perPixel < 1 || perPixel > SAMPLES_PER_PIXEL_MAX) return undefined
  const isByPlane = unsigned(head, values.get(PLANAR_CONFIGURATION), isBigEndian) === 1
  return { offset: valueOffset, width, isBigEndian: isBigEndian && width > 1, stride: isByPlane ? 1 : perPixel }
}

/** A value of VR US. */
function unsigned(head: Uint8Array, value: Value | undefined, isBigEndian: boolean): number | undefined {
  if (value?.length !== 2 || value.offset + 2 > head.length) return undefined
  const [first = 0, second = 0] = head.subarray(value.offset, value.offset + 2)
  return isBigEndian ? first * 256 + second : second * 256 + first
}

/** The identifying tags, each absent if the file lacks it; `undefined` if the file is not DICOM Part 10. */
export function dicomTags(head: Uint8Array): DicomTags | undefined {
  const values = walk(head)?.values
  if (values === undefined) return undefined
  const utf8 = text(head, values.get(SPECIFIC_CHARACTER_SET), false)?.includes('ISO_IR 192') ?? false
  const tags: { -readonly [Name in keyof DicomTags]: DicomTags[Name] } = {}
  const take = (name: keyof DicomTags, tag: string): void => {
    const value = text(head, values.get(tag), utf8)
    if (value !== undefined) tags[name] = value
  }
  take('transferSyntaxUid', TRANSFER_SYNTAX_UID)
  // Stands in when the data set cannot be read, because it is deflated or damaged.
  take('sopInstanceUid', MEDIA_STORAGE_SOP_INSTANCE_UID)
  for (const [tag, name] of NAME_BY_TAG) take(name, tag)
  return tags
}

/** Every top-level element up to Pixel Data or as far as the bytes make sense; `undefined` if this is not Part 10. */
function walk(bytes: Uint8Array): Walk | undefined {
  if (!isDicom(bytes)) return undefined
  const head = bytes.subarray(0, DICOM_HEAD_BYTES)
  const values = new Map<string, Value>()
  let pixels: Pixels | undefined
  let isBigEndian = false
  // The parser throws strings, objects and errors at what it does not understand, and what was read before stays good.
  try {
    const dataSetStart = readMeta(head, values)
    const transferSyntax = text(head, values.get(TRANSFER_SYNTAX_UID), false)
    if (transferSyntax === undefined) return undefined
    isBigEndian = transferSyntax === EXPLICIT_BIG_ENDIAN
    if (transferSyntax !== DEFLATED_LITTLE_ENDIAN) pixels = readDataSet(head, dataSetStart, transferSyntax, values)
  } catch {
    if (!values.has(TRANSFER_SYNTAX_UID)) return undefined
  }
  return { values, pixels, isBigEndian }
}

/** Collects the file meta elements (group 2, always explicit little endian); the offset at which the data set begins. */
function readMeta(head: Uint8Array, values: Map<string, Value>): number {
  let end = PREAMBLE_BYTES + PREFIX.length
  for (const { tag, dataOffset, length } of Object.values(dicomParser.readPart10Header(head).elements)) {
    values.set(tag, { offset: dataOffset, length })
    end = Math.max(end, dataOffset + length)
  }
  return end
}

/** Collects top-level elements; where Pixel Data is, if the head reaches it. */
function readDataSet(head: Uint8Array, start: number, transferSyntax: string, values: Map<string, Value>): Pixels | undefined {
  if (start >= head.length) return undefined
  // Some files, and private syntaxes, are not in the encoding that they claim: the first element tells. Read as a length, a
  // value representation would be above 16 KB, which no first element has.
  const isExplicit = VALUE_REPRESENTATION.test(String.fromCharCode(...head.subarray(start + 4, start + 6)))
  const isBigEndian = transferSyntax === EXPLICIT_BIG_ENDIAN
  const stream = new dicomParser.ByteStream(
    isBigEndian ? dicomParser.bigEndianByteArrayParser : dicomParser.littleEndianByteArrayParser,
    head,
    start,
  )
  while (stream.position + ELEMENT_HEADER_BYTES <= head.length) {
    const offset = stream.position
    const tag = dicomParser.readTag(stream)
    if (PIXEL_DATA_TAGS.has(tag)) return { offset, valueOffset: pixelValueOffset(stream, isExplicit) }
    const vr = isExplicit ? stream.readFixedString(2) : undefined
    // Out of step, or damaged: whatever would be found from here on is not to be believed.
    if (vr !== undefined && !VALUE_REPRESENTATION.test(vr)) return undefined
    let length: number
    if (vr === undefined) length = stream.readUint32()
    else if (LONG_VALUE_REPRESENTATIONS.has(vr)) {
      stream.seek(2)
      length = stream.readUint32()
    } else length = stream.readUint16()

    if (length !== UNDEFINED_LENGTH) {
      // Sequences of known length are stepped over whole, and with them any icon's pixels.
      values.set(tag, { offset: stream.position, length })
      stream.seek(length)
    } else {
      // Only its items tell where it ends.
      stream.seek(offset - stream.position)
      if (isExplicit) dicomParser.readDicomElementExplicit(stream, [])
      else dicomParser.readDicomElementImplicit(stream)
    }
  }
  return undefined
}

/** Behind the tag: a value representation with two reserved bytes, then the length. */
function pixelValueOffset(stream: dicomParser.ByteStream, isExplicit: boolean): number | undefined {
  const isWithin = stream.position + (isExplicit ? 8 : 4) <= stream.byteArray.length
  if (!isWithin) return undefined
  if (isExplicit) stream.seek(4)
  const length = stream.readUint32()
  return length === UNDEFINED_LENGTH ? undefined : stream.position
}

function text(head: Uint8Array, value: Value | undefined, utf8: boolean): string | undefined {
  if (value === undefined || value.length > LONGEST_VALUE_BYTES || value.offset + value.length > head.length) return undefined
  const bytes = Buffer.from(head.buffer, head.byteOffset + value.offset, value.length)
  const trimmed = bytes
    .toString(utf8 ? 'utf8' : 'latin1')
    .replace(/\0.*$/s, '')
    .trim()
  return trimmed === '' ? undefined : trimmed
}
