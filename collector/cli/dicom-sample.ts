/**
 * Makes DICOM Part-10 files for the demo and the tests: synthetic CT-like slices, from nothing but their description.
 *
 * Invariant: the same description gives the same bytes, on every machine and in every order of calls, and every file is
 * valid (explicit VR little endian, even lengths, ascending tags). This prevents a demo or a test that fails on one
 * machine in ten and cannot be repeated, and one that passes because the files are not what an archive really holds.
 *
 * The noise is as strong as a scanner's, so that zstd halves a file and no more: zeros would flatter every figure.
 */
import { hash } from 'node:crypto'
import { LONG_VALUE_REPRESENTATIONS } from '../../shared/dicom.ts'

export interface DicomDescription {
  readonly patientName: string
  readonly patientId: string
  readonly studyUid: string
  readonly seriesUid: string
  readonly sopUid: string
  /** `CT`, `MR`, or another, which is filed as a secondary capture. */
  readonly modality: string
  readonly rows: number
  readonly columns: number
  /** Instance number within the series, from 1. */
  readonly instance: number
  readonly seed: number
  readonly accession?: string
}

const EXPLICIT_LITTLE_ENDIAN = '1.2.840.10008.1.2.1'
const SOP_CLASS_BY_MODALITY: ReadonlyMap<string, string> = new Map([
  ['CT', '1.2.840.10008.5.1.4.1.1.2'],
  ['MR', '1.2.840.10008.5.1.4.1.1.4'],
])
const SECONDARY_CAPTURE = '1.2.840.10008.5.1.4.1.1.7'
const PREAMBLE_BYTES = 128
const UNDEFINED_LENGTH = 0xffff_ffff

/** A UID of the UUID branch (2.25) that follows from a name, so that the same study has the same UID in every run. */
export function sampleUid(name: string): string {
  const bytes = hash('sha256', `pacsimile sample ${name}`, 'buffer').subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6) // UUID version 8: made by a rule of one's own
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return `2.25.${BigInt(`0x${bytes.toString('hex')}`)}`
}

export function dicomFile(description: DicomDescription): Buffer {
  const { patientName, patientId, studyUid, seriesUid, sopUid, modality, rows, columns, instance, accession } = description
  const sopClass = SOP_CLASS_BY_MODALITY.get(modality) ?? SECONDARY_CAPTURE
  const isSecondaryCapture = sopClass === SECONDARY_CAPTURE
  const when = studyTime(studyUid)
  const meta = Buffer.concat([
    element(0x0002_0001, 'OB', Buffer.from([0, 1])),
    element(0x0002_0002, 'UI', sopClass),
    element(0x0002_0003, 'UI', sopUid),
    element(0x0002_0010, 'UI', EXPLICIT_LITTLE_ENDIAN),
    element(0x0002_0012, 'UI', sampleUid('implementation')),
    element(0x0002_0013, 'SH', 'PACSIMILE_SAMPLE'),
  ])
  const header = [
    Buffer.alloc(PREAMBLE_BYTES),
    Buffer.from('DICM', 'ascii'),
    element(0x0002_0000, 'UL', uint32(meta.length)),
    meta,
    element(0x0008_0005, 'CS', 'ISO_IR 192'),
    element(0x0008_0008, 'CS', modality === 'CT' ? 'ORIGINAL\\PRIMARY\\AXIAL' : 'ORIGINAL\\PRIMARY\\OTHER'),
    element(0x0008_0016, 'UI', sopClass),
    element(0x0008_0018, 'UI', sopUid),
    element(0x0008_0020, 'DA', when.date),
    element(0x0008_0030, 'TM', when.time),
    element(0x0008_0050, 'SH', accession ?? ''),
    element(0x0008_0060, 'CS', modality),
    ...(isSecondaryCapture ? [element(0x0008_0064, 'CS', 'WSD')] : []),
    element(0x0008_0070, 'LO', 'Pacsimile'),
    element(0x0008_0090, 'PN', ''),
    element(0x0010_0010, 'PN', patientName),
    element(0x0010_0020, 'LO', patientId),
    element(0x0010_0030, 'DA', ''),
    element(0x0010_0040, 'CS', ''),
    element(0x0018_0050, 'DS', '1.25'),
    ...(modality === 'CT' ? [element(0x0018_0060, 'DS', '120')] : []),
    element(0x0020_000d, 'UI', studyUid),
    element(0x0020_000e, 'UI', seriesUid),
    element(0x0020_0010, 'SH', '1'),
    element(0x0020_0011, 'IS', '1'),
    element(0x0020_0013, 'IS', String(instance)),
    element(0x0020_0032, 'DS', `-180\\-180\\${(instance * 1.25).toFixed(2)}`),
    element(0x0020_0037, 'DS', '1\\0\\0\\0\\1\\0'),
    element(0x0020_0052, 'UI', sampleUid(`frame of reference ${seriesUid}`)),
    element(0x0020_1040, 'LO', ''),
    element(0x0028_0002, 'US', uint16(1)),
    element(0x0028_0004, 'CS', 'MONOCHROME2'),
    element(0x0028_0010, 'US', uint16(rows)),
    element(0x0028_0011, 'US', uint16(columns)),
    element(0x0028_0030, 'DS', '0.703125\\0.703125'),
    element(0x0028_0100, 'US', uint16(16)),
    element(0x0028_0101, 'US', uint16(16)),
    element(0x0028_0102, 'US', uint16(15)),
    element(0x0028_0103, 'US', uint16(0)),
    element(0x0028_1050, 'DS', '1064'),
    element(0x0028_1051, 'DS', '400'),
    element(0x0028_1052, 'DS', '-1024'),
    element(0x0028_1053, 'DS', '1'),
    element(0x0028_1054, 'LO', 'HU'),
    elementHeader(0x7fe0_0010, 'OW', rows * columns * 2),
  ]
  return Buffer.concat([...header, pixels(description)])
}

/**
 * The file with another patient name and every other byte as it was: what a PACS does when patients are merged. Takes
 * explicit little endian files that have a patient name.
 */
export function rewriteHeader(file: Buffer, change: { readonly patientName: string }): Buffer {
  for (let offset = PREAMBLE_BYTES + 4; offset + 8 <= file.length; ) {
    const tag = file.readUInt16LE(offset) * 0x1_0000 + file.readUInt16LE(offset + 2)
    const isLong = LONG_VALUE_REPRESENTATIONS.has(file.toString('latin1', offset + 4, offset + 6))
    const headerBytes = isLong ? 12 : 8
    const length = isLong ? file.readUInt32LE(offset + 8) : file.readUInt16LE(offset + 6)
    if (tag > 0x0010_0010 || length === UNDEFINED_LENGTH) break
    const end = offset + headerBytes + length
    if (tag === 0x0010_0010) {
      return Buffer.concat([file.subarray(0, offset), element(tag, 'PN', change.patientName), file.subarray(end)])
    }
    offset = end
  }
  throw new RangeError('The file has no patient name (0010,0010) to rewrite, or is not in explicit little endian.')
}

function studyTime(studyUid: string): { readonly date: string; readonly time: string } {
  const minutes = hash('sha256', studyUid, 'buffer').readUInt32LE(0) % (365 * 24 * 60)
  const iso = new Date(Date.UTC(2025, 0, 1, 0, minutes)).toISOString()
  return { date: iso.slice(0, 10).replaceAll('-', ''), time: iso.slice(11, 19).replaceAll(':', '') }
}

function element(tag: number, vr: string, value: string | Buffer): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value
  const padding = bytes.length % 2 === 0 ? '' : vr === 'UI' || vr === 'OB' ? '\0' : ' '
  return Buffer.concat([elementHeader(tag, vr, bytes.length + padding.length), bytes, Buffer.from(padding, 'ascii')])
}

function elementHeader(tag: number, vr: string, length: number): Buffer {
  const isLong = LONG_VALUE_REPRESENTATIONS.has(vr)
  const header = Buffer.alloc(isLong ? 12 : 8)
  header.writeUInt16LE(tag >>> 16, 0)
  header.writeUInt16LE(tag & 0xffff, 2)
  header.write(vr, 4, 'ascii')
  if (isLong) header.writeUInt32LE(length, 8)
  else header.writeUInt16LE(length, 6)
  return header
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** xorshift32: small, fast, the same everywhere. */
function nextRandom(state: number): number {
  let next = state ^ (state << 13)
  next ^= next >>> 17
  return next ^ (next << 5)
}

const NOISE_SAMPLES = 1 << 20
const NOISE_PEAK = 72
let noisePool: Int16Array | undefined

/** Bell-shaped noise, made once: every row of every image reads it from a place of its own. */
function noise(): Int16Array {
  if (noisePool === undefined) {
    noisePool = new Int16Array(NOISE_SAMPLES)
    let state = 0x5ca9_1e5d
    for (let i = 0; i < NOISE_SAMPLES; i++) {
      state = nextRandom(state)
      // The sum of four even bytes is near enough to a bell.
      const sum = (state & 0xff) + ((state >>> 8) & 0xff) + ((state >>> 16) & 0xff) + (state >>> 24)
      noisePool[i] = Math.trunc(((sum - 510) * NOISE_PEAK) / 510)
    }
  }
  return noisePool
}

/** A body (an ellipse with a density gradient and two lungs) in air, with noise: Hounsfield units plus 1024. */
function pixels({ rows, columns, instance, seed }: DicomDescription): Buffer {
  const image = new Uint16Array(rows * columns)
  const samples = noise()
  let state = (Math.imul(seed, 0x9e37_79b1) ^ Math.imul(instance, 0x85eb_ca6b)) | 1
  const halfWidth = columns * (0.36 + 0.04 * Math.sin(instance / 9))
  const halfHeight = rows * (0.28 + 0.03 * Math.cos(instance / 7))
  for (let row = 0; row < rows; row++) {
    state = nextRandom(state)
    const offset = (state >>> 0) % Math.max(1, NOISE_SAMPLES - columns)
    const y = (row - rows / 2) / halfHeight
    const bodyReach = y * y < 1 ? Math.sqrt(1 - y * y) * halfWidth : -1
    const lungReach = y * y < 0.3 ? Math.sqrt(0.3 - y * y) * halfWidth * 0.45 : -1
    const density = 1024 + Math.trunc(60 * y) + (instance % 16)
    for (let column = 0; column < columns; column++) {
      const x = Math.abs(column - columns / 2)
      const sample = samples[(offset + column) % NOISE_SAMPLES] as number
      let value: number
      if (x > bodyReach) value = 24 + (sample >> 2)
      else if (Math.abs(x - halfWidth * 0.42) < lungReach) value = 180 + sample
      else value = density + (column * 40) / columns + sample
      image[row * columns + column] = value < 0 ? 0 : value
    }
  }
  const bytes = Buffer.from(image.buffer)
  // The file is little endian whatever this machine is.
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] === 0) bytes.swap16()
  return bytes
}
