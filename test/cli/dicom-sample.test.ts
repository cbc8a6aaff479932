import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type DicomDescription, dicomFile, rewriteHeader, sampleUid } from '../../collector/cli/dicom-sample.ts'
import { dicomTags, pixelData } from '../../shared/dicom.ts'

const PYTHON = '/usr/bin/python3'
const hasPydicom = existsSync('/usr/lib/python3/dist-packages/pydicom')

const slice: DicomDescription = {
  patientName: 'Mustermann^Erika',
  patientId: 'PAT-1',
  studyUid: sampleUid('study 1'),
  seriesUid: sampleUid('series 1'),
  sopUid: sampleUid('instance 1'),
  modality: 'CT',
  rows: 512,
  columns: 512,
  instance: 1,
  seed: 7,
  accession: 'ACC-1',
}

/** Where the pixels begin; the test fails here if they are not found. */
function offsetOfPixels(file: Buffer): number {
  const offset = pixelData(file, file.length)?.offset
  if (offset === undefined) throw new Error('no Pixel Data found')
  return offset
}

/** What pydicom reads, with every warning an error. */
function readByPydicom(file: Buffer): unknown {
  const directory = mkdtempSync(join(tmpdir(), 'pacsimile-sample-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'file.dcm')
  writeFileSync(path, file)
  const script = `
import json, sys, pydicom
from pydicom import config
config.settings.reading_validation_mode = config.RAISE
d = pydicom.dcmread(sys.argv[1])
list(map(str, d.iterall()))
print(json.dumps([str(d.PatientName), d.PatientID, d.StudyInstanceUID, d.SOPInstanceUID, d.Modality, d.Rows, d.Columns, len(d.PixelData),
  d.file_meta.MediaStorageSOPInstanceUID, d.AccessionNumber, d.InstanceNumber]))`
  return JSON.parse(execFileSync(PYTHON, ['-W', 'error', '-c', script, path], { encoding: 'utf8' }))
}

describe('a sample file', () => {
  test('has the same bytes whenever it is made from the same description, and others for another slice', () => {
    const first = dicomFile(slice)
    const other = dicomFile({ ...slice, instance: 2 })
    expect(dicomFile(slice).equals(first)).toBe(true)
    expect(other.length).toBe(first.length)
    expect(other.subarray(-4096).equals(first.subarray(-4096))).toBe(false)
    expect(
      dicomFile({ ...slice, seed: 8 })
        .subarray(-4096)
        .equals(first.subarray(-4096)),
    ).toBe(false)
  })

  test('ends with exactly its pixels and carries the tags of its description', () => {
    const file = dicomFile({ ...slice, rows: 64, columns: 48 })
    expect(offsetOfPixels(file) + 12 + 64 * 48 * 2).toBe(file.length)
    expect(dicomTags(file)).toMatchObject({
      patientId: 'PAT-1',
      studyInstanceUid: slice.studyUid,
      seriesInstanceUid: slice.seriesUid,
      sopInstanceUid: slice.sopUid,
      accessionNumber: 'ACC-1',
      modality: 'CT',
      transferSyntaxUid: '1.2.840.10008.1.2.1',
    })
  })

  test('is halved by zstd as a scanner’s image is, and not more', () => {
    const file = dicomFile(slice)
    const ratio = file.length / zstdCompressSync(file, { params: { [constants.ZSTD_c_compressionLevel]: 1 } }).length
    expect(ratio).toBeGreaterThan(1.7)
    expect(ratio).toBeLessThan(2.6)
  })

  test.skipIf(!hasPydicom).each(['CT', 'MR', 'OT'])('is read by pydicom without a warning: %s', (modality) => {
    const accession = 'ACC-1'
    const file = dicomFile({ ...slice, modality, patientName: 'Müller^Jörg', rows: 33, columns: 31 })
    expect(readByPydicom(file)).toEqual([
      'Müller^Jörg',
      slice.patientId,
      slice.studyUid,
      slice.sopUid,
      modality,
      33,
      31,
      33 * 31 * 2,
      slice.sopUid,
      accession,
      1,
    ])
  })
})

describe('a rewritten header', () => {
  test.each(['', 'A', 'Roe^Jane', 'A much longer name than there was before^With^A^Title', 'Müller^Jörg'])(
    'changes the name to "%s" and nothing else',
    (patientName) => {
      const file = dicomFile({ ...slice, rows: 16, columns: 16 })
      const rewritten = rewriteHeader(file, { patientName })
      expect(rewritten.equals(dicomFile({ ...slice, rows: 16, columns: 16, patientName }))).toBe(true)
      expect(rewritten.subarray(offsetOfPixels(rewritten)).equals(file.subarray(offsetOfPixels(file)))).toBe(true)
    },
  )

  test.skipIf(!hasPydicom)('is read by pydicom without a warning', () => {
    const rewritten = rewriteHeader(dicomFile(slice), { patientName: 'Roe^Jane' })
    expect(readByPydicom(rewritten)).toEqual(expect.arrayContaining(['Roe^Jane', slice.patientId, slice.sopUid, 512 * 512 * 2]))
  })

  test('is refused for what has no patient name', () => {
    expect(() => rewriteHeader(Buffer.alloc(4096), { patientName: 'Roe^Jane' })).toThrow(RangeError)
    expect(() => rewriteHeader(Buffer.alloc(10), { patientName: 'Roe^Jane' })).toThrow(RangeError)
  })
})

test('a sample UID is a valid UID that follows from its name', () => {
  const uid = sampleUid('study 1')
  expect(uid).toMatch(/^2\.25\.[1-9]\d{0,38}$/)
  expect(sampleUid('study 1')).toBe(uid)
  expect(sampleUid('study 2')).not.toBe(uid)
})
