/**
 * The demo's archive: studies as a PACS stores them, and an independent record of what the directory held at a moment.
 *
 * The record is the demo's own walk and its own hash (SHA-256): it shares no code with what it judges.
 */
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { dicomFile, rewriteHeader, sampleUid } from './dicom-sample.ts'

export const STUDIES = 12
const SERIES = 2
const IMAGES = 18
const PYDICOM_FILES = '/usr/lib/python3/dist-packages/pydicom/data/test_files'
const PYDICOM_MAX = 40

export interface Image {
  /** Below the archive's root. */
  readonly path: string
  readonly bytes: Buffer
}

/** One study's images, the same at every call. */
export function* study(number: number): Generator<Image> {
  const studyUid = sampleUid(`study ${number}`)
  const isCt = number % 3 === 0
  for (let series = 0; series < SERIES; series++) {
    const seriesUid = sampleUid(`series ${number} ${series}`)
    for (let instance = 1; instance <= IMAGES; instance++) {
      const bytes = dicomFile({
        patientName: `DEMO^PATIENT^${number}`,
        patientId: `P${1000 + number}`,
        studyUid,
        seriesUid,
        sopUid: sampleUid(`image ${number} ${series} ${instance}`),
        modality: isCt ? 'CT' : 'MR',
        rows: isCt ? 512 : 256,
        columns: isCt ? 512 : 256,
        instance,
        seed: number * 1000 + series * 100 + instance,
      })
      yield { path: join(studyDirectory(number), `series-${series + 1}`, `${String(instance).padStart(4, '0')}.dcm`), bytes }
    }
  }
}

function studyDirectory(number: number): string {
  return join('2026', '11', `study-${String(number).padStart(2, '0')}`)
}

export class DemoArchive {
  readonly root: string

  constructor(root: string) {
    this.root = root
    mkdirSync(root, { recursive: true })
  }

  /** Stores one image as Orthanc does: at its final path, flushed, closed. @returns when it was closed, by performance.now() */
  store(image: Image): number {
    const file = join(this.root, image.path)
    mkdirSync(dirname(file), { recursive: true })
    const fd = openSync(file, 'w')
    writeSync(fd, image.bytes)
    fsyncSync(fd)
    closeSync(fd)
    appendFileSync(join(this.root, 'index.log'), `${image.path} ${image.bytes.length}\n`)
    return performance.now()
  }

  /** Real files of many kinds, where the package python3-pydicom is installed. @returns how many */
  storeForeignFiles(): number {
    if (!existsSync(PYDICOM_FILES)) return 0
    const names = readdirSync(PYDICOM_FILES)
      .filter((name) => name.endsWith('.dcm'))
      .slice(0, PYDICOM_MAX)
    mkdirSync(join(this.root, 'foreign'), { recursive: true })
    for (const name of names) copyFileSync(join(PYDICOM_FILES, name), join(this.root, 'foreign', name))
    return names.length
  }

  /** A patient merge: the name in the header of every image of a study is rewritten in place. @returns how many */
  mergePatient(number: number, patientName: string): number {
    let count = 0
    for (const path of this.#imagesOf(number)) {
      writeFileSync(path, rewriteHeader(readFileSync(path), { patientName }))
      count += 1
    }
    return count
  }

  deleteStudy(number: number): void {
    rmSync(join(this.root, studyDirectory(number)), { recursive: true })
  }

  /** What ransomware does: noise over every image, another name, a note; and the index deleted. @returns how many were hit */
  encryptEverything(): number {
    let count = 0
    for (const number of Array.from({ length: STUDIES }, (_, i) => i + 1)) {
      for (const path of this.#imagesOf(number)) {
        const noise = createHash('sha512').update(path).digest()
        writeFileSync(path, Buffer.alloc(readFileSync(path).length, noise))
        renameSync(path, `${path}.locked`)
        count += 1
      }
    }
    writeFileSync(join(this.root, 'READ_ME_TO_PAY.txt'), 'Your images are encrypted.\n')
    rmSync(join(this.root, 'index.log'))
    return count
  }

  #imagesOf(number: number): string[] {
    const directory = join(this.root, studyDirectory(number))
    if (!existsSync(directory)) return []
    return readdirSync(directory).flatMap((series) => readdirSync(join(directory, series)).map((name) => join(directory, series, name)))
  }
}

/** Path -> everything about it that must come back. */
export type Record = ReadonlyMap<string, string>

export function recordOf(root: string): Record {
  const found = new Map<string, string>()
  const visit = (path: string): void => {
    const file = join(root, path)
    const stat = lstatSync(file, { bigint: true })
    const facts = `mode ${(stat.mode & 0o7777n).toString(8)}, owner ${stat.uid}:${stat.gid}, modified ${stat.mtimeNs}`
    if (stat.isDirectory()) {
      found.set(path, `directory, ${facts}`)
      for (const name of readdirSync(file)) visit(join(path, name))
    } else if (stat.isSymbolicLink()) {
      found.set(path, `link to ${readlinkSync(file)}, ${facts}`)
    } else {
      found.set(path, `${stat.size} bytes, SHA-256 ${createHash('sha256').update(readFileSync(file)).digest('hex')}, ${facts}`)
    }
  }
  visit('')
  return found
}

/** What is not as it was, in words. */
export function compareRecords(expected: Record, found: Record): string[] {
  const words: string[] = []
  for (const [path, facts] of expected) {
    const other = found.get(path)
    if (other !== facts) words.push(`${path === '' ? '.' : path}: ${other ?? 'missing'}, expected ${facts}`)
  }
  for (const path of found.keys()) if (!expected.has(path)) words.push(`${path}: should not be there`)
  return words
}
